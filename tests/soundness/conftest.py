from __future__ import annotations

from pathlib import Path

import pytest

from tests.soundness.questions import Question, all_questions


@pytest.fixture(scope="session")
def questions() -> tuple[Question, ...]:
    return all_questions()


@pytest.fixture(scope="session")
def networks(questions: tuple[Question, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ONNX file of each network."""
    folder = tmp_path_factory.mktemp("networks")
    nets = {question.net.name: question.net for question in questions}
    return {name: net.save(folder / f"{name}.onnx") for name, net in nets.items()}
