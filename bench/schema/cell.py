"""A network of the grid, and how it is verified: the plain data that a suite is made of."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

from prunecert.bench.schema.certificates import VERIFIER, Certify
from prunecert.bench.schema.pairs import PAIR_VERIFIER, PairProtocol
from prunecert.bench.schema.timing import Timing
from prunecert.compaction import Mode
from prunecert.errors import UserError, did_you_mean
from prunecert.models import FULL_BITS, LEAST_BITS, MOST_BITS, NOISE_OBJECTIVES
from prunecert.printable import shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, Norm

#: Of a radius, above and below the line: far beyond what float32 pixels tell apart.
_DIGITS = 40
#: Of l2 balls: no two images of a million pixels are further apart.
_MOST_L2 = 1_000
#: How a suite asks for a network whose activations are integers, too.
INT8 = "int8"
_BITS = re.compile(r"[0-9]{1,2}(/[0-9]{1,2}){0,59}")
_RADIUS = re.compile(r"[-+]?(?=\.?[0-9])[0-9]{0,40}(/[0-9]{1,40}|(\.[0-9]{0,40})?([eE][-+]?[0-9]{1,2})?)")


@dataclass(frozen=True)
class Cell:
    """One network of the grid: what it is, how it is trained, pruned and at which radius it is verified.

    Example:
        >>> Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0).name
        'cnn-small_ibp_eps2_lwm_x10_s0'

    Args:
        network: Name in `models.NETWORKS`.
        objective: Name in `models.OBJECTIVES`.
        eps: Radius in the sup norm, in pixels of [0, 1], as an exact fraction, e.g. 2/255; for the objectives of
            `models.NOISE_OBJECTIVES` the standard deviation of their noise, sigma, and `norm` is ``"l2"``.
        pruner: Name in `models.PRUNERS`, or ``"dense"`` for the unpruned control.
        compression: All prunable weights over those kept, at least 1; 1 for the dense control only.
        seed: Seed of training and pruning.
        trained_eps: The radius that it was trained for, where it is verified at another one; None: at `eps`.
        ball: Whether it is verified over the l2 ball of radius `eps`, cut with the pixels' box; then `trained_eps` is
            given, a radius in the sup norm.
        bits: Of its weights, which are rounded after all training: one number for all layers, or one for each; empty:
            float32, as it was trained. See `models.bits`.
        int8: Whether it is the QDQ file of int8 weights and uint8 activations; see `models.quantise`.
    """

    network: str
    objective: str
    eps: Fraction
    pruner: str
    compression: float
    seed: int
    trained_eps: Fraction | None = field(default=None, kw_only=True)
    ball: bool = field(default=False, kw_only=True)
    bits: tuple[int, ...] = field(default=(), kw_only=True)
    int8: bool = field(default=False, kw_only=True)

    @property
    def rounded(self) -> bool:
        """Whether its weights are others than those that were trained."""
        return self.int8 or bool(self.bits)

    @property
    def norm(self) -> Norm:
        """The norm of its radius: that in which it is verified, or certified where it is trained with noise."""
        return "l2" if self.ball or self.objective in NOISE_OBJECTIVES else "linf"

    @property
    def verification_norm(self) -> Norm:
        """The norm in which verifiers are asked about it."""
        return "l2" if self.ball else "linf"

    @property
    def name(self) -> str:
        """What the cell's files are called: ``cnn-small_ibp_eps2_lwm_x10_s0`` (eps as a numerator over 255).

        Networks that are trained with noise have ``sigma0.25`` in the place of ``eps2``; one that was trained for 2/255
        and is verified at 1/255 has ``eps2-at1``, or ``eps2-l2at0.25`` if it is over an l2 ball of that radius.
        """
        # What is named module:attribute has no colon in the names of files.
        return f"{self.family}_{self.member}".replace(":", ".")

    @property
    def family(self) -> str:
        """How the name begins for all cells of this network, objective and radius: ``cnn-small_ibp_eps2``."""
        radius = f"eps{float(self.eps * 255):g}" if self.norm == "linf" else f"sigma{float(self.eps):g}"
        if self.trained_eps is not None:
            at = f"l2at{float(self.eps):g}" if self.ball else f"at{float(self.eps * 255):g}"
            radius = f"eps{float(self.trained_eps * 255):g}-{at}"
        return f"{self.network}_{self.objective}_{radius}"

    @property
    def as_trained(self) -> Cell:
        """The cell whose checkpoint it has: itself, or that of the radius it was trained for, with weights in full."""
        if self.trained_eps is None and not self.rounded:
            return self
        return replace(self, eps=self.trained_eps or self.eps, trained_eps=None, ball=False, bits=(), int8=False)

    @property
    def network_label(self) -> str:
        """What tables call the network: its name, and the bits of its weights where they are rounded."""
        if self.int8:
            return f"{self.network} {INT8}"
        return f"{self.network} {show_bits(self.bits)}-bit" if self.bits else self.network

    @property
    def member(self) -> str:
        """How the name ends, which tells the cells of a family apart: ``lwm_x10_s0``, ``lwm_x10_s0_b8``."""
        rounded = f"_{INT8}" if self.int8 else f"_b{'-'.join(map(str, self.bits))}" if self.bits else ""
        return f"{self.pruner}_x{self.compression:g}_s{self.seed}{rounded}"

    @property
    def sparsity(self) -> float:
        """The sparsity asked for: 1 - 1 / compression."""
        return 1.0 - 1.0 / self.compression

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; `eps` as text (``"2/255"``), so that it stays exact."""
        return {
            "network": self.network_label,
            "objective": self.objective,
            "eps": show_eps(self.eps, ball=self.ball),
            "pruner": self.pruner,
            "compression": self.compression,
            "seed": self.seed,
            **({} if self.norm == "linf" else {"norm": self.norm}),
            **({} if self.trained_eps is None else {"trained_eps": show_eps(self.trained_eps)}),
            **({"bits": list(self.bits)} if self.bits else {}),
            **({INT8: True} if self.int8 else {}),
        }


