"""Certificates that come with an entry: what it may say of them, and checking them.

    results/leaderboard/<name>.json                      "proofs": {"image": […], "status": […], "sha256": […], …}
    results/leaderboard/certificates/<name>/<sha256>.cert
    results/leaderboard/certificates/<name>/network.onnx.gz
    results/leaderboard/checked/<name>.json              ours: how many of them `bench.check --record` has checked

An entry names its certificates by hash; whether they hold is found out by checking them, with the network and the
images at hand. The record of that is no part of a submission.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

import prunecert
from prunecert.bench.leaderboard.entry import Entry
from prunecert.bench.leaderboard.imagesets import images_sha256
from prunecert.bench.planning.plan import CellPlan, property_text
from prunecert.bench.results.proofs import certificate_path, read_certificate
from prunecert.bench.running.proof_checks import (
    EXPORTS,
    OUTSIDE,
    Claim,
    Networks,
    ProvedRun,
    check_claims,
    choose,
)
from prunecert.bench.schema.cell import parse_eps
from prunecert.errors import UserError
from prunecert.files import read_regular, write_bytes, write_text
from prunecert.models.data import Dataset
from prunecert.verifiers.base import Status

FOLDER, RECORDS = "certificates", "checked"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_RECORD_BYTES = 1 << 16


class Record(Struct, kw_only=True, forbid_unknown_fields=True):
    """What `bench.check --record` has found out about an entry's certificates.

    Args:
        digest: The entry's, so that a record of another edition counts for nothing.
        checked: Certificates that were checked, and hold.
        proofs: Certificates that there are.
        answers: Images that the entry counts as verified or broken.
        seed: Of the choice, where not all were checked.
        version: Of this program.
    """

    digest: str
    checked: int
    proofs: int
    answers: int
    seed: int
    version: str

    @property
    def words(self) -> str:
        """What the board says."""
        chosen = f", drawn with seed {self.seed}" if self.checked < self.proofs else ""
        return f"{self.checked} of {self.proofs} checked by us{chosen}, of {self.answers} answers"


class ProofProblem(NamedTuple):
    """A certificate that doesn't hold, or can't be checked.

    Args:
        name: The entry's.
        field: Its field.
        what: Why.
        elsewhere: Whether nothing was found out, because the images or the network aren't at hand.
    """

    name: str
    field: str
    what: str
    elsewhere: bool = False


def decided(entry: Entry) -> set[tuple[int, str]]:
    """Returns image and status of all that an entry's verifiers decided."""
    return {
        (image, status)
        for columns in entry["verdicts"].values()
        for image, status in zip(columns["image"], columns["status"], strict=False)
        if status in (Status.UNSAT, Status.SAT)
    }


