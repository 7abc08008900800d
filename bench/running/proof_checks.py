"""Checks certificates of answers about images: nothing that a run says of them is believed.

The network is a file with the hash that the run names, the property is written anew from the image, and both hashes are
compared with those in the certificate; then `verifiers.checker` goes through the proof.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import multiprocessing
import secrets
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunecert.bench.planning.plan import property_text
from prunecert.bench.results.proofs import MOST_BYTES, certificate_path
from prunecert.bench.results.row_types import ProofRow, Row, VerdictRow
from prunecert.bench.results.session_types import SessionCell, SessionRow
from prunecert.bench.results.store import Log, collector_off, run_session
from prunecert.bench.schema.cell import parse_eps
from prunecert.bench.schema.suite import available_suites, load_suite
from prunecert.errors import UserError
from prunecert.files import read_regular
from prunecert.models.data import SPLITS, Dataset, Split
from prunecert.models.datasets.source import DataSource, load_split
from prunecert.printable import shortened
from prunecert.verifiers.base import Status
from prunecert.verifiers.checker import RefusedError, UnreadableError, check_stream
from prunecert.verifiers.checker.files import read
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network
from prunecert.verifiers.rounding.blas_threads import one_thread

EXPORTS = Path("onnx_exports")
#: Why a counterexample counts for nothing where the question is an l2 ball; a proof about the box covers the ball.
OUTSIDE = "certificates are about boxes, and a counterexample in one may be outside the l2 ball"
#: Claims whose properties are in memory at once, for each process.
_AHEAD = 8


class Claim(NamedTuple):
    """A certificate, and what it is said to prove.

    Args:
        cell: The network's name, for people.
        image: The image's number.
        status: ``unsat`` or ``sat``.
        certificate: The file.
        sha256: Its hash.
        onnx: The network's file.
        property: VNN-LIB.
    """

    cell: str
    image: int
    status: str
    certificate: Path
    sha256: str
    onnx: Path
    property: str


class Checked(NamedTuple):
    """What came of a check.

    Args:
        cell: The network's name.
        image: The image's number.
        status: What was claimed.
        problem: Why it is no proof of that; empty: it is one.
        refused: Whether it was read, and proves something else or nothing.
        seconds: Of checking.
    """

    cell: str
    image: int
    status: str
    problem: str = ""
    refused: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.cell} image {self.image}, {self.status}: {self.problem or 'checked'}"


@functools.lru_cache(maxsize=2)
def _network(onnx: Path) -> tuple[bytes, Network]:
    content = read(onnx)
    return hashlib.sha256(content).digest(), read_network(content)


def check_claim(claim: Claim) -> Checked:
    """Checks one certificate here and now."""
    begin = time.perf_counter()
    place = claim.cell, claim.image, claim.status
    try:
        content = read_regular(claim.certificate, MOST_BYTES)
        if hashlib.sha256(content).hexdigest() != claim.sha256:
            return Checked(*place, "the file was changed: its SHA-256 is not the one that is named", True)
        digest, network = _network(claim.onnx)
        with one_thread():
            report = check_stream(io.BytesIO(content), digest, lambda: network, claim.property.encode())
    except RefusedError as error:
        return Checked(*place, f"refused: {error}", True, time.perf_counter() - begin)
    except (UnreadableError, UserError, OSError) as error:
        return Checked(*place, f"can't be checked: {error}", False, time.perf_counter() - begin)
    problem = "" if report.answer == claim.status else f"refused: it proves {report.answer}"
    return Checked(*place, problem, bool(problem), time.perf_counter() - begin)


def check_claims(claims: Iterable[Claim], workers: int = 1) -> Iterator[Checked]:
    """Checks certificates, in so many processes, and yields what came of them in their order."""
    if workers == 1:
        yield from map(check_claim, claims)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        left = iter(claims)
        while chunk := list(itertools.islice(left, _AHEAD * workers)):
            yield from pool.map(check_claim, chunk)


@dataclass
class Networks:
    """Finds networks' files by their hashes.

    Args:
        folders: Where to look, with all folders below.
    """

    folders: Sequence[Path]
    _known: dict[str, Path] = field(default_factory=dict)
    _left: list[Path] | None = None

    def find(self, sha256: str, name: str) -> Path:
        """Returns the file of a network.

        Args:
            sha256: Of the file, unpacked if it was gzipped.
            name: The cell's: a file that is called so is looked at first.

        Raises:
            UserError: There is none.
        """
        if sha256 in self._known:
            return self._known[sha256]
        if self._left is None:
            files = (path for folder in self.folders for path in folder.rglob("*.onnx*") if path.is_file())
            self._left = sorted(set(files))
        self._left.sort(key=lambda path: not path.name.startswith(name))
        while sha256 not in self._known and self._left:
            path = self._left.pop(0)
            try:
                # What was packed counts; a certificate is for that, too.
                self._known[hashlib.sha256(read(path)).hexdigest()] = path
            except (UnreadableError, OSError, EOFError, zlib.error):
                continue  # Whatever else lies there.
        if sha256 not in self._known:
            where = ", ".join(shortened(folder) for folder in self.folders)
            raise UserError(
                f"The network of {name} (SHA-256 {sha256[:16]}…) isn't in {where}; name its folder with --exports, or "
                "export it again (prunecert export)."
            )
        return self._known[sha256]


class ProvedRun:
    """A run's answers and certificates.

    Args:
        directory: The run directory.

    Raises:
        UserError: It is no run, or is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cells: dict[str, SessionCell] = {}
        self.sessions: list[SessionRow] = []
        self._proofs: dict[tuple[str, int], ProofRow] = {}
        self._answers: dict[tuple[str, int], Status] = {}
        log = Log(directory)
        for session in log.all_sessions():
            run_session(directory, session)
        with collector_off():
            for row in log.rows():
                self._take(row)
        self.sessions.sort(key=lambda session: session.started)
        for session in self.sessions:
            self.cells |= {cell.name: cell for cell in session.cells if not cell.certified_only}

    def _take(self, row: Row) -> None:
        if isinstance(row, SessionRow):
            self.sessions.append(row)
        elif isinstance(row, ProofRow):
            self._proofs[row.key, row.image] = row
        elif isinstance(row, VerdictRow):
            self._answers[row.key, row.image] = row.status

    def decided(self) -> list[tuple[str, int, Status]]:
        """Returns cell, image and answer of all that was decided, once each."""
        places: dict[tuple[str, int, Status], None] = {}
        for name, cell in self.cells.items():
            for image in cell.numbers:
                for stage in cell.stages:
                    status = self._answers.get((stage.key, image))
                    if status is not None and status.decided:
                        places[name, image, status] = None
        return list(places)

    def proof(self, name: str, image: int, status: Status) -> ProofRow | None:
        """Returns what the run says of the certificate of an answer."""
        rows = [self._proofs.get((stage.key, image)) for stage in self.cells[name].stages]
        fitting = [row for row in rows if row is not None and row.status == status]
        return next((row for row in fitting if row.sha256), fitting[0] if fitting else None)

    def claims(self, places: Iterable[tuple[str, int, Status]], networks: Networks, images: Images) -> Iterator[Claim]:
        """Yields the certificates that there are of some answers, network and property found anew.

        Raises:
            UserError: The network or the image isn't here.
        """
        for name, image, status in places:
            row = self.proof(name, image, status)
            if row is None or not row.sha256:
                continue
            cell = self.cells[name]
            text = images.property(cell, image)
            path = certificate_path(self.directory, row.sha256)
            yield Claim(name, image, str(status), path, row.sha256, networks.find(cell.onnx_sha256, name), text)