@dataclass(frozen=True)
class Protocol:
    """How a cell is verified.

    Args:
        split: Which images: ``"test"``, or ``"val"``, ``"train"``.
        images: How many, from the first on.
        cascade: Verifiers in the order in which an undecided image meets them.
        cross_check: Those of the cascade that see every correctly classified image, decided or not: they are
            cheap, they let the methods be compared on the same images, and they are what finds contradictions.
        timeouts: Seconds an instance, by verifier.
        settings: Settings by verifier; what is not named has the adapter's default.
        memory_mb: Limit of a worker's resident memory, MiB; None for none.
        note: Why the cell is verified in another way than the rest; shown in the table.
        timing: How times are taken, if that is what the suite is for: then every verifier sees every image.
        certify: How the network is certified by randomized smoothing, if it is; apart from all verifying.
        compact: What is removed from a network before it is verified; see `models.compact`.
        pair: What is asked of a pruned network together with the dense one, if anything is; apart from all verifying.
    """

    split: str = "test"
    images: int = 100
    cascade: tuple[str, ...] = ()
    cross_check: tuple[str, ...] = ()
    timeouts: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    memory_mb: int | None = None
    note: str = ""
    timing: Timing | None = None
    compact: Mode = Mode.PIXELS
    certify: Certify | None = None
    pair: PairProtocol | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        data = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("timing", "certify", "pair")
        }
        return {
            **data,
            **({} if self.timing is None else {"timing": self.timing.to_json()}),
            **({} if self.certify is None else {"certify": self.certify.to_json()}),
            **({} if self.pair is None else {"pair": self.pair.to_json()}),
            "compact": str(self.compact),
            "cascade": list(self.cascade),
            "cross_check": list(self.cross_check),
            "timeouts": dict(self.timeouts),
            "settings": {name: dict(values) for name, values in self.settings.items()},
        }

    def only(self, verifiers: tuple[str, ...]) -> Protocol:
        """Returns the protocol with the cascade cut down to `verifiers`, in their order.

        Certificates are left where `verifiers` names smoothing, and pairs where it names who is asked about them.
        """
        certify = self.certify if VERIFIER in verifiers else None
        pair = None if self.pair is None else self.pair.only(verifiers)
        if not self.cascade:
            return replace(self, certify=certify, pair=pair)
        verifiers = tuple(name for name in verifiers if name not in (VERIFIER, PAIR_VERIFIER))
        attacks_only = all(VERIFIERS.get(name).kind is Kind.ATTACK for name in self.cascade) and self.note != ""
        cascade = tuple(n for n in verifiers if not attacks_only or VERIFIERS.get(n).kind is Kind.ATTACK)
        cross_check = tuple(n for n in self.cross_check if n in cascade)
        return replace(self, cascade=cascade, cross_check=cross_check, certify=certify, pair=pair)

    def first(self, images: int) -> Protocol:
        """Returns the protocol for so many images, verified, certified and compared."""
        certify = None if self.certify is None else replace(self.certify, images=images)
        pair = None if self.pair is None else replace(self.pair, images=images)
        return replace(self, images=images, certify=certify, pair=pair)