def judge_proofs(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges what an entry says of its certificates by its answers; whether they hold is `check_proofs`'s business."""
    proofs = entry.get("proofs")
    if proofs is None:
        return
    if len({len(column) for column in proofs.values()}) > 1:
        yield "proofs", "its columns differ in length"
        return
    places = list(zip(proofs["image"], proofs["status"], strict=True))
    if len(set(places)) < len(places):
        yield "proofs.image", "an answer has two certificates"
    for image, status in sorted(set(places) - decided(entry)):
        yield "proofs.status", f"image {image}: a certificate of {status!r:.20}, which no verifier answered"
    for value in proofs["sha256"]:
        if _SHA256.fullmatch(value) is None:
            yield "proofs.sha256", f"{value!r:.70} is no SHA-256"


def columns_of(run: ProvedRun, plan: CellPlan) -> dict[str, list[Any]] | None:
    """Returns what an entry says of a run's certificates; None where there are none."""
    columns: dict[str, list[Any]] = {"image": [], "status": [], "sha256": [], "size": []}
    for name, image, status in run.decided():
        row = run.proof(name, image, status) if name == plan.name else None
        if row is not None and row.sha256:
            for key, value in zip(columns, (image, str(status), row.sha256, row.size), strict=True):
                columns[key].append(value)
    return columns if columns["image"] else None


def copy_proofs(entry: Entry, run: Path, network: Path, folder: Path) -> None:
    """Copies an entry's certificates and network from a run beside it.

    Args:
        entry: The entry.
        run: The run directory.
        network: The network's file.
        folder: The entries'.

    Raises:
        UserError: A certificate is missing, or was changed.
    """
    if "proofs" not in entry:
        return
    target = folder / FOLDER / entry["name"]
    target.mkdir(parents=True, exist_ok=True)
    for sha256 in dict.fromkeys(entry["proofs"]["sha256"]):
        write_bytes(target / f"{sha256}.cert", read_certificate(run, sha256))
    # Without a time, so that the same network makes the same file.
    write_bytes(target / "network.onnx.gz", gzip.compress(network.read_bytes(), mtime=0))


def check_proofs(
    folder: Path,
    entries: Mapping[str, Entry],
    data: Callable[[], Dataset],
    *,
    exports: Sequence[Path] = (EXPORTS,),
    sample: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> tuple[dict[str, Record], list[ProofProblem]]:
    """Checks the certificates of entries.

    Args:
        folder: The entries'.
        entries: By name; without problems.
        data: Loads the test images; called if there is a certificate.
        exports: Where networks are looked for, beside those that came with the entries.
        sample: How many of each entry's certificates are checked; None: all.
        seed: Of the choice.
        workers: Processes side by side.

    Returns:
        A record of each entry whose certificates hold, and all problems.

    Raises:
        UserError: The images aren't here.
    """
    records: dict[str, Record] = {}
    problems: list[ProofProblem] = []
    images: Dataset | None = None
    for name, entry in entries.items():
        if not (entry.get("proofs") or {}).get("image"):
            continue
        images = data() if images is None else images
        count = entry["data"]["images"]
        if count > len(images) or images_sha256(images, count) != entry["data"]["images_sha256"]:
            problems.append(
                ProofProblem(name, "proofs", "the images at hand are others, so that nothing can be checked", True)
            )
            continue
        try:
            network = Networks([folder / FOLDER / name, *exports]).find(entry["files"]["onnx_sha256"], name)
        except UserError as error:
            problems.append(ProofProblem(name, "proofs", str(error), True))
            continue
        if entry["cell"].get("norm", "linf") != "linf":
            # The box holds the ball: what is proved of it counts, a counterexample in it may be outside the ball.
            outside = [
                image
                for image, status in zip(entry["proofs"]["image"], entry["proofs"]["status"], strict=True)
                if status == Status.SAT
            ]
            problems += [ProofProblem(name, "proofs", f"image {image}, sat: {OUTSIDE}") for image in outside]
            if outside:
                continue
        columns = (entry["proofs"][key] for key in ("image", "status", "sha256"))
        hashes = {(image, Status(status)): sha256 for image, status, sha256 in zip(*columns, strict=True)}
        drawn = choose([(name, *place) for place in hashes], sample, seed)
        claims = _claims(folder, entry, drawn, hashes, images, network)
        faults = [checked for checked in check_claims(claims, workers) if checked.problem]
        problems += [
            ProofProblem(name, "proofs", f"image {fault.image}, {fault.status}: {fault.problem}") for fault in faults
        ]
        if not faults:
            records[name] = Record(
                digest=entry["digest"],
                checked=len(drawn),
                proofs=len(hashes),
                answers=len(decided(entry)),
                seed=seed,
                version=prunecert.__version__,
            )
    return records, problems


def _claims(
    folder: Path,
    entry: Entry,
    drawn: Sequence[tuple[str, int, Status]],
    hashes: Mapping[tuple[int, Status], str],
    data: Dataset,
    network: Path,
) -> Iterator[Claim]:
    eps = parse_eps(entry["cell"]["eps"])
    for name, image, status in drawn:
        sha256 = hashes[image, status]
        path = folder / FOLDER / name / certificate_path(Path(), sha256).name
        # Entries are about the first images of the test split.
        yield Claim(name, image, str(status), path, sha256, network, property_text(data, image, eps))


def write_records(folder: Path, records: Mapping[str, Record], problems: Iterable[ProofProblem] = ()) -> list[str]:
    """Writes down what was checked.

    Args:
        folder: The entries'.
        records: By entry.
        problems: A record of an entry whose certificates don't hold is taken away; not one that says what was checked
            where the images and the network were.

    Returns:
        Entries whose record stays although nothing could be checked.
    """
    (folder / RECORDS).mkdir(exist_ok=True)
    for name, record in records.items():
        text = json.dumps(msgspec.to_builtins(record), indent=1)
        write_text(folder / RECORDS / f"{name}.json", f"{text}\n")
    paths = {(folder / RECORDS / f"{name}.json", elsewhere) for name, _, _, elsewhere in problems}
    for path in (path for path, elsewhere in paths if not elsewhere):
        path.unlink(missing_ok=True)
    return sorted(path.stem for path, elsewhere in paths if elsewhere and path.is_file())


def read_record(folder: Path, entry: Entry) -> Record | None:
    """Returns what was checked of an entry; None where nothing was, or only of another edition of it."""
    path = folder / RECORDS / f"{entry['name']}.json"
    if not path.is_file():
        return None
    try:
        record = msgspec.json.decode(read_regular(path, _MOST_RECORD_BYTES), type=Record)
    except (msgspec.DecodeError, UserError):
        return None
    sane = 0 < record.checked <= record.proofs == len((entry.get("proofs") or {}).get("image", ()))
    return record if sane and record.digest == entry["digest"] else None
