"""Certificates written, or checked with a word on what the float32 network does beside it; or all of a run's."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecert.bench.running.proof_checks import (
    EXPORTS,
    Networks,
    ProvedRun,
    check_run,
    choose,
    fresh_seed,
    images_of,
)
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE, UserError
from prunecert.printable import say, shortened
from prunecert.verifiers.checker import RefusedError, Report, UnreadableError, check
from prunecert.verifiers.checker.files import read
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.proof import LARGEST_TEXT
from prunecert.verifiers.checker.vnnlibfile import read_property as read_cases
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.formats.vnnlib import read_property
from prunecert.verifiers.rounding.summation import output_error

_QUANTISING = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


def check_file(certificate: Path, onnx: Path, vnnlib: Path) -> int:
    """Checks a certificate and says what came of it; returns the exit code.

    Raises:
        UserError: A file can't be read by the checker.
    """
    try:
        report = check(certificate, onnx, vnnlib)
    except RefusedError as error:
        say(f"{shortened(certificate, 200)}: refused: {error}")
        return EXIT_REGRESSION
    except UnreadableError as error:
        raise UserError(f"{shortened(certificate, 200)} can't be checked: {error}.") from error
    say(f"{shortened(certificate, 200)}: {report.describe()}{_deployed(report, onnx, vnnlib)}")
    return EXIT_OK


@dataclass(frozen=True, kw_only=True)
class Checking:
    """How a run's certificates are checked.

    Args:
        exports: Folder of the networks' ONNX files.
        suite: The run's suite, name or file; None: the shipped one that it names.
        data_root: Folder of the images; None: it is looked for.
        workers: Processes side by side.
        sample: How many are checked; None: all.
        seed: Of the choice; None: a new one.
    """

    exports: Path = EXPORTS
    suite: str | None = None
    data_root: Path | None = None
    workers: int = 1
    sample: int | None = None
    seed: int | None = None


def check_folder(directory: Path, how: Checking) -> int:
    """Checks the certificates of a run, names those that don't hold, and says how many do; returns the exit code.

    Raises:
        UserError: It is no run, has no certificates, or its networks or images aren't here.
    """
    run = ProvedRun(directory)
    places = [place for place in run.decided() if (row := run.proof(*place)) is not None and row.sha256]
    if not places:
        raise UserError(f"{shortened(directory, 200)} has no certificate; prunecert run --certificates writes them.")
    seed = fresh_seed(how.seed)
    drawn = choose(places, how.sample, seed)
    images, networks = images_of(run, how.suite, how.data_root), Networks([how.exports])
    tally = check_run(run, networks, images, workers=how.workers, places=drawn, tell=say)
    for problem in tally.problems:
        say(f"{problem}")
    which = "" if len(drawn) == len(places) else f" ({len(drawn)} of {len(places)}, drawn with seed {seed})"
    say(
        f"{tally.accepted} certificates checked and accepted{which}, {len(tally.problems)} not; "
        f"{len(run.decided()) - len(places)} of {len(run.decided())} answers have none; {tally.seconds:.1f} s"
    )
    if any(problem.refused for problem in tally.problems):
        return EXIT_REGRESSION
    return EXIT_USAGE if tally.problems else EXIT_OK


def refuse_quantised(onnx: Path, name: Path) -> None:
    """Refuses a network that has no certificate, whatever its property.

    Args:
        onnx: Its file, not gzipped.
        name: What the person calls it.

    Raises:
        UserError: It is quantised, or no network.
    """
    operators = {operator for operator, _ in network_info(onnx).operators}
    if operators & _QUANTISING:
        names = ", ".join(sorted(operators & _QUANTISING))
        raise UserError(
            f"{shortened(name, 200)} is refused because it is quantised ({names}); certificates "
            "are about networks in float32: leave the certificate out, or take the float32 network."
        )


def write_file(certificate: Path, onnx: Path, vnnlib: Path, timeout: float) -> int:
    """Writes a certificate and says how it came about; returns the exit code.

    Raises:
        UserError: A file can't be read, the network is quantised, or the certificate can't be written.
    """
    from prunecert.verifiers.sparse.certificates import Certifier

    with tempfile.TemporaryDirectory(prefix="prunecert-") as scratch:
        plain = _unpacked(onnx, Path(scratch))
        refuse_quantised(plain, onnx)
        certificate.parent.mkdir(parents=True, exist_ok=True)
        written = Certifier(plain).write(vnnlib, certificate, timeout)
    say(written.describe())
    return EXIT_REGRESSION if written.reason else EXIT_OK


def _unpacked(onnx: Path, scratch: Path) -> Path:
    """Returns a network's file, not gzipped; certificates are for what was packed."""
    with onnx.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return onnx
    try:
        content = read(onnx)
    except (UnreadableError, OSError, EOFError) as error:
        raise UserError(f"{shortened(onnx, 200)} can't be unpacked: {error}.") from error
    target = scratch / "network.onnx"
    target.write_bytes(content)
    return target


def _deployed(report: Report, onnx: Path, vnnlib: Path) -> str:
    """Says what holds of the deployed network, whose arithmetic is float32, beside the real-valued one."""
    if report.answer == "sat":
        return _replayed(report, onnx, vnnlib)
    network = read_network(read(onnx))
    sizes = network.nodes[0].size, network.nodes[network.output].size
    cases = read_cases(read(vnnlib, LARGEST_TEXT), *sizes)
    error = max((output_error(network, case.lower, case.upper) for case in cases), default=0.0)
    word = "holds" if error < report.lowest else "not shown"
    return f"; in float32, sums in any order: {word} (outputs err by at most {error:.3g})"


def _replayed(report: Report, onnx: Path, vnnlib: Path) -> str:
    """Says what onnxruntime makes of a witness, where that is another thing than real arithmetic."""
    with tempfile.TemporaryDirectory(prefix="prunecert-") as scratch:
        plain = _unpacked(onnx, Path(scratch))
        x = report.witness
        (y,) = outputs(plain, x.reshape(1, *network_info(plain).sample_shape))
    unsafe = any(case.contains(x) and case.spec.violated_by(np.asarray(y)) for case in read_property(vnnlib).cases)
    return "; float32 (onnxruntime) agrees" if unsafe else "; float32 (onnxruntime) differs: there it is safe"
