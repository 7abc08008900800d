"""A network's accuracy on data: clean, under attack, and verified, beside the dense network that it was pruned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunecert.api.asking import COMPLETE, Target, check_settings, chosen_verifiers, opened_network, supported
from prunecert.api.crew import CREW
from prunecert.api.inputs import PIXELS, Bounds, Radius, as_bounds, as_data, as_device, as_radius, as_seconds
from prunecert.bench.planning.plan import is_correct
from prunecert.bench.results.ratios import paired_ratio
from prunecert.bench.results.stats import wilson
from prunecert.errors import UserError
from prunecert.onnx.count import count_layers, totals
from prunecert.pages import table
from prunecert.verifiers.base import FloatArray, Instance, Status, Verdict
from prunecert.verifiers.formats import counterexample

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from prunecert.api.inputs import Data

#: Who is asked unless something else is said: the attack first, since it is quick and takes many images at a time.
DEFAULT = ("pgd", *COMPLETE)
MISCLASSIFIED = "misclassified"
#: Below so many images, an interval says more than the share.
FEW = 50

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Share:
    """A share of the images.

    Args:
        count: How many.
        images: Of how many.
    """

    count: int
    images: int

    @property
    def value(self) -> float:
        """Their ratio."""
        return self.count / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.count, self.images)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


@dataclass(frozen=True)
class Kept:
    """What of the dense network's accuracy is kept, on the same images.

    Args:
        value: Ratio of the two shares; above 1 where the pruned network has more.
        low: Lower end of its 95 % interval (Bonett and Price 2006).
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f}–{100 * self.high:.0f})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's accuracies on some images.

    Args:
        name: What the network is called.
        eps: Radius.
        labels: The images' classes.
        predicted: What the network gives.
        statuses: What became of each image: ``misclassified``, ``unsat`` (verified), ``sat`` (broken), or why it is
            undecided.
        verdicts: The deciding or last verdict on each image; None where it is misclassified.
        compression: All weights over those that are not zero; its dense network's weights over them where one is
            given.
        kept_weights: Weights that are not zero.
        verifiers: Who was asked.
        dense: The same of the dense network, if one was given.
    """

    name: str
    eps: Fraction
    labels: npt.NDArray[np.int64] = field(repr=False)
    predicted: npt.NDArray[np.int64] = field(repr=False)
    statuses: tuple[str, ...] = field(repr=False)
    verdicts: tuple[Verdict | None, ...] = field(repr=False)
    compression: float
    kept_weights: int
    verifiers: tuple[str, ...]
    dense: Evaluation | None = None

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.statuses)

    @property
    def clean(self) -> Share:
        """Images that are classified correctly."""
        return self._share(lambda status: status != MISCLASSIFIED)

    @property
    def attacked(self) -> Share:
        """Robust accuracy under attack: correct ones that nobody has broken. An upper bound of robust accuracy."""
        return self._share(lambda status: status not in (MISCLASSIFIED, Status.SAT))

    @property
    def verified(self) -> Share:
        """Verified accuracy: correct ones that are proved. A lower bound of robust accuracy."""
        return self._share(lambda status: status == Status.UNSAT)

    @property
    def undecided(self) -> int:
        """Correct images that are neither proved nor broken."""
        return self.attacked.count - self.verified.count

    @property
    def failures(self) -> dict[str, int]:
        """How many images are open because a verifier failed, by what it said."""
        open_ = (Status.ERROR, Status.MEMOUT, Status.UNSUPPORTED)
        return dict(Counter(f"{v.verifier}: {v.detail}" for v in self.verdicts if v is not None and v.status in open_))

    @property
    def kept(self) -> Kept | None:
        """What is kept of the dense network's verified accuracy; None without one, or if nothing of it is verified."""
        if self.dense is None:
            return None
        pairs = Counter(
            (own == Status.UNSAT, other == Status.UNSAT)
            for own, other in zip(self.statuses, self.dense.statuses, strict=True)
        )
        both, own, other = pairs[True, True], pairs[True, False], pairs[False, True]
        return Kept(*paired_ratio(both, own, other)) if both + other else None

    def _share(self, counts: Callable[[str], bool]) -> Share:
        return Share(sum(map(counts, self.statuses)), self.images)

    def to_pandas(self) -> pd.DataFrame:
        """Returns a row an image: its label, what was predicted, its status, who decided and in how many seconds.

        Raises:
            UserError: pandas isn't installed.
        """
        return data_frame(
            {
                "label": self.labels,
                "predicted": self.predicted,
                "status": list(self.statuses),
                "verifier": [verdict.verifier if verdict else "" for verdict in self.verdicts],
                "seconds": [verdict.times.wall_s if verdict else float("nan") for verdict in self.verdicts],
                **({"status_dense": list(self.dense.statuses)} if self.dense is not None else {}),
            }
        )

    def _lines(self) -> list[tuple[str, ...]]:
        return [(one.name, f"{one.compression:.3g}×", repr(one.clean), repr(one.attacked), repr(one.verified),
                 str(one.undecided)) for one in (*([self.dense] if self.dense else []), self)]  # fmt: skip

    def __repr__(self) -> str:
        kept = f", kept {self.kept}" if self.kept is not None else ""
        failed = f", FAILED on {sum(self.failures.values())}, see .failures" if self.failures else ""
        return (
            f"<{self.name} at eps {self.eps}, {self.images} images: clean {self.clean}, under attack {self.attacked}, "
            f"verified {self.verified}, undecided {self.undecided}{kept}{failed}>"
        )

    def _repr_html_(self) -> str:
        headings = ("network", "compression", "clean", "under attack", "verified", "undecided")
        few = f"; fewer than {FEW}: mind the intervals" if self.images < FEW else ""
        kept = f"; kept of dense, verified: {self.kept}" if self.kept is not None else ""
        return table(headings, self._lines(), f"eps {self.eps}, {self.images} images{few}{kept}")


