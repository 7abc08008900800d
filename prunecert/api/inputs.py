"""What people pass to the Python interface, checked: radii, inputs, labels, data; each refusal says what to call."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from prunecert.models.data import Dataset
    from prunecert.verifiers.base import FloatArray

    #: An array, or what NumPy makes one of.
    Arrays = npt.NDArray[Any] | Tensor | Sequence[Any]
    #: Inputs with labels.
    Data = tuple[Arrays, Arrays] | Dataset | Iterable[tuple[Arrays, Arrays]]

Radius = float | str | Fraction
Bounds = tuple[float, float]

_NUMBERS = (int, float, np.integer, np.floating)
#: Inputs are pixels unless something else is said.
PIXELS: Bounds = (0.0, 1.0)


def as_radius(eps: Radius, bounds: Bounds | None = PIXELS) -> Fraction:
    """Returns a radius as an exact fraction.

    Args:
        eps: ``"2/255"``, a number or a fraction.
        bounds: Range of the inputs; None for none.

    Example:
        >>> as_radius("2/255"), as_radius(0.1)
        (Fraction(2, 255), Fraction(1, 10))

    Raises:
        UserError: It is no number, not above 0, or larger than the range.
    """
    widest = math.inf if bounds is None else bounds[1] - bounds[0]
    try:
        # Through the shortest decimal, so that 0.1 is 1/10.
        exact = eps if isinstance(eps, Fraction) else Fraction(str(eps).replace(" ", "") or "none")
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f'eps={eps!r} is refused; write a number or a fraction, e.g. eps="2/255".') from None
    if not 0 < exact <= widest:
        allowed = "above 0" if bounds is None else f"above 0 and at most {widest:g}, the range of the inputs"
        hint = f'; of 255 levels it is eps="{exact}/255"' if exact.denominator == 1 and 1 < exact <= 255 else ""
        raise UserError(f"eps={eps!s} is refused: it must be {allowed}{hint}.")
    return exact


def as_bounds(bounds: Bounds | None) -> Bounds | None:
    """Returns the range of the inputs.

    Raises:
        UserError: It isn't two numbers, the lower one first.
    """
    if bounds is None:
        return None
    try:
        low, high = (float(end) for end in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if isinstance(bounds, str) or not low < high:
        raise UserError(
            f"bounds={bounds!r} is refused; pass the lowest and the highest value of an input, e.g. bounds=(0, 1), or "
            "None where there are none."
        )
    return low, high


def as_seconds(timeout: Any) -> float:
    """Returns a time limit.

    Raises:
        UserError: It is no number above 0.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, _NUMBERS) or not timeout > 0:
        raise UserError(f"timeout={timeout!r} is refused; it must be a number above 0, in seconds.")
    return float(timeout)


