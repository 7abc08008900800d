"""The one class of errors that a user can cause and mend, and how a command ends when something goes wrong."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from prunecert.printable import shortened

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_OK = 0
EXIT_REGRESSION = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
#: Set to 1 to see the traceback of what ends a command.
DEBUG = "PRUNECERT_DEBUG"
_INTERRUPTED = "interrupted: finished results are kept; run the same command again to go on."
_LONGEST_NAME = 200
# A screen of names helps nobody: the cells of a suite are hundreds.
_LONGEST_LISTING = 800
_MANY = 8
#: A list of all cells of a suite fits in; a value of a foreign file that somebody repeats may not.
_LONGEST_SENTENCE = 8_000
_REMEDIES = {
    errno.EACCES: "this user may not do that; change its rights or name another place",
    errno.EPERM: "this user may not do that; change its rights or name another place",
    errno.EROFS: "the file system is read-only; name a place that can be written",
    errno.ENAMETOOLONG: "the name is longer than the file system takes; use a shorter one",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of the path is a file; name a folder",
    errno.ENOENT: "there is no such file or folder; check its spelling",
    errno.EEXIST: "it exists already; remove it or choose another name",
    errno.ENOTEMPTY: "the folder isn't empty; choose another one",
    errno.ELOOP: "its symbolic links lead in a circle; mend them",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open; try again later",
    errno.ENOMEM: "the memory doesn't suffice; use a machine with more",
    errno.EINVAL: "the system refuses that name or operation; name another place",
}


class UserError(Exception):
    """Bad input: what was given, why it is refused, what is allowed, in one sentence.

    Every command prints the message without a traceback and exits with `EXIT_USAGE`.

    Args:
        sentence: The message, on one line; line breaks of foreign text in it are shown as text.
        details: Further lines below it, e.g. one a problem.

    >>> error = UserError("The suite has two mistakes:", ["line 3: no such network", "line 9: a radius below 0"])
    >>> print(error)
    The suite has two mistakes:
      line 3: no such network
      line 9: a radius below 0
    """

    def __init__(self, sentence: str, details: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([sentence, *details]))
        self.sentence = sentence
        self.details = tuple(details)

    def __reduce__(self) -> tuple[type[UserError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.sentence, self.details)


def did_you_mean(kind: str, name: str, available: Iterable[str]) -> str:
    """Words the refusal of an unknown name.

    Args:
        kind: What the name stands for, e.g. ``"network"``, or ``"profile of suite 'tiny'"``.
        name: The name that is not known.
        available: The names that are.

    Returns:
        One sentence with the nearest known name, if one is near, and all known names; of very many, the nearest ones.

    >>> did_you_mean("pruner", "hydr", ["lwm", "hydra"])
    "Unknown pruner 'hydr'. Did you mean 'hydra'? Available: hydra, lwm."
    >>> did_you_mean("profile of suite 'tiny'", "none", ["default"])
    "Unknown profile 'none' of suite 'tiny'. Available: default."
    """
    # Every process imports this module, and hardly one needs that.
    import difflib

    names = sorted(available)
    # Names of foreign files may be as long as their author likes; none of ours is.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(names) or "none"
    if len(listing) > _LONGEST_LISTING:
        nearest = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=_MANY, cutoff=0.0)
        listing = f"{', '.join(sorted(nearest))} and {len(names) - len(nearest)} others"
    noun, of, owner = kind.partition(" of ")
    return f"Unknown {noun} {shortened(repr(name))}{of}{owner}.{hint} Available: {listing}."


def describe_os_error(error: OSError) -> str:
    """Returns one sentence on what the operating system refused: the path, why, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = shortened(error.filename) if error.filename is not None else "a file"
        return (
            f"the disk is full (writing {what}); finished results are kept: free some room and run the same command "
            "again."
        )
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = " and ".join(shortened(name) for name in names) or "a file"
    remedy = _REMEDIES.get(error.errno or 0)
    why = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{where} can't be used ({shortened(why)})" + (f": {remedy}." if remedy else "; check it and try again.")


def describe(error: Exception) -> tuple[str, Sequence[str]]:
    """Returns the one sentence that a command ends with, and the lines below it."""
    if isinstance(error, UserError):
        return shortened(error.sentence, _LONGEST_SENTENCE), [shortened(line, 1_000) for line in error.details]
    if isinstance(error, OSError) and (error.errno is not None or error.filename is not None):
        return describe_os_error(error), ()
    if isinstance(error, MemoryError):
        return "the memory doesn't suffice; finished results are kept: use a machine with more, or smaller input.", ()
    if isinstance(error, RecursionError):
        return "the input is nested too deeply to be read; write it with fewer levels.", ()
    lines = str(error).strip().splitlines()
    return (
        f"this input broke the program ({type(error).__name__}: {shortened(lines[0] if lines else 'no more is said')})"
        f"; finished results are kept. Please report it with what {DEBUG}=1 before the same command shows.",
        (),
    )


class _LastingOutput(io.RawIOBase):
    """A standard output that outlives its reader: what nobody reads any more goes nowhere."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._number, data)
        except OSError as error:
            # After a full disk, too: what is left in the buffer must not fail again when the process ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._number)
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Lets the process go on when the reader of its output goes (``| head``), so that its exit code stays true.

    A command must neither stop amid its work, nor call a half-done work a success. Text that the output's encoding
    lacks is shown as escapes.
    """
    old = sys.__stdout__
    if old is None or sys.stdout is not old:
        # There is none, or somebody catches what is printed.
        return
    old.flush()
    raw = _LastingOutput(old.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=old.encoding, errors="backslashreplace", line_buffering=old.line_buffering
    )


def ending_at_once(main: Callable[[], int]) -> int:
    """Runs a command's `main` and, on Ctrl-C, ends the process at once: taking torch down in good order takes seconds.

    It is for commands that leave nothing to be put in order: their log is closed and their processes are gone.
    """
    try:
        return main()
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _ended_by_options(error: SystemExit) -> bool:
    """Whether the command line's reader has ended the program: --help, --version, or what it refuses."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == "argparse"


def run_main(main: Callable[[], int]) -> None:
    """Runs a command's `main` and ends the process as the exit-code contract says.

    Whatever stops it becomes one sentence on stderr and exit 2: an uncaught exception would end with 1, which means a
    regression. Ctrl-C becomes exit 130. The environment variable `DEBUG` shows the traceback.
    """
    outlive_readers()
    try:
        code = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as error:
        if _ended_by_options(error):
            raise
        # Foreign code that ends the program must not look like a pass, nor like a regression.
        print(f"error: code that isn't prunecert's ended the program (SystemExit {error.code!r:.80}).", file=sys.stderr)
        code = EXIT_USAGE
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        code = EXIT_INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG, "") not in ("", "0"):
            import traceback

            traceback.print_exc()
        sentence, details = describe(error)
        print("\n  ".join([f"error: {sentence}", *details]), file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)