def evaluate(
    network: nn.Module | str | Path,
    data: Data,
    eps: Radius,
    *,
    dense: nn.Module | str | Path | None = None,
    images: int | None = None,
    verifiers: str | Sequence[str] | None = None,
    timeout: float = 20.0,
    bounds: Bounds | None = PIXELS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "cpu",
    tell: Tell | None = None,
) -> Evaluation:
    """Measures clean accuracy, robust accuracy under attack and verified accuracy, each with its interval.

    Args:
        network: A module in evaluation mode, the path of an ONNX file or of a checkpoint, or a shipped one's name.
        data: ``(x, labels)``; one of prunecert's data sets; or a torch Dataset or DataLoader of pairs.
        eps: Radius in the sup norm, in the unit of the inputs.
        dense: The dense network, of which it is told what is kept: the same images, the same verifiers.
        images: How many images, from the first on; None for all.
        verifiers: Who is asked, in this order, about what is undecided: names, in a list or with commas. None:
            ``pgd`` and complete ones, as far as they are installed.
        timeout: Seconds for each verifier and image.
        bounds: Lowest and highest value of an input; None for none.
        settings: A verifier's settings, by its name.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        tell: Is told a line about each step, e.g. ``print``.

    Example:
        >>> import prunecert, torch
        >>> images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 8])
        >>> result = prunecert.evaluate("cnn-small_ibp_eps2_lwm_x10_s0", (images, labels), "1/255")
        >>> result.images
        2

    Raises:
        UserError: Anything about the input.
    """
    bounds, device, seconds = as_bounds(bounds), as_device(device), as_seconds(timeout)
    radius = as_radius(eps, bounds)
    inputs, labels = as_data(data, images, bounds)
    names = chosen_verifiers(verifiers, DEFAULT)
    check_settings(settings, names)
    say: Tell = tell or (lambda line: None)
    results: list[Evaluation] = []
    for one, role in ((dense, "dense"), (network, "network")):
        if one is None:
            continue
        with opened_network(one, inputs[0]) as target:
            name = _name(one, role)
            say(f"{name}: {len(inputs)} images")
            statuses, verdicts, predicted = _decide(
                target, inputs, labels, radius, supported(names, target.onnx), seconds, bounds, settings, device, say
            )
            weights, kept = totals(count_layers(target.onnx))
        control = results[0] if results else None
        whole = max(weights, control.kept_weights) if control is not None else weights
        results.append(
            Evaluation(
                name=name,
                eps=radius,
                labels=labels,
                predicted=predicted,
                statuses=statuses,
                verdicts=verdicts,
                compression=whole / max(1, kept),
                kept_weights=kept,
                verifiers=names,
                dense=control,
            )
        )
        say(repr(results[-1]))
    return results[-1]


