"""Instance, Verdict, Verifier: what every adapter shares, and nothing heavy to import."""

from __future__ import annotations

import enum
import functools
import hashlib
import html
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.printable import shortened
from prunecert.verifiers.capabilities import Availability, Capabilities, Norm
from prunecert.verifiers.certificate import Certificate
from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.settings import Setting, paragraph, resolve

__all__ = [
    "Availability",
    "Capabilities",
    "FloatArray",
    "Instance",
    "Kind",
    "Norm",
    "OutputSpec",
    "Status",
    "Times",
    "UnsupportedError",
    "Verdict",
    "Verifier",
]

FloatArray = npt.NDArray[np.float32]
#: Relative difference of a distance from a radius above which float64 tells which is larger.
_CLEAR = 1e-9


class Status(enum.StrEnum):
    """What a verifier found; nothing else exists. `unsat` means that the property holds."""

    UNSAT = "unsat"
    SAT = "sat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    MEMOUT = "memout"
    ERROR = "error"
    UNSUPPORTED = "unsupported"

    @property
    def decided(self) -> bool:
        """Whether the instance is settled: nobody needs to look at it again."""
        return self in (Status.UNSAT, Status.SAT)


class UnsupportedError(Exception):
    """Raised by an adapter's `load` or `solve`: it can't take this network or property; the message says why.

    The worker makes an `unsupported` verdict of it.
    """


class Kind(enum.StrEnum):
    """What a verifier can answer: `incomplete` never `sat`, `attack` never `unsat`, `complete` both.

    `probabilistic` answers neither: its `unknown` carries a `Certificate`, which speaks of another classifier than the
    network, in another norm, and may be wrong with a small probability. So nothing that counts `unsat` can count it.
    """

    INCOMPLETE = "incomplete"
    COMPLETE = "complete"
    ATTACK = "attack"
    PROBABILISTIC = "probabilistic"


@dataclass(frozen=True, eq=False)
class Instance:
    """One question to a verifier: does the ONNX network stay out of the unsafe set over the input set?

    >>> import numpy as np
    >>> from pathlib import Path
    >>> image = np.full((3, 32, 32), 0.5, dtype=np.float32)
    >>> question = Instance(
    ...     onnx=Path("net.onnx"),
    ...     onnx_sha256="",
    ...     lower=image - np.float32(2 / 255),
    ...     upper=image + np.float32(2 / 255),
    ...     spec=OutputSpec.robustness(label=3, classes=10),
    ...     timeout=30.0,
    ... )
    >>> question.contains(image), question.contains(image + np.float32(0.1))
    (True, False)

    Args:
        onnx: Path of the network.
        onnx_sha256: The network's identity, `prunecert.onnx.io.identity`: hash of that file, and of the weights that it
            keeps in others; a worker refuses another network under the same path.
        lower: Lower corner of the input box, float32, the ONNX input's shape without the batch axis.
        upper: Upper corner, likewise.
        spec: The unsafe outputs.
        timeout: Wall-clock limit for the search in seconds, above 0.
        name: What a person calls it, e.g. ``"image 17"``.
        label: The class to keep, for robustness instances; None for any other property.
        classes: Number of outputs.
        eps: Radius, if the input set comes from one.
        norm: ``"linf"``: the set is the box. ``"l2"``: the set is the part of the ball of radius `eps`
            round `center` that lies in the box.
        center: The unperturbed input; needed for ``"l2"``.
        vnnlib: The VNN-LIB file that it was read from, if any.
        starts: Points that an attack may try first, by what they are called; no part of the question.
        allowance: For each disjunct, how far float32 rounding may move its rows (`verifiers.rounding.guard`); a
            verifier that `tightens` is given it and proves that much more. Empty: none. No part of the question.
    """

    onnx: Path
    onnx_sha256: str
    lower: FloatArray
    upper: FloatArray
    spec: OutputSpec
    timeout: float
    name: str = ""
    label: int | None = None
    classes: int = 10
    eps: float | None = None
    norm: Norm = "linf"
    center: FloatArray | None = None
    vnnlib: Path | None = None
    starts: Mapping[str, FloatArray] = field(default_factory=dict)
    allowance: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape or not np.all(self.lower <= self.upper):
            raise UserError(
                f"Instance {self.name or self.onnx.name}: the input box is refused because its corners have shapes "
                f"{self.lower.shape} and {self.upper.shape} or lower > upper somewhere; allowed are equal shapes with "
                "lower <= upper everywhere and no NaN."
            )
        if self.lower.dtype != np.float32 or self.upper.dtype != np.float32:
            raise UserError(f"Instance {self.name}: box corners must be float32, got {self.lower.dtype}.")
        if not self.timeout > 0:
            raise UserError(f"Instance {self.name}: timeout {self.timeout} is refused; it must be above 0 seconds.")
        if self.norm == "l2" and (self.center is None or self.eps is None):
            raise UserError(f"Instance {self.name}: an l2 ball needs its centre and eps.")

    def tightened(self, times: float = 1.0) -> OutputSpec:
        """Returns the unsafe outputs, larger by the allowance: what is proved of them holds of `spec` with that margin.

        Args:
            times: The allowance, so many times.
        """
        if not self.allowance:
            return self.spec
        pairs = zip(self.spec.disjuncts, self.allowance, strict=True)
        return OutputSpec(tuple((a, b + times * allowed) for (a, b), allowed in pairs))

    def digest(self) -> str:
        """Returns a hash of all that decides the answer, but for the verifier; file paths don't enter."""
        return digest({**self._content, "timeout": self.timeout})

    def question(self) -> str:
        """Returns the hash of the question alone, whatever its limit."""
        return digest({**self._content, "timeout": 1.0})

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        center = self.center if self.norm == "l2" else None
        return {
            "onnx": self.onnx_sha256,
            "lower": hashlib.sha256(np.ascontiguousarray(self.lower).tobytes()).hexdigest(),
            "upper": hashlib.sha256(np.ascontiguousarray(self.upper).tobytes()).hexdigest(),
            "shape": list(self.lower.shape),
            "spec": self.spec.digest(),
            "norm": self.norm,
            "eps": self.eps if self.norm == "l2" else None,
            "center": None if center is None else hashlib.sha256(center.tobytes()).hexdigest(),
        }

    def contains(self, point: FloatArray) -> bool:
        """Whether the point lies in the input set, with no tolerance, in exact arithmetic."""
        if point.shape != self.lower.shape or not bool(np.all((self.lower <= point) & (point <= self.upper))):
            return False
        if self.norm == "l2":
            assert self.center is not None
            assert self.eps is not None
            return _within(point, self.center, self.eps)
        return True


