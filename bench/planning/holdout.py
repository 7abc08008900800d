"""What held-out images may not be asked about: networks that were trained on them, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prunecert.bench.planning.exports import Export
from prunecert.errors import UserError


def refuse_contaminated(
    networks: Iterable[tuple[str, str, Export]], tell: Callable[[str], None] = lambda _line: None
) -> None:
    """Refuses networks on images that they were trained on as if these had been held out.

    Args:
        networks: Each with its name, the split that it is asked about, and its export.
        tell: Takes a line about those of which it isn't known whether they were.

    Raises:
        UserError: Some were.
    """
    measured = [(name, export) for name, split, export in networks if split == "val"]
    trained = [name for name, export in measured if export.saw_held_out]
    if trained:
        raise UserError(
            f"{', '.join(trained)}: trained on the held-out images, too, which say nothing of such a network; allowed "
            "are other images, such as those of a test profile, and --cells without it."
        )
    for name in [name for name, export in measured if export.foreign]:
        tell(f"{name}: whoever trained it, or its parent, may have trained on the held-out images.")
