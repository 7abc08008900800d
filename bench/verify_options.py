"""The options of `bench.verify`: from a command line to a request."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.options import MEMORY_MB, SECONDS, THREADS, parse_statuses
from prunecert.bench.results.vnncomp import check_category
from prunecert.bench.running.properties_request import OUT, TIMEOUT_S, PropertiesRequest
from prunecert.bench.schema.alike import ALIKE
from prunecert.bench.schema.settings import settings_for
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.page_help import PageHelp
from prunecert.verifiers import VERIFIERS


class Once(argparse.Action):
    """Takes an option's value and refuses a second one, of which only the last would count."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keeps the value."""
        if (first := getattr(namespace, self.dest)) is not None:
            raise argparse.ArgumentError(self, f"it is given twice, as {str(first)!r} and {str(values)!r}; give one")
        setattr(namespace, self.dest, values)


def verify_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Returns the argument parser of `bench.verify`."""
    command = argparse.ArgumentParser(prog="prunecert verify", description=description, formatter_class=PageHelp)
    command.add_argument("--onnx", type=Path, action=Once, metavar="FILE", help="network, .onnx or .onnx.gz")
    command.add_argument("--vnnlib", type=Path, action=Once, metavar="FILE", help="property, .vnnlib or .vnnlib.gz")
    command.add_argument(
        "--with", type=Path, action=Once, metavar="FILE", dest="second", help="compare the network with this one"
    )
    command.add_argument("--alike", action=Once, metavar="HOW", help=f"what is asked of the two: {ALIKE}")
    command.add_argument(
        "--instances", type=Path, action=Once, metavar="CSV", help="VNN-COMP's instances.csv in place of the two"
    )
    command.add_argument(
        "--verifier", required=True, metavar="NAME[,NAME]", help=f"one or more of: {', '.join(VERIFIERS)}"
    )
    command.add_argument(
        "--timeout", type=SECONDS, metavar="S",
        help=f"limit for each property in seconds; default: that of the CSV, or {TIMEOUT_S:g}",
    )  # fmt: skip
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    command.add_argument(
        "--settings", nargs="+", action="extend", default=[], metavar="K=V",
        help="a verifier's settings, key=value or verifier.key=value; all are in docs/settings.md",
    )  # fmt: skip
    command.add_argument("--abcrown", type=Path, metavar="DIR", help="checkout of alpha-beta-CROWN to use")
    command.add_argument(
        "--compact", nargs="?", const=str(Mode.ALL_INPUTS), default=str(Mode.OFF), choices=[str(mode) for mode in Mode],
        metavar="MODE", help="remove units that do nothing first: all-inputs (if no MODE is given), pixels (what does "
        "nothing for inputs in [0, 1]; other boxes are refused), exact (no constant is folded but 0)",
    )  # fmt: skip
    command.add_argument(
        "--memory-limit",
        type=MEMORY_MB,
        metavar="MB",
        help="limit on a verifier's resident size in MiB (default: none)",
    )
    command.add_argument("--threads", type=THREADS, metavar="N", help="threads of a verifier (default: its own choice)")
    command.add_argument(
        "--certificate", type=Path, metavar="FILE",
        help="of one pair: write a proof of the answer that verifiers/checker accepts: the counterexample, the tree of "
        "sparse-bab's own search, or one that it finds for what others proved",
    )  # fmt: skip
    command.add_argument("--category", metavar="NAME", help="benchmark's name in results.csv; default: the folder's")
    command.add_argument("--retry", metavar="STATUS", help="ask again what ended in these, e.g. error,memout")
    command.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help=f"folder of the results, which goes on where a run in it stopped (default: {OUT})",
    )
    return command


def request_of(options: argparse.Namespace, argv: Sequence[str]) -> PropertiesRequest:
    """Returns what is asked for.

    Args:
        options: What `verify_parser` has made of the arguments.
        argv: The arguments themselves, for the session row.

    Raises:
        UserError: A verifier or setting is unknown, or an option makes no sense.
    """
    names = list(dict.fromkeys(name.strip() for name in options.verifier.split(",")))
    for name in names:
        VERIFIERS.check(name)
    settings = settings_for(names, options.settings)
    retry = parse_statuses(options.retry)
    if options.category is not None:
        check_category(options.category)
    if options.abcrown is not None and not options.abcrown.is_dir():
        raise UserError(f"--abcrown {options.abcrown} is no folder; give a checkout of alpha-beta-CROWN.")
    return PropertiesRequest(
        verifiers=settings,
        onnx=options.onnx,
        vnnlib=options.vnnlib,
        instances=options.instances,
        second=options.second,
        alike=options.alike,
        timeout=options.timeout,
        category=options.category,
        device=options.device,
        memory_limit_mb=options.memory_limit,
        threads=options.threads,
        abcrown=options.abcrown,
        compact=Mode(options.compact),
        certificate=options.certificate,
        retry=retry,
        out=options.out,
        argv=tuple(argv),
    )
