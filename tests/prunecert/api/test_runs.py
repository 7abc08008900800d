from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import prunecert
from prunecert.errors import UserError
from tests.bench import conftest as bench

#: The made-up networks of the harness's own tests.
zoo = bench.zoo


@pytest.fixture(scope="module", name="finished")
def _finished(zoo: bench.Zoo, tmp_path_factory: pytest.TempPathFactory) -> prunecert.Run:
    bench.register()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        return prunecert.run_suite(
            zoo.suite,
            out=tmp_path_factory.mktemp("run"),
            checkpoints=zoo.checkpoints,
            data_root=zoo.data,
            images=12,
            workers=1,
            verifiers="fake-bound,fake-complete",
            console=Console(file=io.StringIO()),
        )


@pytest.mark.slow
def test_a_run_from_python_is_read_as_one_from_its_folder(finished: prunecert.Run) -> None:
    again = prunecert.load_run(finished.folder)
    assert again.summary == finished.summary
    assert finished.networks == list(bench.CELLS)
    assert not finished.contradictions
    assert "tiny, 2 networks, 24 images, finished>" in repr(finished)
    assert "<th>verified %</th>" in finished._repr_html_()


@pytest.mark.slow
def test_frames_have_a_row_a_network_or_a_verdict(finished: prunecert.Run) -> None:
    pytest.importorskip("pandas")
    frame = finished.to_pandas()
    assert list(frame["name"]) == list(bench.CELLS)
    assert ((frame["verified_low"] <= frame["verified"]) & (frame["verified"] <= frame["attacked"])).all()
    verdicts = finished.to_pandas("verdicts")
    assert set(verdicts["verifier"]) <= {"fake-bound", "fake-complete"}
    decided = {cell["name"]: cell["verified"]["k"] for cell in finished.summary["cells"]}
    for name, count in decided.items():
        own = verdicts[(verdicts["network"] == name) & (verdicts["status"] == "unsat")]
        assert own["image"].nunique() == count
    with pytest.raises(UserError, match="allowed are 'networks' and 'verdicts'"):
        finished.to_pandas("images")  # type: ignore[arg-type]


@pytest.mark.slow
def test_figures_are_objects(finished: prunecert.Run, tmp_path: Path) -> None:
    figure = finished.figure()
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    axes.set_title("mine")
    figure.savefig(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").stat().st_size > 1000
    with pytest.raises(UserError, match="Did you mean 'time'"):
        finished.figure("times")
    with pytest.raises(UserError, match="has nothing for the figure 'certified-radius'"):
        finished.figure("certified-radius")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        prunecert.load_run(tmp_path)