def _within(point: FloatArray, center: FloatArray, radius: float) -> bool:
    """Whether a point is within an l2 radius of another, in exact arithmetic; what isn't finite is not."""
    if not (np.isfinite(point).all() and np.isfinite(center).all() and radius >= 0):
        return False
    distance = float(np.linalg.norm(point.astype(np.float64) - center.astype(np.float64)))
    if distance > radius * (1 + _CLEAR) or distance < radius * (1 - _CLEAR):
        return distance < radius
    pairs = zip(point.reshape(-1).tolist(), center.reshape(-1).tolist(), strict=True)
    squares = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs if a != b)
    return squares <= Fraction(radius) ** 2


@dataclass(frozen=True)
class Times:
    """Seconds by phase. For a batch, each instance carries its share: the batch's time over its size.

    Args:
        start_s: Starting the worker process and importing the verifier, 0 when the worker was warm.
        load_s: Reading and converting the network, 0 when it was loaded already.
        bound_s: Bounding (incomplete verification, or an attack).
        search_s: Branch and bound.
        wall_s: Everything between the hand-over and the verdict but `start_s`.
    """

    start_s: float = 0.0
    load_s: float = 0.0
    bound_s: float = 0.0
    search_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a verifier answered on one instance.

    Args:
        status: The answer.
        detail: Why, in one sentence; never empty for `error`, `unsupported`, `memout`.
        witness: A counterexample, float32, the shape of the input box; only with `sat`.
        bounds: Certified lower bounds of max over rows of (A_k y - b_k) for each disjunct k (for robustness: of
            the margins y_label - y_j, in the order of j); all > 0 proves `unsat`.
        times: Seconds by phase.
        stage: What decided: ``attack``, ``incomplete`` or ``bab``; None where nothing was decided.
        unstable: ReLUs that the bounds leave unstable.
        domains: Branch-and-bound domains visited.
        iterations: Branch-and-bound iterations.
        peak_memory_mb: Peak resident size of the worker, MiB.
        batch: How many instances were handed over together.
        device: ``cpu`` or ``cuda:N (name)``.
        verifier: Adapter's name.
        version: Verifier's version, with the commit where there is one.
        witness_check: The replay's record, for every claimed counterexample.
        certificate: What a probabilistic verifier found; only with `unknown`.
        log_tail: The last lines of the verifier's own output, for failures.
    """

    status: Status
    detail: str = ""
    witness: FloatArray | None = None
    bounds: tuple[float, ...] | None = None
    times: Times = field(default_factory=Times)
    stage: str | None = None
    unstable: int | None = None
    domains: int | None = None
    iterations: int | None = None
    peak_memory_mb: float | None = None
    batch: int = 1
    device: str = "cpu"
    verifier: str = ""
    version: str = ""
    witness_check: Mapping[str, Any] | None = None
    certificate: Certificate | None = None
    log_tail: str = ""

    def __repr__(self) -> str:
        word = {Status.UNSAT: "proved", Status.SAT: "broken"}.get(self.status, "left open")
        why = f" ({shortened(self.detail, 160)})" if self.detail and self.status is not Status.UNSAT else ""
        return f"<Verdict {self.status}: {word} by {self.verifier or 'nobody'}{why}>"

    def _repr_html_(self) -> str:
        rows = {
            "status": str(self.status),
            "by": f"{self.verifier} {self.version}".strip(),
            "detail": self.detail,
            "seconds": f"{self.times.wall_s:.3g}",
        }
        cells = (f"<tr><th>{key}</th><td>{html.escape(text)}</td></tr>" for key, text in rows.items() if text)
        return f"<table>{''.join(cells)}</table>"

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a result line; the witness is left out (it is stored beside)."""
        # `asdict` copies deeply, which takes longer than all else that is done for a cheap instance.
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "witness"}
        data["status"] = str(self.status)
        data["bounds"] = None if self.bounds is None else list(self.bounds)
        data["times"] = {item.name: getattr(self.times, item.name) for item in fields(self.times)}
        data["witness_check"] = None if self.witness_check is None else dict(self.witness_check)
        data["certificate"] = None if self.certificate is None else asdict(self.certificate)
        return data


