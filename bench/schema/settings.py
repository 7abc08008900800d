"""Reads a verifier's settings as options give them: ``key=value``, values as suites write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunecert.errors import UserError
from prunecert.printable import shortened


def settings_for(names: Sequence[str], items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads ``key=value`` (for every verifier) and ``verifier.key=value``.

    Args:
        names: The verifiers that are asked.
        items: What stands on the command line.

    Returns:
        Settings by verifier; see `bench.schema.yamlfile.load_scalar` for their values.

    Raises:
        UserError: An item has another form, or names a verifier that isn't asked.
    """
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    if not items:
        return settings
    # Mostly there are none, and a command that answers one question is waited for.
    from prunecert.bench.schema.yamlfile import load_scalar

    for item in items:
        shown = shortened(repr(item), 100)
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"--settings {shown} is refused; allowed is key=value or verifier.key=value.")
        owner, dot, rest = key.partition(".")
        if dot and owner not in names:
            raise UserError(
                f"--settings {shown} names the verifier {shortened(repr(owner), 60)}; this run has {', '.join(names)}."
            )
        try:
            value = load_scalar(text)
        except UserError:
            raise UserError(
                f"--settings {shown} is refused; the value must be a number, a word, true or false, or a list of such."
            ) from None
        for name in [owner] if dot else names:
            settings[name][rest if dot else key] = value
    return settings
