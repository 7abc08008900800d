"""One question to the verifiers, from Python: does this network keep its answer round this input?"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecert.api.crew import CREW, NETWORKS
from prunecert.api.inputs import (
    PIXELS,
    Bounds,
    Radius,
    as_bounds,
    as_device,
    as_label,
    as_radius,
    as_sample,
    as_seconds,
)
from prunecert.errors import UserError, did_you_mean
from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import FloatArray, Instance, Kind, OutputSpec, Status, Times, Verdict
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.process.inspection import check_supported, inspect_network

if TYPE_CHECKING:
    from torch import nn

    from prunecert.api.inputs import Arrays


#: Who is asked unless something else is said, in this order, as far as they are installed.
COMPLETE = ("sparse-bab", "neuralsat", "abcrown")


@dataclass(frozen=True)
class Target:
    """A network as it is asked about.

    Args:
        onnx: Its file.
        sha256: What it is known by.
        shape: Shape of one input; 0 for a free size.
        classes: How many outputs it has.
    """

    onnx: Path
    sha256: str
    shape: tuple[int, ...]
    classes: int

    def question(
        self, sample: FloatArray, label: int, eps: Fraction, timeout: float, bounds: Bounds | None, name: str
    ) -> Instance:
        """Returns the question whether the network keeps a class over the box round an input.

        The corners are computed in float64 and rounded to float32 once.
        """
        exact = sample.astype(np.float64)
        lower, upper = exact - float(eps), exact + float(eps)
        if bounds is not None:
            lower, upper = np.clip(lower, *bounds), np.clip(upper, *bounds)
        return Instance(
            onnx=self.onnx,
            onnx_sha256=self.sha256,
            lower=lower.astype(np.float32),
            upper=upper.astype(np.float32),
            spec=OutputSpec.robustness(label, self.classes),
            timeout=timeout,
            name=name,
            label=label,
            classes=self.classes,
            eps=float(eps),
        )


@contextlib.contextmanager
def opened_network(network: nn.Module | str | Path, example: Arrays | None) -> Iterator[Target]:
    """Yields a network as an ONNX file, which a module is exported to for the while.

    Args:
        network: A module, an ONNX file, a checkpoint's file, or the name of a shipped one.
        example: One input, for the export of a module.

    Raises:
        UserError: It is none of these, or can't be exported.
    """
    if isinstance(network, str | Path) and str(network).endswith(".onnx"):
        yield _looked_at(Path(network))
        return
    scratch = NETWORKS.folder() / f"{secrets.token_hex(8)}.onnx"
    _export(network, scratch, example)
    with NETWORKS.holding(scratch, sha256_file(scratch)) as path:
        yield _looked_at(path, "The module" if not isinstance(network, str | Path) else str(network))


def _export(network: nn.Module | str | Path, path: Path, example: Arrays | None) -> None:
    if isinstance(network, str | Path):
        from prunecert.api.zoo import checkpoint_file
        from prunecert.models.export import export_onnx

        export_onnx(checkpoint_file(network), path)
        return
    from prunecert.api.exporting import export

    assert example is not None
    export(network, path, example)


def _looked_at(path: Path, name: str = "") -> Target:
    """Returns a network by its file.

    Args:
        path: The file.
        name: What its owner calls it; empty: by the file's name.
    """
    name = name or path.name
    info = network_info(path)
    inspection = inspect_network(path)
    classes = inspection.outputs if inspection.outputs is not None else info.outputs[0].size
    if classes is None:
        raise UserError(f"{name} leaves the number of its outputs open; export it with a fixed one.")
    if classes < 2:
        raise UserError(
            f"{name} has {classes} output; a classifier with two or more is needed: of a single logit z make two, "
            "torch.cat([torch.zeros_like(z), z], 1)."
        )
    return Target(path, info.sha256, info.sample_shape, classes)


def chosen_verifiers(verifiers: str | Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
    """Returns the verifiers that are to be asked, in order.

    Args:
        verifiers: Names, in a list or with commas between; None: those of `default` that are installed.
        default: Names.

    Raises:
        UserError: A name is unknown, certifies something else, or isn't installed.
    """
    if verifiers is None:
        return tuple(name for name in default if VERIFIERS.get(name).availability().installed)
    listed = verifiers.split(",") if isinstance(verifiers, str) else verifiers
    names: tuple[Any, ...] = tuple(listed) if isinstance(listed, Iterable) else (listed,)
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            f'verifiers={verifiers!r} is refused; pass names, e.g. verifiers="sparse-bab" or ["pgd", "sparse-bab"].'
        )
    chosen = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not chosen:
        raise UserError('verifiers is empty; name at least one, e.g. verifiers="sparse-bab".')
    for name in chosen:
        if name not in VERIFIERS:
            raise UserError(did_you_mean("verifier", name, VERIFIERS))
        adapter = VERIFIERS.get(name)
        if adapter.kind is Kind.PROBABILISTIC:
            raise UserError(f"{name!r} is refused: its certificates prove nothing about the network itself.")
        availability = adapter.availability()
        if not availability.installed:
            raise UserError(f"Verifier {name!r} is unavailable: {availability.hint}")
    return chosen


def check_settings(settings: Mapping[str, Mapping[str, Any]] | None, verifiers: Sequence[str]) -> None:
    """Refuses settings that nobody would look at; what they are set to is each verifier's to check.

    Raises:
        UserError: They aren't mappings by a verifier's name, or are for a verifier that isn't asked.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(f'settings={settings!r} is refused; write settings={{"sparse-bab": {{"candidates": 3}}}}.')
    for name, own in (settings or {}).items():
        if name not in VERIFIERS:
            raise UserError(did_you_mean("verifier", str(name), VERIFIERS))
        if name not in verifiers:
            raise UserError(
                f"settings of {name!r} are refused: it isn't asked; asked are {', '.join(verifiers)} (verifiers=…)."
            )
        if not isinstance(own, Mapping):
            raise UserError(f'settings of {name!r} are refused: {own!r}; write {{"name": value}}.')


