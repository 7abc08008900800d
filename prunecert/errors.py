"""The one class of errors that a user can cause and mend."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

EXIT_OK = 0
EXIT_REGRESSION = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Bad input: what was given, why it is refused, what is allowed, in one sentence.

    Every command prints the message without a traceback and exits with `EXIT_USAGE`.
    """


def did_you_mean(kind: str, given: str, available: Iterable[str]) -> str:
    """Words the refusal of an unknown name.

    Args:
        kind: What the name stands for, e.g. ``"network"``.
        given: The name that is not known.
        available: The names that are.

    Returns:
        One sentence with the nearest known name, if one is near, and all known names.
    """
    names = sorted(available)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {given!r}.{hint} Available: {', '.join(names) or 'none'}."


def run_main(main: Callable[[], int]) -> None:
    """Runs a command's `main` and ends the process as the exit-code contract says.

    `UserError` and a full disk become one line on stderr and exit 2; Ctrl-C becomes exit 130.
    """
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_USAGE
    except BrokenPipeError:
        # The reader of our output (`head`, say) has gone; nothing is left to be told to anybody.
        sys.stderr.close()
        code = EXIT_OK
    except OSError as error:
        import errno

        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: the disk is full (writing {error.filename or 'a file'}); finished results are kept: "
            "free some room and run the same command again.",
            file=sys.stderr,
        )
        code = EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted: finished results are kept; run the same command again to go on.", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)
