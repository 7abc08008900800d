"""alpha-beta-CROWN's adapter; what needs the verifier itself is marked, the rest runs everywhere."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers.adapters.abcrown import install
from prunecert.verifiers.adapters.abcrown.adapter import AbCrown
from prunecert.verifiers.adapters.abcrown.configuration import DEFAULTS, FLAT
from prunecert.verifiers.adapters.abcrown.words import STATUS, parse_status
from prunecert.verifiers.adapters.hardware import visible_devices
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import exact

FOUND = install.find()
needs_abcrown = [
    pytest.mark.abcrown,
    pytest.mark.skipif(isinstance(FOUND, str), reason=f"alpha-beta-CROWN is unavailable: {FOUND}"),
]


def needs(function: Any) -> Any:
    for mark in needs_abcrown:
        function = mark(function)
    return function


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status", "stage"),
    [
        ("safe", Status.UNSAT, "bab"),
        ("safe-incomplete", Status.UNSAT, "incomplete"),
        ("unsafe", Status.SAT, "bab"),
        ("unsafe-pgd", Status.SAT, "attack"),
        ("unsafe-bab", Status.SAT, "bab"),
        ("unknown", Status.UNKNOWN, None),
        ("timeout", Status.TIMEOUT, None),
    ],
)
def test_words(word: str, status: Status, stage: str | None) -> None:
    assert parse_status(word, 1.0, 10.0)[:2] == (status, stage)


def test_safe_is_part_of_unsafe_but_never_read_so() -> None:
    for word, (status, _) in STATUS.items():
        assert (status is Status.UNSAT) == word.startswith("safe")
        assert (status is Status.SAT) == word.startswith("unsafe")


@pytest.mark.parametrize("word", ["safe-new", "SAFE", "unsafe-", "verified", "", None, True])
def test_an_unknown_word_is_an_error(word: object) -> None:
    """`SolveResult.success` is true for unsafe and for any new word: the adapter reads the word alone."""
    status, stage, detail = parse_status(word, 1.0, 10.0)
    assert (status, stage) == (Status.ERROR, None)
    assert repr(word) in detail


@pytest.mark.parametrize("word", ["unknown", "unknown-mip"])
def test_unknown_and_timeout_are_told_apart_by_the_clock(word: str) -> None:
    assert parse_status(word, 9.9, 10.0)[0] is Status.UNKNOWN
    assert parse_status(word, 10.1, 10.0)[0] is Status.TIMEOUT


def test_a_late_proof_stays_a_proof() -> None:
    assert parse_status("safe", 10.1, 10.0)[0] is Status.UNSAT


# --- settings -------------------------------------------------------------------------------------------------------


def test_flat_settings_have_the_reviewed_defaults() -> None:
    for name, path in FLAT.items():
        value: Any = DEFAULTS
        for key in path:
            value = value[key]
        assert AbCrown.known_settings[name].default == value
    assert DEFAULTS["general"]["complete_verifier"] == "bab"
    assert DEFAULTS["general"]["save_adv_example"] is True


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"branching": "kfbs"}, "Did you mean 'kfsb'"),
        ({"pgd_order": "never"}, "Available: after, before, skip"),
        ({"split": "relu"}, "Available: auto, hidden, input"),
        ({"alpha_iterations": -1}, "0 or more"),
        ({"pgd_restarts": 0}, "1 or more"),
        ({"beta_lr": "fast"}, "type float"),
        ({"beta_iteration": 5}, "Did you mean 'beta_iterations'"),
        ({"extra": "bab"}, "type dict"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AbCrown.resolve(settings)


# --- finding it -----------------------------------------------------------------------------------------------------


def checkout(folder: Path, *, lirpa: str | None = "0.7.1", link: bool = True) -> Path:
    """Makes what a checkout looks like from outside."""
    home = folder / "abcrown"
    (home / "complete_verifier").mkdir(parents=True)
    (home / "complete_verifier" / "api.py").write_text("")
    (home / "complete_verifier" / "__init__.py").write_text("__version__ = '0.7.0'\n")
    if lirpa is not None:
        package = home / "complete_verifier" / "auto_LiRPA" if link else home / "auto_LiRPA" / "auto_LiRPA"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"import torch\n\n__version__ = '{lirpa}'\n")
    return home


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path | None]:
    """What can be imported: all that is needed; a test may take something away by setting it to None."""
    fork = tmp_path / "onnx2pytorch"
    (fork / "convert").mkdir(parents=True)
    (fork / "__init__.py").write_text("")
    (fork / "convert" / "model.py").write_text("def convert(quirks=None): ...\n")
    there: dict[str, Path | None] = dict.fromkeys(install.MODULES, tmp_path / "module.py")
    there |= {"onnx2pytorch": fork / "__init__.py", "abcrown": None, "auto_LiRPA": None}

    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        path = there[name]
        return None if path is None else importlib.machinery.ModuleSpec(name, None, origin=str(path))

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return there


def hint(monkeypatch: pytest.MonkeyPatch, home: Path | None) -> str:
    if home is None:
        monkeypatch.delenv("ABCROWN_HOME", raising=False)
    else:
        monkeypatch.setenv("ABCROWN_HOME", str(home))
    answer = AbCrown.availability()
    assert not answer.installed
    assert "\n" not in answer.hint
    return answer.hint


def test_nothing_there(monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None]) -> None:
    words = hint(monkeypatch, None)
    assert "git clone --recursive https://github.com/Verified-Intelligence/alpha-beta-CROWN" in words
    assert "ABCROWN_HOME" in words
    assert "--abcrown" in words


def test_a_folder_that_is_no_checkout(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    words = hint(monkeypatch, tmp_path)
    assert str(tmp_path) in words
    assert "api.py is missing" in words


def test_what_can_t_be_looked_at_is_said(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    assert "api.py is missing" in hint(monkeypatch, file)
    long = hint(monkeypatch, Path("/" + "a" * 300))
    assert "can't be looked at" in long
    assert "can't be looked at" in hint(monkeypatch, Path("~nobody-of-this-name/abcrown"))
    assert len(hint(monkeypatch, Path("/" + "a/" * 5000))) < 1500


def test_a_checkout_without_a_version(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    home = checkout(tmp_path)
    (home / "complete_verifier" / "__init__.py").unlink()
    (home / ".git").mkdir()
    (home / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("ABCROWN_HOME", str(home))
    answer = AbCrown.availability()
    assert answer.installed, answer.hint
    assert "of unknown version" in (answer.version or "")


def test_submodule_missing(monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path) -> None:
    assert "submodule update --init" in hint(monkeypatch, checkout(tmp_path, lirpa=None))


def test_auto_lirpa_of_the_package_index_is_too_old(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    old = tmp_path / "site" / "auto_LiRPA"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text("__version__ = '0.3'\n")
    modules["auto_LiRPA"] = old / "__init__.py"
    words = hint(monkeypatch, checkout(tmp_path, lirpa=None))
    assert "auto_LiRPA 0.3" in words
    assert "too old" in words


@pytest.mark.parametrize("module", sorted(install.MODULES))
def test_each_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path, module: str
) -> None:
    modules[module] = None
    words = hint(monkeypatch, checkout(tmp_path))
    assert words.endswith(f"pip install {install.MODULES[module]}")


def test_converter_missing_or_another(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    home = checkout(tmp_path)
    (tmp_path / "onnx2pytorch" / "convert" / "model.py").write_text("def convert(): ...\n")
    assert "not the fork" in hint(monkeypatch, home)
    modules["onnx2pytorch"] = None
    assert "is not installed" in hint(monkeypatch, home)


@pytest.mark.parametrize("link", [True, False])
def test_a_whole_checkout_is_found_with_its_commit(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path, link: bool
) -> None:
    home = checkout(tmp_path, link=link)
    monkeypatch.setenv("ABCROWN_HOME", str(home))
    assert AbCrown.availability().version == "0.7.0, auto_LiRPA 0.7.1"
    (home / ".git" / "refs" / "heads").mkdir(parents=True)
    (home / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (home / ".git" / "packed-refs").write_text(f"# pack-refs with: peeled\n{'a' * 40} refs/heads/main\n")
    answer = AbCrown.availability()
    assert answer.installed
    assert answer.version == f"0.7.0 ({'a' * 12}), auto_LiRPA 0.7.1"
    (home / ".git" / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
    assert install.git_commit(home) == "b" * 40
    (home / ".git" / "HEAD").write_text("c" * 40 + "\n")
    assert install.git_commit(home) == "c" * 40


def test_a_linked_worktree_has_a_commit(tmp_path: Path) -> None:
    store = tmp_path / "main" / ".git"
    (store / "worktrees" / "w").mkdir(parents=True)
    (store / "packed-refs").write_text(f"{'d' * 40} refs/heads/w\n")
    (store / "worktrees" / "w" / "HEAD").write_text("ref: refs/heads/w\n")
    (store / "worktrees" / "w" / "commondir").write_text("../..\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {store / 'worktrees' / 'w'}\n")
    assert install.git_commit(tree) == "d" * 40


def test_an_installed_package_is_found(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Path | None], tmp_path: Path
) -> None:
    monkeypatch.delenv("ABCROWN_HOME", raising=False)
    modules["abcrown"] = checkout(tmp_path) / "complete_verifier" / "__init__.py"
    place = install.find()
    assert isinstance(place, install.Install)
    assert place.folder == tmp_path / "abcrown" / "complete_verifier"


# --- the verifier itself --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Instance, bool]]:
    return exact.questions(tmp_path_factory.mktemp("tiny"), networks=4, factors=(0.97, 1.03))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("abcrown", {"split": "hidden"}, threads=1) as worker:
        yield worker


@needs
@pytest.mark.parametrize("split", ["hidden", "input"])
@pytest.mark.parametrize("order", ["before", "skip"])
def test_agrees_with_exact_answers(cases: list[tuple[Instance, bool]], split: str, order: str) -> None:
    with Worker("abcrown", {"split": split, "pgd_order": order}, threads=1) as worker:
        verdicts = worker.verify([replace(instance, timeout=20.0) for instance, _ in cases])
    for (instance, holds), verdict in zip(cases, verdicts, strict=True):
        what = f"{instance.name}: {verdict.status} {verdict.detail}"
        if holds or order == "before" or split == "hidden":
            assert verdict.status is (Status.UNSAT if holds else Status.SAT), what
        else:
            # Without an attack, halving the box comes ever nearer to the counterexample and never to it.
            assert verdict.status in (Status.SAT, Status.UNKNOWN, Status.TIMEOUT), what
        assert (verdict.witness is not None) == (verdict.status is Status.SAT)
        if verdict.stage == "bab":
            assert verdict.domains
            assert verdict.iterations


@needs
def test_conjunctions_and_ragged_disjuncts(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    instance = cases[0][0]
    never, empty, meets = exact.disjuncts_around(instance)
    verdicts = worker.verify(
        [replace(instance, spec=OutputSpec(disjuncts)) for disjuncts in ((never,), (never, empty), (never, meets))]
    )
    # Each row alone can be met; where no ReLU is left to split, a linear program over both tells.
    assert [verdict.status for verdict in verdicts] == [Status.UNSAT, Status.UNSAT, Status.SAT]


@needs
def test_the_unsafe_set_is_closed(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    """A tie belongs to the unsafe set, as in VNN-LIB: y <= b with b the output at a single point is `sat`."""
    instance = cases[0][0]
    point = replace(instance, upper=instance.lower)
    row = np.eye(instance.classes)[:1]
    value = exact.load(instance.onnx)(instance.lower)[0]
    closed, open_ = OutputSpec(((row, np.array([value + 1e-4])),)), OutputSpec(((row, np.array([value - 1e-4])),))
    assert worker.verify([replace(point, spec=closed)])[0].status is Status.SAT
    assert worker.verify([replace(point, spec=open_)])[0].status is Status.UNSAT


@needs
def test_balls_are_proved_and_never_beyond_the_truth(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    """The ball of the box's radius lies in the box; one that holds a violated box must not be proved."""
    for instance, holds in cases:
        assert instance.eps is not None
        center = np.random.default_rng(int(instance.onnx.stem[3:]) + 7).uniform(0.2, 0.8, size=instance.lower.size)
        eps = instance.eps if holds else instance.eps * float(np.sqrt(instance.lower.size))
        low, high = exact.box(center.astype(np.float32), eps)
        ball = replace(
            instance, norm="l2", eps=eps, center=center.astype(np.float32), lower=low, upper=high, timeout=5.0
        )
        verdict = worker.verify([ball])[0]
        if holds:
            assert verdict.status is Status.UNSAT, verdict.detail
        else:
            assert verdict.status in (Status.UNKNOWN, Status.TIMEOUT), verdict.detail