class Verifier:
    """An adapter. It lives in a worker process (`verifiers.process.worker`), which owns limits, replay and versions.

    A subclass translates in and parses out, nothing more. It may raise anything: the worker makes an `error`
    verdict of it. It never replays its own witnesses and never measures `start_s` or `wall_s`.

    Args:
        settings: Values for keys of `known_settings`.
        device: ``"cpu"`` or ``"cuda"`` or ``"cuda:N"``.

    Raises:
        UserError: A setting is unknown, or has a value of another type or out of range.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    #: What can be set, by name; it is appended to the docstring of every adapter.
    known_settings: ClassVar[Mapping[str, Setting]] = {}
    #: How many instances of one network the adapter takes in one call.
    batch_size: ClassVar[int] = 1
    #: Whether it proves `Instance.tightened` instead of `Instance.spec`; a complete verifier must, because it would end
    #: with a bound of just over 0.
    tightens: ClassVar[bool] = False
    #: The worker is replaced after so many instances (memory that a verifier never frees).
    recycle_after: ClassVar[int | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = cls.__dict__.get("__doc__")
        if own and cls.known_settings:
            cls.__doc__ = f"{inspect.cleandoc(own)}\n\n{paragraph(cls.known_settings)}"

    def __init__(self, settings: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.settings = self.resolve(settings)
        self.device = device

    @classmethod
    def resolve(cls, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the defaults with `settings` over them, checked."""
        return resolve(cls.name, cls.known_settings, settings)

    @classmethod
    def availability(cls) -> Availability:
        """Says whether the verifier can run here, without importing anything heavy."""
        raise NotImplementedError

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Says what the verifier takes."""
        raise NotImplementedError

    @classmethod
    def preparation(cls) -> str:
        """Says what the next `start` does that later ones on this machine need not, and how long about; empty: nothing.

        Such a start is announced and has time, and counts in no limit of a question. Called without anything heavy
        imported.
        """
        return ""

    def start(self) -> None:
        """Imports what is heavy; called once in the worker before the first `load`, its time is `start_s`."""

    def load(self, onnx: Path) -> None:
        """Reads the network; called in the worker before `solve`, once per network.

        Args:
            onnx: A network in normal form (`prunecert.onnx`), whatever form the network has that was asked about.
        """
        raise NotImplementedError

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Computes the outputs of the network as this adapter has read it; called in the worker after `load`.

        The worker compares them with onnxruntime's in the instance's own box before a proof counts.

        Args:
            points: [n, ...], each of the size of the loaded network's input.

        Returns:
            [n, outputs], float32 or float64, or None if the verifier can't say.
        """
        return None

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers instances of the loaded network, in their order; at most `batch_size` of them."""
        raise NotImplementedError
