"""What a number may be: one lower and one upper limit, each with or without itself, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NumberRange:
    """The values that a number may have.

    >>> share = NumberRange(at_least=0, at_most=1)
    >>> str(share), share.hold(1), share.hold(1.5), share.hold(float("nan"))
    ('from 0 to 1', True, False, False)
    >>> str(NumberRange(above=0)), str(NumberRange(at_least=1)), str(NumberRange(above=0, below=1)), str(NumberRange())
    ('above 0', '1 or more', 'within (0, 1)', '')

    Args:
        at_least: Least value allowed; None: there is none.
        above: What a value must be above.
        at_most: Largest value allowed.
        below: What a value must be below.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if None not in (self.at_least, self.above) or None not in (self.at_most, self.below):
            raise TypeError(f"There is one lower and one upper limit at most: {self!r}.")

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return any(limit is not None for limit in (self.at_least, self.above, self.at_most, self.below))

    def __str__(self) -> str:
        """Returns what is allowed, e.g. ``"1 or more"``; nothing: everything."""
        if self.above is not None and self.below is not None:
            return f"within ({show_number(self.above)}, {show_number(self.below)})"
        if self.at_least is not None:
            most = f"to {show_number(self.at_most)}" if self.at_most is not None else ""
            most = f"to below {show_number(self.below)}" if self.below is not None else most
            return f"from {show_number(self.at_least)} {most}" if most else f"{show_number(self.at_least)} or more"
        low = "" if self.above is None else f"above {show_number(self.above)}"
        high = "" if self.at_most is None else f"at most {show_number(self.at_most)}"
        high = high if self.below is None else f"below {show_number(self.below)}"
        return " and ".join(filter(None, (low, high)))

    def hold(self, value: float) -> bool:
        """Whether a value keeps them, which what is not a number never does where there are any."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def show_number(value: float) -> str:
    """Returns a number for people.

    >>> show_number(20_000), show_number(0.5), show_number(1e-7)
    ('20,000', '0.5', '1e-7')
    """
    # 1e-7, not 1e-07.
    return f"{value:,}" if isinstance(value, int) else f"{value:g}".replace("e-0", "e-")
