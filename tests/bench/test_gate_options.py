from __future__ import annotations

from pathlib import Path

from prunecert.bench.gate_options import directory_of, gate_parser, request_of
from prunecert.bench.gating.run import GateRequest
from prunecert.bench.running.proof_checks import EXPORTS
from tests.bench import gatekit as kit

BASE = kit.snapshot()


def request(*words: str) -> GateRequest:
    options, rest = gate_parser().parse_known_args(["--baseline", "b.json", *words])
    return request_of(options, rest, BASE, directory_of(options, rest))


def test_a_run_that_is_there_is_gated_as_it_is() -> None:
    assert request("--run", "r") == GateRequest(base=BASE, directory=Path("r"))
    words = ["--run", "r", "--rules", "y", "--cells", "a*", "--skip-unavailable", "--any-version", "--fail-on-time"]
    assert request(*words, "--require", "certificates", "--exports", "e", "--data-root", "d") == GateRequest(
        base=BASE,
        directory=Path("r"),
        rules=Path("y"),
        cells="a*",
        skip_unavailable=True,
        any_version=True,
        fail_on_time=True,
        require="certificates",
        exports=Path("e"),
        data_root=Path("d"),
    )


def test_a_run_to_be_made_shares_options_and_gets_the_rest() -> None:
    words = ["--suite", "cifar10-4nets", "--images", "3", "--cells", "a*", "--skip-unavailable", "--data-root", "d"]
    gate = request(*words)
    assert (gate.directory, gate.suite, gate.exports) == (
        Path("results/runs/gate-cifar10-4nets-default"),
        "cifar10-4nets",
        EXPORTS,
    )
    assert gate.run is not None
    assert (gate.run.images, gate.run.cells, gate.run.skip_unavailable) == (3, "a*", True)
    assert (gate.run.data_root, gate.run.out) == (Path("d"), gate.directory)
    own = request("--suite", "cifar10-4nets", "--out", "o", "--exports", "e")
    assert own.run is not None
    assert (own.directory, own.run.out, own.run.exports) == (Path("o"), Path("o"), Path("e"))
