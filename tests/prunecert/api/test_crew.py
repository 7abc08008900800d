from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunecert
from prunecert.api.crew import SHELF, Crew, Shelf
from prunecert.errors import UserError
from prunecert.verifiers.base import Status
from tests.verifiers import onnxnets


@pytest.fixture(name="own")
def _own() -> Iterator[Crew]:
    own = Crew()
    yield own
    own.close()


@pytest.fixture(name="shelf")
def _shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.clear()


@pytest.mark.slow
def test_one_process_serves_all_threads_and_another_one_follows_a_closed_one(own: Crew, tmp_path: Path) -> None:
    question = onnxnets.instance(onnxnets.linear(tmp_path / "net.onnx"), 1e-4)
    statuses: list[Status] = []
    pids: set[int | None] = set()

    def ask() -> None:
        for _ in range(3):
            (verdict,) = own.ask("sparse-ibp", [question], settings=None, device="cpu")
            statuses.append(verdict.status)
            pids.add(own._worker("sparse-ibp", None, "cpu").pid)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [Status.UNSAT] * 12
    assert len(pids) == 1
    own.close()
    ask()
    assert len(pids) == 2


def test_unknown_settings_are_refused(own: Crew) -> None:
    with pytest.raises(UserError, match="steeps"):
        own.ask("pgd", [], settings={"steeps": 3}, device="cpu")


@pytest.mark.slow
def test_a_program_without_a_main_guard_ends_with_its_processes(tmp_path: Path) -> None:
    """Also one that comes from standard input, as a notebook's cells do."""
    path = onnxnets.linear(tmp_path / "net.onnx")
    program = (
        "import prunecert, numpy as np, os\n"
        f"v = prunecert.verify({str(path)!r}, np.full((3, 2, 2), 0.5), eps=1e-4, verifiers='sparse-ibp')\n"
        "from prunecert.api.crew import CREW, NETWORKS\n"
        "print(v.status, CREW._worker('sparse-ibp', None, 'cpu').pid, NETWORKS.folder())\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-"], input=program, cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(prunecert.__file__).parents[1])},
    )  # fmt: skip
    status, pid, folder = run.stdout.split()
    assert (status, run.stderr) == ("unsat", "")
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_network_keeps_its_place_until_many_others_were_used(shelf: Shelf) -> None:
    def put(text: str) -> Path:
        scratch = shelf.folder() / "scratch.onnx"
        scratch.write_text(text)
        with shelf.holding(scratch, f"{text:0>64}"[::-1]) as path:
            assert path.read_text() == text
            return path

    first = put("a")
    scratch = shelf.folder() / "scratch.onnx"
    scratch.write_text("held")
    with shelf.holding(scratch, "held" * 16) as held:
        assert put("a") == first
        others = [put(chr(ord("b") + number)) for number in range(SHELF)]
        assert held.exists()
        assert not first.exists()
        assert all(other.exists() for other in others)
    assert len(list(shelf.folder().iterdir())) == SHELF
    folder = shelf.folder()
    shelf.clear()
    assert not folder.exists()


def test_a_forked_child_leaves_the_parents_network_and_processes_alone(shelf: Shelf, own: Crew) -> None:
    folder = shelf.folder()
    worker = own._worker("pgd", None, "cpu")
    shelf.leave_behind()
    own.leave_behind()
    assert shelf.folder() != folder
    assert folder.is_dir()
    assert own._worker("pgd", None, "cpu") is not worker
    assert not worker.closed()
    folder.rmdir()