def parse_eps(text: str, *, ball: bool = False) -> Fraction:
    """Reads a radius written ``"2/255"`` or ``"0.01"``, exactly.

    Example:
        >>> parse_eps("8/255"), parse_eps("0.25"), parse_eps("3/2", ball=True)
        (Fraction(8, 255), Fraction(1, 4), Fraction(3, 2))

    Args:
        text: The radius.
        ball: Whether it is that of an l2 ball, which may be above 1.

    Raises:
        UserError: It is no number, or not within (0, 1]; of an l2 ball, (0, 1000].
    """
    shown = shortened(repr(text), 60)
    # A huge exponent would be written out, digit by digit, by the arithmetic itself.
    if not _RADIUS.fullmatch(text.replace(" ", "")):
        raise UserError(f"Radius {shown} is refused; write it as a fraction in quotes or bare, e.g. 2/255.")
    try:
        value = Fraction(text.replace(" ", ""))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"Radius {shown} is refused; write it as a fraction in quotes or bare, e.g. 2/255.") from error
    if ball and not 0 < value <= _MOST_L2:
        raise UserError(
            f"Radius {shown} is refused; that of an l2 ball must be above 0 and at most {_MOST_L2:,} (a larger ball "
            "holds all images)."
        )
    if not ball and not 0 < value <= 1:
        raise UserError(f"Radius {shown} is refused; it must be above 0 and at most 1 (pixels are in [0, 1]).")
    if value.denominator >= 10**_DIGITS:
        raise UserError(f"Radius {shown} is refused; as a fraction it must have at most {_DIGITS} digits a side.")
    return value


def read_eps(value: object, *, ball: bool = False) -> Fraction:
    """Reads a radius as a suite has it: text as `parse_eps` takes it, or a whole number.

    Example:
        >>> read_eps("8/255"), read_eps(1)
        (Fraction(8, 255), Fraction(1, 1))

    Args:
        value: The radius, as YAML has it.
        ball: Whether it is that of an l2 ball.

    Raises:
        UserError: It is neither, or out of range. Decimals that aren't text are binary numbers already, and inexact.
    """
    if isinstance(value, float):
        raise UserError(f"Radius {value!r} is refused; write it as text, '{value!r}', or as a fraction, e.g. '1/10'.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"Radius {shortened(repr(value), 60)} is refused; write it as a fraction, e.g. 2/255.")
    return parse_eps(str(value), ball=ball)


def show_eps(eps: Fraction, *, ball: bool = False) -> str:
    """Returns the radius over 255 where that is a whole number (8/255, 51/255), else the fraction.

    Example:
        >>> show_eps(Fraction(2, 255)), show_eps(Fraction(1, 4)), show_eps(Fraction(1), ball=True)
        ('2/255', '1/4', '1')

    Args:
        eps: The radius.
        ball: Whether it is that of an l2 ball, which is no number of grey levels: then it is the fraction always.
    """
    if ball:
        return str(eps)
    over = eps * 255
    return f"{over.numerator}/255" if over.denominator == 1 else str(eps)


def parse_bits(value: object) -> tuple[int, ...]:
    """Reads bits of weights: a number, or numbers of each layer joined by bars.

    Example:
        >>> parse_bits(8), parse_bits("8/4/4/6"), parse_bits(32)
        ((8,), (8, 4, 4, 6), ())

    Returns:
        Nothing for 32, which stands for weights that aren't rounded.

    Raises:
        UserError: It is neither, or out of range.
    """
    text = str(value)
    if value == FULL_BITS or text == str(FULL_BITS):
        return ()
    if isinstance(value, bool) or not _BITS.fullmatch(text):
        raise UserError(
            f"Bits {shortened(repr(value), 60)} are refused; allowed are {FULL_BITS} (float32), a whole number from "
            f"{LEAST_BITS} to {MOST_BITS}, or such numbers for each layer, as '8/4/4/6'; in a suite also {INT8}, with "
            "activations of integers."
        )
    bits = tuple(int(part) for part in text.split("/"))
    for width in bits:
        if not LEAST_BITS <= width <= MOST_BITS:
            raise UserError(
                f"Bits {text!r} are refused; each must be within {LEAST_BITS} and {MOST_BITS} ({FULL_BITS}, for "
                "float32, stands alone, for all layers)."
            )
    return bits


def show_bits(bits: tuple[int, ...]) -> str:
    """Returns bits as `parse_bits` takes them."""
    return "/".join(map(str, bits)) if bits else str(FULL_BITS)


def fitting(names: Iterable[str], patterns: str, what: str) -> list[str]:
    """Returns the names that fit one of some shell patterns, in their order.

    Example:
        >>> fitting(["cnn_dense_x1", "cnn_lwm_x10", "vgg_lwm_x10"], "cnn_*, *dense*", "suite 's'")
        ['cnn_dense_x1', 'cnn_lwm_x10']

    Args:
        names: Names of cells.
        patterns: Comma-separated.
        what: What the cells are of, for the message.

    Raises:
        UserError: There is no pattern, or one that fits nothing.
    """
    names = list(names)
    wildcards = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    if not wildcards:
        raise UserError(f"--cells is empty; name at least one cell of {what}, or leave it out.")
    for pattern in wildcards:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"--cells: {did_you_mean(f'cell of {what}', pattern, names)}")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in wildcards)]
