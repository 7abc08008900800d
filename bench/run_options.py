"""The options of `bench.run`, which `bench.gate` takes as well: from a command line to a request."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import (
    CPUS,
    IMAGES,
    PART,
    SEED,
    TASKS,
    WORKERS,
    add_compact_option,
    parse_statuses,
)
from prunecert.bench.planning import select
from prunecert.bench.running import resources, slurm
from prunecert.bench.running.request import Cluster, RunRequest
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError, did_you_mean
from prunecert.page_help import PageHelp
from prunecert.printable import shortened


def run_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Returns the argument parser of `bench.run`."""
    parser = argparse.ArgumentParser(prog="prunecert run", description=description, formatter_class=PageHelp)
    parser.add_argument("--suite", required=True, help="name of a shipped suite (see prunecert ls), or a .yaml file")
    parser.add_argument("--profile", default="default", help="the suite's profile: default, smoke, paper, …")
    parser.add_argument("--images", type=IMAGES, help="verify the first N images instead of the profile's number")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument(
        "--verifiers",
        help="comma-separated verifiers, in order, instead of the suite's cascade; pairs and certificates are left out "
        "unless one that the suite asks about them is named, too",
    )
    parser.add_argument("--image-seed", type=SEED, help="draw the images with this seed instead of taking the first")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N, or a list: cuda:0,cuda:1")
    parser.add_argument(
        "--workers", type=WORKERS, help="verifier processes side by side (default: by cores and memory)"
    )
    parser.add_argument("--no-pin", action="store_true", help="let workers share all cores instead of a set for each")
    parser.add_argument("--out", type=Path, help="run directory (default: results/runs/SUITE-PROFILE)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=select.CHECKPOINTS,
        help="folder of trained cells (default: ./checkpoints, then those that ship; in a checkout the zoo)",
    )
    parser.add_argument("--exports", type=Path, default=Path("onnx_exports"), help="folder for ONNX files")
    parser.add_argument("--abcrown", type=Path, metavar="PATH", help="a checkout of alpha-beta-CROWN")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N; join them with prunecert merge")
    parser.add_argument("--skip-unavailable", action="store_true", help="leave out verifiers that are not installed")
    parser.add_argument(
        "--reuse", type=Path, nargs="+", default=[], metavar="RUN", help="take over what these earlier runs answered"
    )
    parser.add_argument(
        "--warm-start", action="store_true", help="attacks begin at the neighbouring ratio's counterexamples"
    )
    parser.add_argument("--retry", metavar="STATUS", help="do instances of these statuses again, e.g. error,memout")
    parser.add_argument(
        "--card", type=Path, nargs="+", metavar="CARD", help="verify the networks of these cards, not the suite's own"
    )
    parser.add_argument(
        "--certificates",
        action="store_true",
        help="write a certificate of each unsat and sat, which anybody can check (docs/certificates.md)",
    )
    add_compact_option(parser)
    parser.add_argument("--submit", action="store_true", help="write leaderboard entries of the cells, once finished")
    parser.add_argument("--by", default="", metavar="NAME", help="who submits; shown on the leaderboard")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    _add_slurm_options(parser)
    return parser


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    plain = slash and re.fullmatch(r"[0-9]{1,6}/[0-9]{1,6}", text)
    if not (plain and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(
            f"{shortened(repr(text), 60)} is refused; write I/N with I from 1 to N, e.g. 2/8"
        )
    return int(number), int(count)


def _add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``--executor submitit``."""
    parser.add_argument(
        "--executor",
        default=slurm.LOCAL,
        metavar="NAME",
        help="local (default); submitit: a Slurm job array; submitit-local: its tasks as processes here, to try it",
    )
    group = parser.add_argument_group("with --executor submitit")
    group.add_argument("--chunk", type=PART, help=f"images per array task, about (default: {slurm.CHUNK})")
    group.add_argument("--slurm-partition", metavar="NAME", help="partition (default: Slurm's own)")
    group.add_argument(
        "--slurm-time",
        metavar="TIME",
        help=f"limit of a task as sbatch takes it, e.g. 90, 1:30:00, 2-12 (default: {slurm.MINUTES})",
    )
    group.add_argument("--slurm-cpus", type=CPUS, metavar="N", help="processors of a task")
    group.add_argument("--slurm-mem", metavar="SIZE", help="memory of a task, e.g. 8G")
    group.add_argument("--slurm-gres", metavar="GRES", help="generic resources of a task, e.g. gpu:1")
    group.add_argument(
        "--slurm-parallel", type=TASKS, metavar="N", help=f"tasks side by side (default: {slurm.PARALLEL})"
    )
    group.add_argument(
        "--slurm-extra", action="append", default=[], metavar="KEY=VALUE", help="any other option of sbatch; repeatable"
    )


def request_of(options: argparse.Namespace, argv: Sequence[str]) -> RunRequest:
    """Returns what is asked for.

    Args:
        options: What `run_parser` has made of the arguments.
        argv: The arguments themselves, for the session row.

    Raises:
        UserError: An option makes no sense, options don't go together, or the suite can't be read.
    """
    cluster = cluster_of(options)
    resources.parse_devices(options.device)
    return RunRequest(
        suite=load_suite(options.suite, options.profile),
        named=options.suite,
        cells=options.cells,
        verifiers=options.verifiers,
        images=options.images,
        image_seed=options.image_seed,
        device=options.device,
        workers=options.workers,
        pinned=not options.no_pin,
        out=options.out,
        data_root=options.data_root,
        checkpoints=options.checkpoints,
        exports=options.exports,
        abcrown=options.abcrown,
        shard=options.shard,
        skip_unavailable=options.skip_unavailable,
        reuse=tuple(options.reuse),
        warm_start=options.warm_start,
        retry=parse_statuses(options.retry),
        cards=tuple(options.card or ()),
        certificates=options.certificates,
        compact=options.compact,
        submit=options.submit,
        dry_run=options.dry_run,
        cluster=cluster,
        argv=tuple(argv),
    )


def cluster_of(options: argparse.Namespace) -> Cluster | None:
    """Returns where the parts of the run are worked off, or None for this process.

    Raises:
        UserError: A value makes no sense, or options don't go together.
    """
    if options.executor not in slurm.EXECUTORS:
        raise UserError(f"--executor: {did_you_mean('executor', options.executor, slurm.EXECUTORS)}")
    names = [
        name
        for name in ("chunk", "slurm_partition", "slurm_time", "slurm_cpus", "slurm_mem", "slurm_gres")
        if getattr(options, name) is not None
    ] + [name for name in ("slurm_parallel", "slurm_extra") if getattr(options, name)]
    if options.executor == slurm.LOCAL:
        if names:
            flag = "--" + names[0].replace("_", "-")
            raise UserError(f"{flag} is refused with --executor local; it is for --executor submitit.")
        return None
    for name in ("shard", "submit", "card"):
        if getattr(options, name):
            raise UserError(
                f"--{name} is refused with --executor {options.executor}, which makes its own parts"
                + ("." if name == "shard" else "; give it to a local run into the same --out when the jobs are done.")
            )
    resources = slurm.parse_resources(
        partition=options.slurm_partition,
        time=options.slurm_time,
        cpus=options.slurm_cpus,
        mem=options.slurm_mem,
        gres=options.slurm_gres,
        parallel=options.slurm_parallel,
        chunk=options.chunk,
        extra=options.slurm_extra,
    )
    return Cluster(options.executor, resources)
