"""Guarantees followed from a dense network into pruned ones, on a run whose networks are tiny."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.bench.planning.exports import Export
from prunecert.bench.report.retention import Retained, Way
from prunecert.bench.running import retention as module
from prunecert.bench.running.margin_transfer import Transfer
from prunecert.bench.running.retention import Retention, retention
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.onnx.io import identity
from tests.bench.rowkit import complete
from tests.soundness.networks import Network
from tests.soundness.pairs import twin
from tests.soundness.questions import FAMILIES
from tests.soundness.test_quantised import fixed
from tests.verifiers.sparse.quantised.networks import network, run, unrounded

EPS = 0.02
NAMES = {"dense": "t_dense_x1", "light": "t_lwm_x2", "heavy": "t_lwm_x100"}


@dataclass
class Zoo:
    """A dense network, a lightly and a heavily pruned one, and their files and rows."""

    folder: Path
    nets: dict[str, Network]
    data: Dataset
    rows: list[dict[str, Any]]

    def ask(self, **chosen: Any) -> Retention:
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        (run / "instances.main.jsonl").write_text("".join(json.dumps(complete(row)) + "\n" for row in self.rows))
        return retention(run, self.folder, self.folder, None, lambda text: self.lines.append(text), **chosen)

    def __post_init__(self) -> None:
        self.lines: list[str] = []


@pytest.fixture(name="zoo")
def _zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    rng = np.random.default_rng(5)
    dense = FAMILIES["conv"]("dense", rng).balance(rng)
    nets = {"dense": dense, "light": twin(dense, rng, 0.1, 0.01), "heavy": twin(dense, rng, 0.7, 0.3)}
    images = rng.random((12, 1, 4, 4)).astype(np.float32)
    labels = np.array([int(output.argmax()) for output in dense.evaluate(images.reshape(12, -1))])
    data = Dataset(images, labels, np.arange(12), "test", "f" * 64, True, False, "made up", classes=4)
    for name, net in nets.items():
        net.save(tmp_path / f"{NAMES[name]}.onnx")

    def export_cell(checkpoint: Path, _folder: Path) -> Export:
        onnx = checkpoint.with_suffix(".onnx")
        return Export(onnx, identity(onnx), 0.0, 1.0, "b" * 64, {})

    monkeypatch.setattr(module, "export_cell", export_cell)
    monkeypatch.setattr(module, "load_suite", lambda _name: SimpleNamespace(data=None))
    monkeypatch.setattr(module, "load_split", lambda *_: data)
    cells = [
        {
            "name": NAMES[name], "network": "t", "eps": str(EPS), "pruner": "dense" if name == "dense" else "lwm",
            "compression": ratio, "images": 12, "image_key": name, "stages": [{"verifier": "sparse-bab", "key": name}],
        }
        for name, ratio in (("heavy", 100.0), ("dense", 1.0), ("light", 2.0))
    ]  # fmt: skip
    rows: list[dict[str, Any]] = [{"type": "session", "cells": cells}]
    for image in range(12):
        for name in nets:
            # The dense network's images are proved, all but the last.
            status = "unsat" if name == "dense" and image < 11 else "unknown"
            rows.append({"type": "verdict", "key": name, "cell": NAMES[name], "image": image, "status": status})
    return Zoo(tmp_path, nets, data, rows)


def of(result: Retention, name: str) -> Retained:
    return next(network for network in result.networks if network.name == NAMES[name])


def answer(zoo: Zoo, name: str, image: int, **fields: Any) -> None:
    row = next(r for r in zoo.rows if r["type"] == "verdict" and r["key"] == name and r["image"] == image)
    row.update(fields)


def test_margins_carry_over_where_little_was_pruned(zoo: Zoo) -> None:
    result = zoo.ask()
    light, heavy = of(result, "light"), of(result, "heavy")
    assert [network.compression for network in result.networks] == [2.0, 100.0]
    assert light.dense == NAMES["dense"]
    assert [fate.image for fate in light.fates] == list(range(11))
    assert light.kept > heavy.kept
    assert light.kept >= 5
    assert {fate.way for fate in light.fates} <= {Way.TRANSFER, Way.OPEN}
    assert all(fate.transfer_s > 0 for fate in light.fates)
    # What carried over holds at sampled points.
    rng = np.random.default_rng(0)
    for fate in light.fates:
        if fate.way is Way.TRANSFER:
            image = zoo.data.images[fate.image].reshape(-1)
            points = np.clip(image + EPS * rng.choice([-1, 1], (500, 16)), 0, 1)
            assert (zoo.nets["light"].evaluate(points).argmax(axis=1) == fate.label).all()


def test_networks_are_chosen_by_name_and_ratio(zoo: Zoo) -> None:
    names = {key: NAMES[key] for key in ("light", "heavy")}
    for chosen, left in (
        ({"compressions": {2.0}}, [names["light"]]),
        ({"cells": "*_x100"}, [names["heavy"]]),
        ({"compressions": {2.0, 100.0}, "cells": "t_lwm_*"}, [names["light"], names["heavy"]]),
    ):
        assert [one.name for one in zoo.ask(**chosen).networks] == left
    with pytest.raises(UserError, match=r"Compression 5 is refused: .* has 2, 100 with a dense network beside it"):
        zoo.ask(compressions={5.0})
    with pytest.raises(UserError, match="--cells: Unknown cell"):
        zoo.ask(cells="t_hydra*")
    with pytest.raises(UserError, match="no network that both --cells and --compression choose"):
        zoo.ask(compressions={2.0}, cells="*_x100")


def test_else_the_run_says_how_it_was_proved_or_lost(zoo: Zoo) -> None:
    lost = [fate.image for fate in of(zoo.ask(), "heavy").fates if not fate.kept]
    searched, rooted, broken, wrong, *_ = lost
    times = {"start_s": 0.0, "load_s": 0.5, "bound_s": 1.0, "search_s": 1.0, "wall_s": 3.0}
    answer(zoo, "heavy", searched, status="unsat", stage="bab", times=times)
    answer(zoo, "heavy", rooted, status="unsat", stage="incomplete")
    answer(zoo, "heavy", broken, status="sat")
    zoo.rows.append({"type": "image", "key": "heavy", "cell": NAMES["heavy"], "image": wrong, "correct": False})
    result = zoo.ask()
    ways = {fate.image: fate for fate in of(result, "heavy").fates}
    expected = {searched: Way.SEARCH, rooted: Way.ROOT, broken: Way.BROKEN, wrong: Way.MISCLASSIFIED}
    assert {image: ways[image].way for image in expected} == expected
    assert ways[searched].anew_s == 2.5
    assert not result.contradictions


def test_a_proof_that_carries_over_to_a_broken_network_is_a_contradiction(zoo: Zoo) -> None:
    carried = next(fate.image for fate in of(zoo.ask(), "light").fates if fate.way is Way.TRANSFER)
    answer(zoo, "light", carried, status="sat")
    (sentence,) = zoo.ask().contradictions
    assert sentence.startswith(f"CONTRADICTION: {NAMES['light']}, image {carried}: broken by sparse-bab")


@pytest.mark.parametrize("bounds", [(1e9, np.nan), (np.nan, 1e9)])
def test_a_margin_that_is_not_a_number_carries_nothing(
    bounds: tuple[float, ...], zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(fate.way is Way.TRANSFER for fate in of(zoo.ask(), "light").fates)
    rest = FAMILIES["conv-pruned-70"]("light", np.random.default_rng(0)).classes - 3
    monkeypatch.setattr(Transfer, "bounds", lambda *_: (*bounds, *[1e9] * rest))
    assert not any(fate.way is Way.TRANSFER for fate in of(zoo.ask(), "light").fates)


def test_a_network_of_another_shape_is_said_and_left_to_the_run(zoo: Zoo) -> None:
    other = FAMILIES["conv-pruned-70"]("other", np.random.default_rng(0))
    other.save(zoo.folder / f"{NAMES['heavy']}.onnx")
    heavy = of(zoo.ask(), "heavy")
    assert heavy.kept == 0
    assert any("no margin carries over" in line for line in zoo.lines)


def _no_dense(zoo: Zoo) -> None:
    for cell in zoo.rows[0]["cells"]:
        cell["pruner"] = "lwm"


def _other_data(zoo: Zoo) -> None:
    for cell in zoo.rows[0]["cells"]:
        cell["data_fingerprint"] = "0" * 64


def _other_checkpoint(zoo: Zoo) -> None:
    for cell in zoo.rows[0]["cells"]:
        cell["checkpoint_sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_dense, "has no dense network together with pruned ones"),
        (_other_data, "was made with the data 000000000000"),
        (_other_checkpoint, "has the hash bbbbbbbbbbbb, and the run verified 000000000000"),
    ],
)
def test_runs_that_do_not_fit_are_refused(zoo: Zoo, change: Callable[[Zoo], None], reason: str) -> None:
    change(zoo)
    with pytest.raises(UserError, match=reason):
        zoo.ask()


@pytest.fixture(name="int8")
def _int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """A network in float32 whose images are proved, and its form that rounds, of which nothing is known."""
    rounding = fixed(network("signed", 2))
    plain = unrounded(rounding)
    files = {"t_lwm_x2": tmp_path / "t_lwm_x2.onnx", "t_lwm_x2_int8": tmp_path / "t_lwm_x2_int8.onnx"}
    for path, model in zip(files.values(), (plain, rounding), strict=True):
        onnx.save(model, path)
    images = (np.round(np.random.default_rng(3).random((8, 2, 4, 4)) * 255) / 255).astype(np.float32)
    labels = np.array([int(run(plain, image[None]).argmax()) for image in images])
    data = Dataset(images, labels, np.arange(8), "test", "f" * 64, True, False, "made up", classes=3)

    def export_of(path: Path) -> Export:
        return Export(path, identity(path), 0.0, 1.0, "b" * 64, {})

    monkeypatch.setattr(module, "export_cell", lambda *_: export_of(files["t_lwm_x2"]))
    monkeypatch.setattr(module, "int8_export", lambda *_: export_of(files["t_lwm_x2_int8"]))
    monkeypatch.setattr(module, "load_suite", lambda _name: SimpleNamespace(data=None))
    monkeypatch.setattr(module, "load_split", lambda *_: data)
    cells = [
        {
            "name": name, "network": "t int8" if "int8" in name else "t", "eps": "0.01", "pruner": "lwm",
            "compression": 2.0, "images": 8, "image_key": name, "stages": [{"verifier": "sparse-ibp", "key": name}],
            "onnx_sha256": identity(path), **({"int8": True} if "int8" in name else {}),
        }
        for name, path in files.items()
    ]  # fmt: skip
    rows: list[dict[str, Any]] = [{"type": "session", "cells": cells}]
    for name in files:
        status = "unknown" if "int8" in name else "unsat"
        rows += [{"type": "verdict", "key": name, "cell": name, "image": k, "status": status} for k in range(8)]
    return Zoo(tmp_path, {}, data, rows)


def test_an_int8_network_is_followed_from_its_own_network(int8: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept,) = int8.ask().networks
    assert (kept.name, kept.dense, kept.form) == ("t_lwm_x2_int8", "t_lwm_x2", "int8")
    assert len(kept.fates) == 8
    carried = [fate for fate in kept.fates if fate.way is Way.TRANSFER]
    assert carried
    rounding, rng = onnx.load(int8.folder / "t_lwm_x2_int8.onnx"), np.random.default_rng(0)
    for fate in carried:
        image = int8.data.images[fate.image]
        for _ in range(30):
            point = np.clip(image + np.float32(0.01) * rng.choice([-1, 1], image.shape), 0, 1).astype(np.float32)
            assert run(rounding, point[None]).argmax() == fate.label
    row = next(r for r in int8.rows if r.get("image") == 3 and r["cell"] == "t_lwm_x2_int8")
    row.update(status="unsat", stage="incomplete")
    monkeypatch.setattr(Transfer, "bounds", lambda *_: (-1.0, 1.0))
    (again,) = int8.ask().networks
    assert [fate.way for fate in again.fates] == [Way.INTERVALS if k == 3 else Way.OPEN for k in range(8)]


def test_an_int8_network_that_is_made_otherwise_here_is_refused(int8: Zoo) -> None:
    int8.rows[0]["cells"][1]["onnx_sha256"] = "0" * 64
    with pytest.raises(UserError, match=r"becomes a file of the hash .* and the run verified 000000000000; use the"):
        int8.ask()


def test_the_command_exits_with_1_after_a_contradiction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for contradictions, code in (((), 0), (("CONTRADICTION: so",), 1)):
        result = Retention((), (), contradictions)
        monkeypatch.setattr(module, "retention", lambda *_, result=result, **__: result)
        assert module.tell(Path("run")) == code
    assert "CONTRADICTION: so" in capsys.readouterr().out
