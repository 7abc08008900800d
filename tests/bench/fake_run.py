"""`bench.run` with the fake verifiers registered and no figures drawn, for tests that need it in a process of its own."""

from __future__ import annotations

from prunecert.bench.run import command
from prunecert.errors import run_main
from tests.bench.conftest import register, undrawn

if __name__ == "__main__":
    register()
    with undrawn():
        run_main(command)
