"""Checks one certificate from the command line: exit code 0 if it holds, 1 if not, 2 if a file can't be read."""

import sys
from pathlib import Path

from . import RefusedError, UnreadableError, check


def main(arguments: list[str]) -> int:
    """Checks ``FILE ONNX VNNLIB``, prints one line and returns the exit code."""
    if len(arguments) != 3:
        print("usage: python -m checker CERTIFICATE ONNX VNNLIB")
        return 2
    try:
        print(check(*map(Path, arguments)).describe())
    except (RefusedError, UnreadableError) as error:
        print(f"{'refused' if isinstance(error, RefusedError) else 'unreadable'}: {error}")
        return 1 if isinstance(error, RefusedError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
