from __future__ import annotations

from pathlib import Path

from prunecert.bench.run_options import request_of, run_parser
from prunecert.bench.running.request import Cluster, RunRequest
from prunecert.bench.running.slurm import Resources
from prunecert.bench.schema.suite import load_suite
from prunecert.verifiers.base import Status


def test_a_command_line_becomes_a_request() -> None:
    words = [
        *("--suite", "cifar10-4nets", "--profile", "smoke", "--cells", "a,b", "--verifiers", "ibp", "--images", "3"),
        *("--image-seed", "7", "--device", "cuda:0", "--workers", "2", "--no-pin", "--out", "o", "--data-root", "d"),
        *("--checkpoints", "c", "--exports", "e", "--abcrown", "x", "--skip-unavailable", "--reuse", "r", "s"),
        *("--warm-start", "--retry", "error,memout", "--no-compact", "--dry-run", "--executor", "submitit"),
        *("--chunk", "9"),
    ]
    request = request_of(run_parser().parse_args(words), words)
    assert request == RunRequest(
        suite=load_suite("cifar10-4nets", "smoke"),
        named="cifar10-4nets",
        cells="a,b",
        verifiers="ibp",
        images=3,
        image_seed=7,
        device="cuda:0",
        workers=2,
        pinned=False,
        out=Path("o"),
        data_root=Path("d"),
        checkpoints=Path("c"),
        exports=Path("e"),
        abcrown=Path("x"),
        skip_unavailable=True,
        reuse=(Path("r"), Path("s")),
        warm_start=True,
        retry=frozenset({Status.ERROR, Status.MEMOUT}),
        compact="off",
        dry_run=True,
        cluster=Cluster("submitit", Resources(chunk=9)),
        argv=tuple(words),
    )
    bare = request_of(run_parser().parse_args(["--suite", "cifar10-4nets"]), [])
    assert bare == RunRequest(suite=load_suite("cifar10-4nets"), named="cifar10-4nets")