def as_device(device: Any) -> str:
    """Returns a device's name, also of a `torch.device`.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(device, str) and type(device).__name__ != "device":
        raise UserError(f"device={device!r} is refused; allowed are 'cpu', 'cuda' and 'cuda:N'.")
    return str(device)


def as_array(values: Arrays, what: str) -> npt.NDArray[Any]:
    """Returns numbers as a NumPy array, from wherever they are.

    Raises:
        UserError: They are no numbers.
    """
    try:
        detached = values.detach().cpu() if hasattr(values, "detach") else values
        # NumPy has no bfloat16; float32 has all of its numbers.
        if hasattr(detached, "float") and str(getattr(detached, "dtype", "")) == "torch.bfloat16":
            detached = detached.float()
        array = np.asarray(detached.numpy() if hasattr(detached, "numpy") else detached)
    except (TypeError, ValueError, RuntimeError) as error:
        # Tensors without data, sparse ones and the like have an error of torch's.
        raise UserError(f"{what} is refused: it is no array of numbers ({error}); pass an array or a tensor.") from None
    if array.dtype.kind not in "fiub":
        raise UserError(f"{what} is refused: it has the type {array.dtype}; pass an array or a tensor of numbers.")
    return array


def as_pixels(values: Arrays, what: str, bounds: Bounds | None = PIXELS) -> FloatArray:
    """Returns inputs as float32, in range.

    Args:
        values: Inputs of a network.
        what: What to call them in messages.
        bounds: Range of the inputs; None for none.

    Raises:
        UserError: They are whole numbers, not finite or out of range.
    """
    array = as_array(values, what)
    if bounds is not None and array.dtype.kind != "f":
        raise UserError(
            f"{what} has the type {array.dtype}, so that 0 to 255 may be meant; pass floats within "
            f"[{bounds[0]:g}, {bounds[1]:g}], e.g. {what} / 255."
        )
    floats = np.ascontiguousarray(array, dtype=np.float32)
    if floats.size == 0 or not np.isfinite(floats).all():
        why = "is empty" if floats.size == 0 else "holds numbers that are not finite"
        raise UserError(f"{what} is refused: it {why}; pass finite numbers.")
    if bounds is None:
        return floats
    low, high = float(floats.min()), float(floats.max())
    if low < bounds[0] or high > bounds[1]:
        remedy = f"{what} / 255" if low >= 0 and 1 < high <= 255 else "pixels before any normalisation"
        raise UserError(
            f"{what} is refused: it reaches from {low:.4g} to {high:.4g}, and inputs are within [{bounds[0]:g}, "
            f"{bounds[1]:g}]; pass {remedy} (a normalisation belongs into the network: "
            "prunecert.standardised(module, mean=…, std=…)), or bounds=None for inputs without limits."
        )
    return floats


def as_sample(x: Arrays, shape: tuple[int, ...] | None, bounds: Bounds | None = PIXELS) -> FloatArray:
    """Returns one input without its batch axis.

    Args:
        x: The input, with or without a batch axis of 1.
        shape: What the network takes, without the batch axis; 0 for a free size. None: an axis of 1 before one or
            three others is the batch's.
        bounds: Range of the inputs; None for none.

    Raises:
        UserError: It has another shape, or numbers that are refused.
    """
    sample = as_pixels(x, "x", bounds)
    if shape is None:
        if sample.ndim in (2, 4):
            if sample.shape[0] != 1:
                image = "; of an image without its channel x[None]" if sample.ndim == 2 else ""
                raise UserError(
                    f"x has the shape {sample.shape}, which is {sample.shape[0]} inputs; pass one, e.g. x[0]{image}, "
                    "or call prunecert.evaluate(module, (x, labels), eps) for many."
                )
            first: FloatArray = sample[0]
            return first
        return sample
    candidates: tuple[FloatArray, ...] = (sample, *([sample[0]] if sample.ndim > 1 and sample.shape[0] == 1 else []))
    for candidate in candidates:
        if _fits(candidate.shape, shape):
            return candidate
    if sample.ndim == len(shape) + 1 and _fits(sample.shape[1:], shape):
        raise UserError(
            f"x has the shape {sample.shape}, which is {sample.shape[0]} inputs; pass one, e.g. x[0], or call "
            "prunecert.evaluate(network, (x, labels), eps) for many."
        )
    remedy = f"pass one input of the shape {shape}"
    if sample.ndim == 3 and _fits((sample.shape[2], *sample.shape[:2]), shape):
        remedy = "its channels come last: pass x.transpose(2, 0, 1), or x.permute(2, 0, 1) of a tensor"
    elif sample.size == math.prod(shape):
        remedy = f"pass x.reshape{shape}, if its numbers are in that order"
    raise UserError(f"x has the shape {sample.shape}, and the network takes {shape}; {remedy}.")


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(own) == len(shape) and all(size in (0, one) for one, size in zip(own, shape, strict=True))


def as_label(label: int, classes: int) -> int:
    """Returns a class.

    Raises:
        UserError: It is none of the network's.
    """
    single = hasattr(label, "item") and math.prod(getattr(label, "shape", ())) == 1
    number = label.item() if single else label  # type: ignore[attr-defined]
    if not isinstance(number, numbers.Integral) or not 0 <= int(number) < classes:
        raise UserError(
            f"label={label!r} is refused: the network has {classes} outputs; pass a whole number from 0 to "
            f"{classes - 1}, or no label for the class that the network itself gives."
        )
    return int(number)


def _is_whole(number: Any) -> bool:
    return isinstance(number, numbers.Integral)


def as_data(data: Data, images: int | None, bounds: Bounds | None = PIXELS) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Returns inputs and labels as arrays [n, …] and [n].

    Args:
        data: ``(x, y)``; a data set of `prunecert`; a torch data set or loader, of pairs.
        images: How many, from the first on; None for all.
        bounds: Range of the inputs; None for none.

    Raises:
        UserError: Something else was passed, the two have different lengths, or labels are no classes.
    """
    if images is not None and not (_is_whole(images) and images >= 1):
        raise UserError(f"images={images!r} is refused; it must be a whole number and at least 1.")
    x, y = _pairs(data, images)
    labels = as_array(y, "labels")
    if labels.ndim == 0 or len(x) != len(labels):
        count = labels.size if labels.ndim == 0 else len(labels)
        raise UserError(f"data is refused: it has {len(x)} inputs and {count} labels; each input needs one label.")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise UserError(
            f"labels are refused: they have the shape {labels.shape} and the type {labels.dtype}; pass one whole "
            "number from 0 on for each input (one-hot labels: labels.argmax(1))."
        )
    inputs = as_pixels(x[:images], "x", bounds)
    return inputs, labels[:images].astype(np.int64)


def _pairs(data: Any, images: int | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns the inputs and the labels of whatever was passed; no more than `images`, if they are read one by one."""
    if hasattr(data, "images") and hasattr(data, "labels"):
        return as_array(data.images, "x"), as_array(data.labels, "labels")
    if isinstance(data, tuple | list) and len(data) == 2 and not isinstance(data[0], tuple | list):
        return as_array(data[0], "x"), as_array(data[1], "labels")
    if not hasattr(data, "__iter__") and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise UserError(
            f"data of the type {type(data).__name__} is refused; pass (x, labels), or a torch Dataset or DataLoader "
            "that yields pairs."
        )
    items = data if hasattr(data, "__iter__") else (data[number] for number in range(len(data)))
    inputs: list[npt.NDArray[Any]] = []
    labels: list[npt.NDArray[Any]] = []
    count = 0
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(f"data is refused: it yields {type(item).__name__}, and not pairs (x, label).")
        x, y = as_array(item[0], "x"), as_array(item[1], "labels")
        # A data set yields single inputs with plain labels, a loader batches.
        inputs.append(x[None] if y.ndim == 0 else x)
        labels.append(np.atleast_1d(y))
        count += len(inputs[-1])
        if images is not None and count >= images:
            break
    if not inputs:
        raise UserError("data is refused: it is empty; pass at least one input with its label.")
    if len({x.shape[1:] for x in inputs}) > 1:
        raise UserError("data is refused: its inputs have different shapes; resize them to one.")
    return np.concatenate(inputs), np.concatenate(labels)
