"""What is asked of `bench.verify`: anybody's files, or a list of them, and how they are to be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecert.bench.results.vnncomp import Task, all_existing, category_of, pair_name, read_rows
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.printable import shortened
from prunecert.verifiers.base import Status

if TYPE_CHECKING:
    from prunecert.bench.running.pairs import PairFiles

#: Seconds for a property of which nobody says how long it may take.
TIMEOUT_S = 300.0
#: Folder of the results, if nobody names one.
OUT = Path("results/runs/verify")


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertiesRequest:
    """What is asked: one pair of files, a list of pairs, or two networks over a property's boxes.

    Args:
        verifiers: Settings by the name of each verifier that is asked, in order.
        onnx: The network, .onnx or .onnx.gz.
        vnnlib: The property, .vnnlib or .vnnlib.gz.
        instances: A list as VNN-COMP has it, in place of the two.
        second: A network that the first one is compared with.
        alike: What is asked of the two, see `bench.running.pairs.alike`.
        timeout: Limit for each property in seconds; None: the list's, or `TIMEOUT_S`.
        category: The benchmark's name in results.csv; None: the folder's.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_limit_mb: Limit on a verifier's resident size in MiB; None: none.
        threads: Of a verifier; None: its own default.
        abcrown: A checkout of alpha-beta-CROWN to use.
        compact: What is removed from networks before verifiers get them.
        certificate: Where a proof of the one pair goes; None: nowhere.
        retry: Statuses of earlier answers that are asked for again.
        out: Folder of the results.
        argv: The command's arguments, for the session row.
    """

    verifiers: Mapping[str, dict[str, Any]]
    onnx: Path | None = None
    vnnlib: Path | None = None
    instances: Path | None = None
    second: Path | None = None
    alike: str | None = None
    timeout: float | None = None
    category: str | None = None
    device: str = "cpu"
    memory_limit_mb: int | None = None
    threads: int | None = None
    abcrown: Path | None = None
    compact: Mode = Mode.OFF
    certificate: Path | None = None
    retry: frozenset[Status] = frozenset()
    out: Path = OUT
    argv: tuple[str, ...] = ()

    def tasks(self) -> list[tuple[Task, PairFiles | None]]:
        """Returns the files to be verified, each with the two networks that it was merged from, if it was.

        Those of a comparison are written.

        Raises:
            UserError: Files are missing or can't be read, options don't go together, or networks can't be compared.
        """
        tasks: list[tuple[Task, PairFiles | None]] = [*self._pairs()]
        tasks = tasks or [(task, None) for task in self._single()]
        if self.certificate is not None and self.instances is not None:
            raise UserError("--certificate is written for one pair; give --onnx and --vnnlib in place of --instances.")
        if self.certificate is not None and self.certificate.is_dir():
            raise UserError(f"--certificate {shortened(self.certificate, 200)} is a folder; name a file.")
        return tasks

    def _single(self) -> list[Task]:
        """Returns the one pair, or those of the list."""
        if self.instances is not None:
            if self.onnx is not None or self.vnnlib is not None:
                raise UserError("--instances goes without --onnx and --vnnlib; give one or the other.")
            return read_rows(self.instances, self.category, self.timeout)
        if self.onnx is None or self.vnnlib is None:
            raise UserError("Nothing to verify; give --onnx and --vnnlib, or --instances.")
        onnx, vnnlib = all_existing((self.onnx, "ONNX"), (self.vnnlib, "VNN-LIB"))
        category = self.category or category_of(onnx.parent)
        return [Task(category, onnx, vnnlib, self.timeout or TIMEOUT_S, pair_name(onnx, vnnlib))]

    def _pairs(self) -> list[tuple[Task, PairFiles]]:
        """Returns what a comparison asks for, its files written; nothing if there is no second network."""
        if self.second is None and self.alike is None:
            return []
        if self.instances is not None:
            raise UserError("--with and --alike go without --instances; give --onnx and --vnnlib in its place.")
        if self.second is None:
            raise UserError("--alike needs --with, the second of the two networks that it asks about.")
        if self.onnx is None or self.vnnlib is None:
            raise UserError("--with needs --onnx and --vnnlib; give what is missing.")
        if self.compact is not Mode.OFF or self.certificate is not None:
            raise UserError("--with goes without --compact and --certificate; leave them out.")
        # Imported by who needs it: what reads files is a third of what a command imports before its verifier starts.
        from prunecert.bench.running.pairs import pair_tasks, unpack

        first, second, vnnlib = all_existing((self.onnx, "ONNX"), (self.second, "ONNX"), (self.vnnlib, "VNN-LIB"))
        category = self.category or category_of(first.parent)
        timeout = self.timeout or TIMEOUT_S
        folder = self.out / "networks"
        plain, other = unpack(first, folder), unpack(second, folder)
        try:
            return pair_tasks(plain, other, vnnlib, self.alike, category, timeout, folder)
        except UserError as error:
            # The person knows the files by their own names, not by those of unpacked copies.
            message = str(error).replace(str(plain), str(first)).replace(str(other), str(second))
            raise UserError(message) from error
