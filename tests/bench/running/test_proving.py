from __future__ import annotations

from tests.bench.conftest import Zoo
from pathlib import Path
from tests.bench import proofkit
from tests.bench.rowkit import documents


def test_x(zoo: Zoo, tmp_path: Path) -> None:
    from prunecert.bench.run import main

    out = tmp_path / "run"
    print(main(proofkit.arguments(zoo, out)))
    for row in documents(out):
        if row["type"] in ("verdict", "proof", "image"): print({k: v for k, v in row.items() if k not in ("bounds",)})
    from prunecert.bench.certificate import main as certificate
    suite = str(zoo.data / "proved.yaml")
    print(certificate(["check", "--run", str(out), "--exports", str(zoo.exports), "--suite", suite, "--data-root", str(zoo.data)]))
    assert 0