@needs
def test_nothing_is_written_beside_the_users_files(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    folder = cases[0][0].onnx.parent
    assert {path.suffix for path in folder.iterdir()} == {".onnx"}
    assert not Path("test_cex.txt").exists()


@needs
def test_an_unknown_extra_setting_is_refused_by_name(cases: list[tuple[Instance, bool]]) -> None:
    with Worker("abcrown", {"extra": {"bab": {"branching": {"methods": "kfsb"}}}}, threads=1) as worker:
        verdict = worker.verify([cases[0][0]])[0]
    assert verdict.status is Status.ERROR
    assert "Did you mean 'bab/branching/method'" in verdict.detail


@needs
def test_every_status_in_upstreams_sources_is_mapped() -> None:
    """Reads the constants of the functions that make a status, so that a new release with a new word is seen."""
    assert isinstance(FOUND, install.Install)
    words = set()
    for name in ("api.py", "abcrown.py", "complete_verifier_func.py", "incomplete_verifier_func.py", "bab.py"):
        for node in ast.walk(ast.parse((FOUND.folder / name).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = node.value
                if word.partition("-")[0] in ("safe", "unsafe", "unknown", "timeout") and " " not in word:
                    words.add(word)
    for path in (FOUND.folder / "lp_mip_solver").glob("*.py"):
        words |= {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and node.value in ("safe-mip", "unsafe-mip", "unknown-mip")
        }
    assert {"safe", "safe-incomplete", "unsafe-pgd", "unsafe-bab", "unknown"} <= words
    assert words <= set(STATUS)


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in visible_devices(), reason="there is no CUDA device")
@needs
def test_on_a_gpu(cases: list[tuple[Instance, bool]]) -> None:
    with Worker("abcrown", {"split": "hidden"}, device="cuda") as worker:
        verdicts = worker.verify([instance for instance, _ in cases])
    for (instance, holds), verdict in zip(cases, verdicts, strict=True):
        assert verdict.status is (Status.UNSAT if holds else Status.SAT), f"{instance.name}: {verdict.detail}"
        assert verdict.device.startswith("cuda:0 (")