def _name(network: nn.Module | str | Path, role: str) -> str:
    if isinstance(network, str | Path):
        return Path(network).name.removesuffix(".onnx")
    return f"{type(network).__name__} ({role})"


def _decide(
    target: Target,
    inputs: FloatArray,
    labels: npt.NDArray[np.int64],
    eps: Fraction,
    verifiers: Sequence[str],
    timeout: float,
    bounds: Bounds | None,
    settings: Mapping[str, Mapping[str, Any]] | None,
    device: str,
    say: Tell,
) -> tuple[tuple[str, ...], tuple[Verdict | None, ...], npt.NDArray[np.int64]]:
    """Returns what became of each image, the verdicts, and the predicted classes.

    Raises:
        UserError: Inputs or labels don't fit the network, or its outputs are not finite.
    """
    if len(inputs.shape[1:]) != len(target.shape) or any(
        size not in (0, own) for own, size in zip(inputs.shape[1:], target.shape, strict=True)
    ):
        raise UserError(
            f"The inputs have the shape {inputs.shape[1:]}, and {target.onnx.name} takes {target.shape}; pass inputs "
            "[n, …] of that shape, channels first."
        )
    if labels.max(initial=0) >= target.classes:
        raise UserError(
            f"The labels reach up to {labels.max()}, and the network has {target.classes} outputs; count from 0."
        )
    logits = counterexample.outputs(target.onnx, inputs, target.classes)
    if not np.isfinite(logits).all():
        raise UserError("The network's outputs are not finite on this data; train it again.")
    correct = [is_correct(row, int(label)) for row, label in zip(logits, labels, strict=True)]
    questions: dict[int, Instance] = {
        number: target.question(inputs[number], int(labels[number]), eps, timeout, bounds, f"image {number}")
        for number in np.flatnonzero(correct).tolist()
    }
    verdicts: dict[int, Verdict] = {}
    for name in verifiers:
        still = [number for number in questions if number not in verdicts or not verdicts[number].status.decided]
        if not still:
            break
        say(f"  {name}: {len(still)} open")
        answers = CREW.ask(
            name, [questions[number] for number in still], settings=(settings or {}).get(name), device=device
        )
        for number, verdict in zip(still, answers, strict=True):
            # A limit that a later one reached says less than that an earlier one has failed: a fault stays in sight.
            failed = number in verdicts and verdicts[number].status is Status.ERROR
            if verdict.status.decided or not failed:
                verdicts[number] = verdict
    statuses = tuple(
        str(verdicts[number].status) if number in questions else MISCLASSIFIED for number in range(len(inputs))
    )
    predicted: npt.NDArray[np.int64] = logits.argmax(1).astype(np.int64)
    return statuses, tuple(verdicts.get(number) for number in range(len(inputs))), predicted


def data_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Returns a data frame.

    Raises:
        UserError: pandas isn't installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UserError("to_pandas needs the package pandas; call: pip install pandas") from None
    return pd.DataFrame(columns)
