"""Certificates in a run: asked for by the suite, written down, summed up and shown apart from all that is verified."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prunecert.bench.gating.records import of_run
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.report import certificates_table, html
from prunecert.bench.report import table as verified_table
from prunecert.bench.results.summary import summarise as summarise_run
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import EXIT_OK, UserError
from prunecert.verifiers.certificate import certificate
from tests import inprocess
from tests.bench.certificatekit import NOISY, PROVED, suite_text
from tests.bench.conftest import SUITE, Zoo
from tests.bench.rowkit import documents


@pytest.fixture(scope="session")
def noisy(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """The zoo with a suite that asks for certificates, and with a network that was trained with noise, so its card."""
    from prunecert.models.checkpoint import load_model, save

    model, masks, card = load_model(zoo.checkpoints / f"{PROVED}.safetensors")
    own = card.to_json() | {"name": NOISY, "objective": "smoothing", "eps": "1/4"}
    keys = ("schema_version", "sparsity", "weights", "kept", "sparsity_by_layer", "mask_sha256", "sha256")
    save(zoo.checkpoints, model, masks, **{key: value for key, value in own.items() if key not in keys})
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "noisy.yaml").write_text(suite_text())
    return Zoo(zoo.checkpoints, zoo.data, folder / "noisy.yaml", folder / "exports")


@pytest.fixture(scope="session")
def finished(noisy: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import signal

    from prunecert.bench.run import main

    handler = signal.getsignal(signal.SIGTERM)
    out = tmp_path_factory.mktemp("run") / "out"
    try:
        with inprocess.verifiers():
            assert main(noisy.arguments(out, "--workers", "1")) == EXIT_OK
    finally:
        signal.signal(signal.SIGTERM, handler)
    return out


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    return documents(out, kind)


@pytest.mark.slow
def test_certificates_are_rows_of_their_own(finished: Path) -> None:
    certificates = rows(finished, "certificate")
    assert sorted((row["cell"], row["image"]) for row in certificates) == sorted(
        [(NOISY, i) for i in range(6)] + [(PROVED, i) for i in range(4)]
    )
    for row in certificates:
        assert row["status"] == "unknown"
        assert row["verifier"] == "smoothing"
        fields = row["certificate"]
        assert fields["sigma"] == (0.25 if row["cell"] == NOISY else 0.5)
        keys = ("n0", "n", "alpha", "sigma")
        assert fields == certificate(fields["predicted"], fields["count"], **{k: fields[k] for k in keys}).to_json()
    # Nobody's verdict is about the network that was trained with noise, and no verdict is smoothing's.
    verdicts = rows(finished, "verdict")
    assert {row["cell"] for row in verdicts} == {PROVED}
    assert "smoothing" not in {row["verifier"] for row in verdicts}


@pytest.mark.slow
def test_no_count_of_verified_images_has_them(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [cell["name"] for cell in summary["cells"]] == [PROVED]
    assert [cell["name"] for cell in summary["certificates"]] == [NOISY, PROVED]
    (cell,) = summary["cells"]
    assert "smoothing" not in cell["by_verifier"]
    assert "smoothing" not in cell["decided_by"]
    proved = {row["image"] for row in rows(finished, "verdict") if row["status"] == "unsat"}
    assert cell["verified"]["k"] == len(proved)
    assert summary["finished"]
    assert set(of_run(finished).cells) == {PROVED}
    assert NOISY not in "".join(map(str, verified_table.rows(summary)))


@pytest.mark.slow
def test_certificates_that_all_hold_verify_nothing(finished: Path, tmp_path: Path) -> None:
    """The same log with every certificate as good as can be gives the same verified accuracy, and so does the gate."""
    best = certificate(3, 60, n0=10, n=60, alpha=0.01, sigma=0.5).to_json()
    lines = []
    for line in (finished / "instances.main.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["type"] == "certificate":
            row["certificate"] = best | {"predicted": row["label"]}
        lines.append(json.dumps(row))
    (tmp_path / "instances.main.jsonl").write_text("\n".join(lines) + "\n")
    before, after = summarise_run(finished), summarise_run(tmp_path)
    assert after["cells"] == before["cells"]
    assert [cell["certified"][0]["value"] for cell in after["certificates"]] == [1.0, 1.0]
    assert of_run(tmp_path).cells["cnn-small_ibp_eps2_dense_x1_s0"] == of_run(finished).cells[PROVED]


@pytest.mark.slow
def test_the_gate_leaves_them_out(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from prunecert.bench.baseline import main as make_baseline
    from prunecert.bench.gate import main as gate

    baseline = tmp_path / "baseline.json"
    assert make_baseline(["--run", str(finished), "--out", str(baseline), "--reason", "a first one"]) == EXIT_OK
    assert NOISY not in baseline.read_text()
    assert '"certificate"' not in baseline.read_text()
    # The same run, in which no certificate holds any more.
    rows = [json.loads(line) for line in (finished / "instances.main.jsonl").read_text().splitlines()]
    worse = tmp_path / "worse"
    worse.mkdir()
    none = certificate(3, 0, n0=10, n=60, alpha=0.01, sigma=0.5).to_json()
    lines = [json.dumps(row | ({"certificate": none} if row["type"] == "certificate" else {})) for row in rows]
    (worse / "instances.main.jsonl").write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert gate(["--baseline", str(baseline), "--run", str(worse)]) == EXIT_OK
    assert NOISY not in capsys.readouterr().out


@pytest.mark.slow
def test_the_leaderboard_leaves_them_out(finished: Path, noisy: Zoo, tmp_path: Path, run_noisy: Callable[..., int],
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    offered: list[list[str]] = []

    def submit(out: Path, plans: list[CellPlan], *_: object, **__: object) -> list[Path]:
        offered.append([plan.name for plan in plans])
        return []

    monkeypatch.setattr("prunecert.bench.run.submit", submit)
    assert run_noisy(finished, "--submit") == EXIT_OK
    assert offered == [[PROVED]]


@pytest.mark.slow
def test_a_finished_run_asks_nothing_again(finished: Path, run_noisy: Callable[..., int]) -> None:
    before = len(rows(finished, "certificate"))
    assert run_noisy(finished, "--retry", "unknown") == EXIT_OK
    assert len(rows(finished, "certificate")) == before
    # More images are certified as far as they are new, and those there count.
    assert run_noisy(finished, "--images", "7") == EXIT_OK
    assert len(rows(finished, "certificate")) == before + 1 + 3
    assert run_noisy(finished) == EXIT_OK


@pytest.mark.slow
def test_they_can_be_asked_for_alone_or_left_out(noisy: Zoo, tmp_path: Path, run_noisy: Callable[..., int],
                                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert run_noisy(tmp_path, "--verifiers", "smoothing", "--dry-run") == EXIT_OK
    printed = capsys.readouterr().out
    assert f"{NOISY}: 6 images certified by randomized smoothing, sigma 0.25, 10 + 60 samples" in printed
    assert f"WARNING: {PROVED} is certified with sigma 0.5, but trained without noise" in printed
    assert "fake-bound" not in printed
    assert run_noisy(tmp_path, "--verifiers", "fake-bound", "--dry-run") == EXIT_OK
    printed = capsys.readouterr().out
    assert "certified" not in printed
    assert NOISY not in printed
    assert "certificates are left out: --verifiers doesn't name smoothing" in printed
    from prunecert.bench.planning.select import choose

    (tmp_path / "plain.yaml").write_text(SUITE)
    plain = load_suite(str(tmp_path / "plain.yaml"))
    with pytest.raises(UserError, match="certifies none of these cells"):
        choose(plain, None, "smoothing", None)


@pytest.fixture
def run_noisy(noisy: Zoo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    import signal

    from prunecert.bench.run import main

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda out, *more: main(noisy.arguments(out, "--workers", "1", *more))


@pytest.mark.slow
def test_report_and_table_have_a_section_of_their_own(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count(f"<h2>{certificates_table.CAPTION}</h2>") == 1
    results, section = page.split(f"<h2>{certificates_table.CAPTION}</h2>")
    assert "smoothing" not in results.split("<h2>Results</h2>")[1].split("<figure>")[0]
    assert "r = 0.25" in section
    assert "Each holds with probability 1 − α" in section
    assert "trained without noise" in section
    text = (finished / "table.md").read_text()
    first, second = text.split(f"## {certificates_table.CAPTION}")
    assert NOISY.split("_")[1] not in first.split("\n\n")[0]
    assert "| cnn-small | smoothing | 0.25 | dense | 0 | 1 |" in second
    assert {path.name for path in (finished / "figures").iterdir()} >= {"certified-radius.svg", "certified-radius.png"}
    # The session's cells say what was asked for.
    session = rows(finished, "session")[0]
    requests = {cell["name"]: cell["certify"] for cell in session["cells"]}
    assert requests[NOISY]["trained_sigma"] == 0.25
    assert requests[PROVED]["trained_sigma"] is None


@pytest.mark.slow
def test_a_network_with_noise_is_not_shrunk_to_pixels(finished: Path) -> None:
    """Units that do nothing for pixels in [0, 1] may do something beyond: certificates are about the masked network."""
    session = rows(finished, "session")[0]
    for cell in session["cells"]:
        assert cell["certify"]["onnx_sha256"] == cell["masked_sha256"]


@pytest.mark.slow
def test_an_export_has_no_property_for_a_network_with_noise(
    noisy: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prunecert.bench.export import main

    paths = ["--suite", str(noisy.suite), "--checkpoints", str(noisy.checkpoints), "--data-root", str(noisy.data)]
    assert main([*paths, "--out", str(tmp_path), "--images", "3"]) == EXIT_OK
    assert "no property to be verified" in capsys.readouterr().out
    lines = (tmp_path / "instances.csv").read_text().splitlines()
    assert len(lines) == 3
    assert all(PROVED in line for line in lines)
    assert (tmp_path / "onnx" / f"{NOISY}.onnx").is_file()


@pytest.mark.slow
def test_only_certificates_make_a_report(finished: Path) -> None:
    summary = summarise_run(finished)
    summary["cells"] = []
    page = html.render(summary)
    assert "<h2>Results</h2>" not in page
    assert certificates_table.TITLE in page
    console = Console(record=True, width=200, file=io.StringIO())
    verified_table.show(summary, console)
    assert "unsmoothed %" in console.export_text()
    assert "verified by" not in verified_table.markdown(summary)
