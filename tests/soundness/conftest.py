from __future__ import annotations

import fcntl
import os
import pickle
from pathlib import Path

import pytest

from tests.soundness.questions import Question, all_questions


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Question, ...]:
    """All questions; of the processes of one run, one asks the oracle, and the others wait and read what it said."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return all_questions()
    shared = tmp_path_factory.getbasetemp().parent / "questions.pickle"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            shared.write_bytes(pickle.dumps(all_questions()))
    answered: tuple[Question, ...] = pickle.loads(shared.read_bytes())
    return answered


@pytest.fixture(scope="session")
def networks(questions: tuple[Question, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ONNX file of each network."""
    folder = tmp_path_factory.mktemp("networks")
    nets = {question.net.name: question.net for question in questions}
    return {name: net.save(folder / f"{name}.onnx") for name, net in nets.items()}
