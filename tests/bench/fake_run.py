"""`bench.run` with the fake verifiers and without drawing, for tests that need it in a process of its own."""

from __future__ import annotations

import signal

from prunecert.bench.run import command
from prunecert.errors import run_main
from tests.bench.conftest import register, without_drawing

if __name__ == "__main__":
    # Where the tests run in a shell's background, SIGINT is ignored from the start, and would be here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    register()
    with without_drawing():
        run_main(command)