@dataclass
class Images:
    """Writes properties anew from images.

    Args:
        source: The data set.
        root: Its folder; None: it is looked for.
    """

    source: DataSource
    root: Path | None = None
    _splits: dict[str, tuple[Dataset, dict[int, int]]] = field(default_factory=dict)

    def property(self, cell: SessionCell, image: int) -> str:
        """Returns the property of a cell's image.

        Raises:
            UserError: It isn't in the data at hand, or that is other data than the run's.
        """
        if cell.split not in self._splits:
            split: Split = next((name for name in SPLITS if name == cell.split), "test")
            data = load_split(self.source, split, self.root)
            places = {int(index): position for position, index in enumerate(data.indices)}
            self._splits[cell.split] = data, places
        data, places = self._splits[cell.split]
        if data.fingerprint != cell.data_fingerprint or data.split != cell.split or image not in places:
            raise UserError(
                f"The run was made on other data ({cell.split}, {cell.data_fingerprint[:16]}…) than is here "
                f"({data.split}, {data.fingerprint[:16]}…), so that its properties can't be written again; name its "
                "folder with --data-root."
            )
        return property_text(data, places[image], parse_eps(cell.eps))


def images_of(run: ProvedRun, suite: str | None, root: Path | None) -> Images:
    """Returns what writes a run's properties anew.

    Args:
        run: The run.
        suite: Name or file of its suite; None: the shipped one that it names.
        root: Folder of the data; None: it is looked for.

    Raises:
        UserError: The suite doesn't ship, and none is given.
    """
    session = run.sessions[-1]
    if suite is None and session.suite not in available_suites():
        raise UserError(f"Suite {session.suite!r} doesn't ship, so that its data isn't known; give it with --suite.")
    return Images(load_suite(suite or session.suite).data, root)