def supported(verifiers: Sequence[str], onnx: Path) -> tuple[str, ...]:
    """Returns the verifiers that take a network.

    Raises:
        UserError: None does; each one's reason is named.
    """
    reasons = {name: check_supported(VERIFIERS.get(name), onnx, "linf", "robustness") for name in verifiers}
    taking = tuple(name for name, reason in reasons.items() if reason is None)
    if not taking:
        distinct = list(dict.fromkeys(reason for reason in reasons.values() if reason is not None))
        raise UserError(
            f"No verifier that was asked takes this network ({', '.join(verifiers) or 'none is installed'}); replace "
            "the layer that is named, or ask others with verifiers=….",
            distinct,
        )
    return taking


def ask(
    question: Instance,
    verifiers: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "cpu",
) -> Verdict:
    """Asks one verifier after another until one decides, within the question's limit for all together.

    Returns:
        The deciding verdict, or the last one, with the seconds of all.
    """
    spent = Times()
    verdicts: list[Verdict] = []
    for name in verifiers:
        left = question.timeout - spent.wall_s + spent.load_s
        if left <= 0:
            break
        own = (settings or {}).get(name)
        (verdict,) = CREW.ask(name, [replace(question, timeout=left)], settings=own, device=device)
        verdicts.append(verdict)
        spent = _sum(spent, verdict.times)
        if verdict.status.decided:
            return replace(verdict, times=spent)
    # What the most thorough one says, unless it could say nothing.
    telling = [v for v in verdicts if v.status not in (Status.ERROR, Status.UNSUPPORTED)] or verdicts
    return replace(telling[-1], times=spent)


def _sum(one: Times, other: Times) -> Times:
    return Times(*(getattr(one, name) + getattr(other, name) for name in Times.__dataclass_fields__))


def verify(
    network: nn.Module | str | Path,
    x: Arrays,
    *,
    eps: Radius,
    label: int | None = None,
    verifiers: str | Sequence[str] | None = None,
    timeout: float = 60.0,
    bounds: Bounds | None = PIXELS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "cpu",
) -> Verdict:
    """Proves that a network keeps its class over all inputs within `eps` of `x`, or finds one where it doesn't.

    Verifiers run in processes of their own, which stay warm for the next call; `prunecert.close` ends them. A proof
    counts only with a margin that float32 rounding can't undo, a counterexample only if onnxruntime confirms it. A
    module is exported anew for each call: for many inputs call `prunecert.evaluate`, or `prunecert.export` first.

    Args:
        network: A module in evaluation mode, the path of an ONNX file or of a checkpoint, or the name of a shipped
            checkpoint (`prunecert.load` lists them).
        x: One input, with or without a batch axis of 1.
        eps: Radius in the sup norm, in the unit of `x`: ``"2/255"``, a number or a fraction.
        label: The class to be kept; None: the one that the network gives `x`.
        verifiers: Who is asked, in this order, until one decides: names, in a list or with commas. None:
            ``sparse-bab``, and then ``neuralsat`` and ``abcrown`` where they are installed.
        timeout: Seconds for all of them together, without starting processes and loading the network.
        bounds: Lowest and highest value of an input; the box round `x` is cut off there. None: it isn't.
        settings: A verifier's settings, by its name.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Example:
        >>> import prunecert, torch
        >>> image = torch.full((3, 32, 32), 0.5)
        >>> prunecert.verify("cnn-small_ibp_eps2_lwm_x10_s0", image, eps="1/255")
        <Verdict unsat: proved by sparse-bab>

    Returns:
        `status` is ``unsat`` (it keeps its class: proved), ``sat`` (`witness` is an input that it gives another one),
        or says why neither is known: ``timeout``, ``unknown``, ``memout``, ``error``.

    Raises:
        UserError: Anything about the input.
    """
    bounds, device = as_bounds(bounds), as_device(device)
    radius, seconds = as_radius(eps, bounds), as_seconds(timeout)
    names = chosen_verifiers(verifiers, COMPLETE)
    check_settings(settings, names)
    is_path = isinstance(network, str | Path)
    sample = None if is_path else as_sample(x, None, bounds)
    with opened_network(network, sample) as target:
        sample = as_sample(x, target.shape, bounds)
        taking = supported(names, target.onnx)
        logits = counterexample.outputs(target.onnx, sample[None], target.classes)[0]
        if not np.isfinite(logits).all():
            raise UserError("The network's outputs are not finite on x; train it again, or pass another input.")
        kept = int(logits.argmax()) if label is None else as_label(label, target.classes)
        question = target.question(sample, kept, radius, seconds, bounds, "x")
        if np.delete(logits, kept).max() >= logits[kept]:
            return _broken_at_once(question, sample)
        return ask(question, taking, settings=settings, device=device)


def _broken_at_once(question: Instance, sample: FloatArray) -> Verdict:
    """Returns the verdict on an input that has another class to begin with."""
    check, point = counterexample.replay(question, sample)
    if not check.ok:
        return Verdict(Status.ERROR, f"x itself isn't of class {question.label}, but: {check.rationale}")
    return Verdict(
        Status.SAT,
        f"the network gives x itself another class than {question.label}: {int(np.argmax(check.outputs))}",
        witness=point,
        witness_check=check.to_json(),
        stage="attack",
        verifier="onnxruntime",
        version=check.onnxruntime,
    )
