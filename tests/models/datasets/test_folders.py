from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.models.datasets.folders import read_image
from prunecert.models.datasets.source import load_split, source_of


def save(path: Path, value: int, size: tuple[int, int] = (8, 6), kind: str = "") -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path, format=kind or None)


def folder(place: Path) -> Path:
    for part in ("train", "test"):
        for number, name in enumerate(("bird", "cat")):
            for image in range(12):
                save(place / "own" / part / name / f"{image}.png", 100 * number, (8, 6 + image % 2))
    return place


ENTRY = {"name": "own", "shape": [3, 8, 6], "classes": 2, "reader": "folder"}


def test_a_folder_a_class_is_read_and_resized(tmp_path: Path) -> None:
    source = source_of({**ENTRY, "options": {"path": "own", "size": [8, 6]}})
    data = load_split(source, "train", folder(tmp_path))
    assert data.images.shape == (22, 3, 8, 6)
    assert data.source == "the images in own"
    assert (data.images[data.labels == 1] == np.float32(100) / np.float32(255)).all()
    grey = source_of({**ENTRY, "shape": [1, 4, 4], "options": {"path": "own", "size": [4, 4], "grey": True}})
    assert load_split(grey, "test", tmp_path).images.shape == (24, 1, 4, 4)


def test_parts_with_other_classes_are_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    save(tmp_path / "own" / "test" / "dog" / "0.png", 3)
    source = source_of({**ENTRY, "options": {"path": "own", "size": [8, 6]}})
    with pytest.raises(UserError, match="other classes for training than for testing: dog"):
        load_split(source, "train", tmp_path)
    with pytest.raises(UserError, match="is no folder of images by class"):
        load_split(source, "train", tmp_path / "nowhere")
    with pytest.raises(UserError, match="height and width"):
        load_split(source_of({**ENTRY, "options": {"path": "own", "size": [8]}}), "train", tmp_path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"x\.png' is no image"):
        read_image(tmp_path / "x.png", (8, 6))


def test_tiny_imagenet_is_read_from_its_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINY_IMAGENET_ROOT", raising=False)
    tiny = tmp_path / "tiny-imagenet-200"
    names = [f"n{number:08}" for number in range(200)]
    for number, name in enumerate(names):
        save(tiny / "train" / name / "images" / f"{name}_0.JPEG", number, (64, 64), "JPEG")
    lines = []
    for number in (5, 199):
        save(tiny / "val" / "images" / f"val_{number}.JPEG", number, (64, 64), "JPEG")
        lines.append(f"val_{number}.JPEG\t{names[number]}\t0\t0\t63\t63")
    (tiny / "wnids.txt").write_text("\n".join(reversed(names)) + "\n")
    (tiny / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for root in (tmp_path, tiny):
        test = load_split(source_of("tiny-imagenet"), "test", root)
        assert test.labels.tolist() == [5, 199]
        assert test.images.shape == (2, 3, 64, 64)
        assert np.allclose(test.images[1], 199 / 255, atol=0.02)
    train = load_split(source_of("tiny-imagenet"), "train", tmp_path)
    assert train.labels.tolist() == list(range(200))
    (tiny / "val" / "images" / "val_5.JPEG").unlink()
    with pytest.raises(UserError, match="is not whole"):
        load_split(source_of("tiny-imagenet"), "test", tmp_path)
    with pytest.raises(UserError, match=r"isn't in .*; put the unpacked folder 'tiny-imagenet-200' there"):
        load_split(source_of("tiny-imagenet"), "test", tmp_path / "nowhere")
