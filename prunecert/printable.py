"""Foreign text, made fit for a terminal and for one line of a message."""

from __future__ import annotations

_LONGEST = 200


def printable(text: object) -> str:
    r"""Returns foreign text as it may be shown: on one line, control characters as text (``\x1b``, ``\n``).

    Escape sequences would command a terminal, a line break followed by ``::error::`` a CI service, marks that change
    the direction of writing the reader; halves of surrogate pairs could not be printed at all.

    Args:
        text: Anything that may come from a file, a file name or another program.

    >>> print(printable("net\x1b[31m\n::error::ε"))
    net\x1b[31m\n::error::ε
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def shortened(text: object, most: int = _LONGEST) -> str:
    """Returns `printable` text, its middle left out where it is longer than `most` characters."""
    shown = str(text)
    if len(shown) > most:
        # Cut before it is looked at letter by letter: a field may have a million of them.
        shown = f"{shown[: most // 2]}… ({len(shown):,} characters) …{shown[-most // 4 :]}"
    return printable(shown)


def article(noun: str) -> str:
    """Returns a noun with its article, by the sound of its first letter.

    >>> article("ONNX"), article("VNN-LIB")
    ('an ONNX', 'a VNN-LIB')
    """
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def say(text: object = "") -> None:
    """Prints a line that may hold foreign text, at once.

    Its reader may go (``| head``): `prunecert.errors.run_main` lets every command outlive it.
    """
    print(printable(text), flush=True)


def plural(number: int, word: str) -> str:
    """Returns a number with a noun.

    >>> plural(1, "image"), plural(2, "image"), plural(2, "property")
    ('1 image', '2 images', '2 properties')
    """
    if number == 1:
        return f"{number} {word}"
    return f"{number} {word[:-1]}ies" if word.endswith("ty") else f"{number} {word}s"