def fresh_seed(seed: int | None = None) -> int:
    """Returns a seed, or a new one: who knows it beforehand knows which certificates nobody will look at."""
    return secrets.randbelow(2**31) if seed is None else seed


def choose(places: Sequence[tuple[str, int, Status]], count: int | None, seed: int) -> list[tuple[str, int, Status]]:
    """Returns so many of the answers, drawn with a seed and in their order; None: all."""
    if count is None or count >= len(places):
        return list(places)
    drawn = np.random.default_rng(seed).choice(len(places), count, replace=False)
    return [places[number] for number in sorted(drawn.tolist())]


class Tally(NamedTuple):
    """What came of checking a run's certificates.

    Args:
        accepted: How many hold.
        problems: Those that don't, or can't be read.
        without: Decided answers that have none.
        decided: All decided answers.
        seconds: Of checking, all processes together.
    """

    accepted: int
    problems: list[Checked]
    without: int
    decided: int
    seconds: float


def check_run(
    run: ProvedRun,
    networks: Networks,
    images: Images,
    *,
    workers: int = 1,
    places: Collection[tuple[str, int, Status]] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tally:
    """Checks a run's certificates.

    Args:
        run: The run.
        networks: Its networks.
        images: Its images.
        workers: Processes side by side.
        places: Answers to look at; None: all that were decided.
        tell: Takes a line about how far it is, now and then.

    Raises:
        UserError: A network or an image isn't here.
    """
    decided = run.decided() if places is None else list(places)
    having = [place for place in decided if (row := run.proof(*place)) is not None and row.sha256]
    outside = [place for place in having if place[2] is Status.SAT and run.cells[place[0]].norm == "l2"]
    problems = [Checked(name, image, str(status), OUTSIDE, True) for name, image, status in outside]
    places = [place for place in having if place not in outside]
    accepted, spent, said = 0, 0.0, time.monotonic()
    for number, checked in enumerate(check_claims(run.claims(places, networks, images), workers), start=1):
        spent += checked.seconds
        if checked.problem:
            problems.append(checked)
        else:
            accepted += 1
        if tell is not None and time.monotonic() - said > 10.0:
            said = time.monotonic()
            tell(f"checked {number} of {len(places)} certificates, {len(problems)} with problems")
    return Tally(accepted, problems, len(decided) - len(having), len(decided), spent)
