"""CI files, ours and those that we give to others: they parse, hold to the rules, and call what there is."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunecert.__main__ import VERBS
from prunecert.bench.run_options import run_parser
from tests.house import ROOT

WORKFLOWS = [*sorted(ROOT.glob(".github/workflows/*.yml")), ROOT / "docs" / "ci" / "github-gate.yml"]
ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"
GITLAB = ROOT / "docs" / "ci" / "gitlab-gate.yml"
NAMES = [path.name for path in WORKFLOWS]
#: Commands of a step that are nobody's business here: their options are their authors'.
FOREIGN = {"pip", "pytest", "tox", "sudo", "apt-get", "echo", "mkdir", "if", "else", "fi", "then", "read"}
#: What a job or a step may have.
JOB_KEYS = {"name", "if", "needs", "runs-on", "timeout-minutes", "strategy", "env", "steps", "permissions", "outputs"}
STEP_KEYS = {"name", "id", "if", "uses", "with", "run", "env", "shell", "working-directory", "continue-on-error"}


def parsed(path: Path) -> dict[Any, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def steps_of(path: Path) -> list[dict[str, Any]]:
    document = parsed(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def scripts(path: Path) -> Iterator[str]:
    """Yields all that a file has a shell do."""
    if path == GITLAB:
        for job in parsed(path).values():
            for key in ("before_script", "script", "after_script"):
                yield from job.get(key, [])
        return
    for step in steps_of(path):
        if "run" in step:
            yield step["run"]


def commands(script: str) -> Iterator[list[str]]:
    """Yields the commands of a script, word by word; what is only known when it runs stands as `VALUE`."""
    text = re.sub(r"\\\n\s*", " ", script)
    for line in text.splitlines():
        if line.strip().startswith("#"):
            continue
        line = re.sub(r"\$\{\{.*?\}\}", "VALUE", line)
        # An option that is there only with a value: as if it had one.
        line = re.sub(r"\$\{\w+:\+(.*?)\}", r"\1", line)
        line = re.sub(r'"\$\{\w+\[@\]\}"', "", line)
        line = re.sub(r"\$\{?\w+\}?", "VALUE", line)
        for part in re.split(r"&&|\|\||;", line):
            if part.strip():
                yield shlex.split(part, comments=True)


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """Returns the verb and the arguments of a command of this project, or None."""
    if words[:1] == ["prunecert"]:
        return words[1], words[2:]
    if words[:3] == ["python", "-m", "prunecert"]:
        return words[3], words[4:]
    if words[:2] == ["python", "-m"] and words[2].startswith("bench."):
        return words[2].removeprefix("bench."), words[3:]
    return None


def refuse(verb: str, arguments: list[str]) -> str:
    """Returns what a verb's own parser has against arguments, or nothing."""
    if verb not in VERBS:
        return f"there is no verb {verb!r}"
    module = importlib.import_module(VERBS[verb].target.partition(":")[0])
    parser: argparse.ArgumentParser = module.parser()
    parser.exit_on_error = False
    try:
        options, rest = parser.parse_known_args(arguments)
        if verb == "gate" and options.suite is not None:
            _, rest = run_parser().parse_known_args(["--suite", options.suite, *rest])
    except (argparse.ArgumentError, SystemExit) as error:
        return f"{verb}: {error}"
    return f"{verb}: {rest} are no options" if rest else ""


def problems(script: str) -> list[str]:
    """Returns what is wrong with a script's commands."""
    lines = []
    for words in commands(script):
        if (call := ours(words)) is not None:
            lines += filter(None, [refuse(*call)])
        elif words[0] not in FOREIGN:
            lines.append(f"{words[0]!r} is no known command")
    return lines


@pytest.mark.parametrize(
    "script",
    [
        "prunecert gat --baseline b --suite s",
        "prunecert gate --baseline b --suite s --fail-on-tim",
        "prunecert gate --suite s",
        "prunecert gate --baseline b --suite s --images many",
        "python -m bench.gate --baseline b --run r --workers 2",
        "prunecert gate --baseline b --suite s && prunecert run",
        "curl x",
    ],
)
def test_a_command_that_does_not_exist_is_seen(script: str) -> None:
    assert problems(script)


def test_a_command_that_exists_is_not() -> None:
    script = 'prunecert gate --baseline "$B" \\\n  --suite s ${R:+--rules "$R"} --images 3 "${M[@]}"\n# prunecert x\n'
    assert problems(script) == []
    assert list(commands(script)) == [
        ["prunecert", "gate", "--baseline", "VALUE", "--suite", "s", "--rules", "VALUE", "--images", "3"]
    ]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION, GITLAB], ids=[*NAMES, "action.yml", "gitlab-gate.yml"])
def test_every_command_exists_with_its_options(path: Path) -> None:
    lines = list(scripts(path))
    assert lines or path.name == "github-gate.yml"
    assert [problem for script in lines for problem in problems(script)] == []


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=[*NAMES, "action.yml"])
def test_other_peoples_actions_are_pinned_by_hash_with_the_version_beside(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert lines
    for line in lines:
        if "/prunecert/" in line:
            continue  # The reader's own choice.
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_the_same_action_has_the_same_hash_everywhere() -> None:
    text = "".join(path.read_text() for path in (*WORKFLOWS, ACTION))
    uses = set(re.findall(r"uses: (actions/\S+)", text))
    assert len(uses) == len({use.partition("@")[0] for use in uses})


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_workflows_may_read_only_and_end(path: Path) -> None:
    document = parsed(path)
    # YAML 1.1 takes the key `on` for true.
    assert set(document) <= {"name", True, "permissions", "concurrency", "jobs", "env"}
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert set(job) <= JOB_KEYS
        assert 0 < job["timeout-minutes"] <= 120
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]), "not a moving target"
        for step in job["steps"]:
            assert set(step) <= STEP_KEYS
            assert ("uses" in step) != ("run" in step)


def test_the_action_is_whole() -> None:
    action = parsed(ACTION)
    assert action["runs"]["using"] == "composite"
    text = ACTION.read_text()
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(action["inputs"]), "each is used, and there is no other"
    for name, entry in action["inputs"].items():
        assert entry["description"].endswith("."), name
        assert ("default" in entry) != entry.get("required", False), name
    for step in steps_of(ACTION):
        assert set(step) <= STEP_KEYS
        assert ("run" in step) == ("shell" in step), "a composite action names its shell"
        # What a stranger's pull request may say goes through the environment, never into the script itself.
        assert "${{" not in step.get("run", "")
        for variable in set(re.findall(r"\$\{?([A-Z_]+)", step.get("run", ""))) - {"MORE"}:
            assert variable in step["env"], variable


def test_the_example_uses_the_action_as_it_is() -> None:
    steps = steps_of(ROOT / "docs" / "ci" / "github-gate.yml")
    (step,) = [step for step in steps if "prunecert" in step.get("uses", "")]
    inputs = parsed(ACTION)["inputs"]
    assert set(step["with"]) <= set(inputs)
    assert {name for name, entry in inputs.items() if entry.get("required")} <= set(step["with"])
    folder = step["uses"].partition("@")[0].split("/", 2)[2]
    assert (ROOT / folder / "action.yml").is_file()


@pytest.mark.parametrize("name", ["github-gate.yml", "gitlab-gate.yml"])
def test_the_guide_shows_the_files_as_they_are(name: str) -> None:
    guide = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "ci" / name).read_text(encoding="utf-8").strip() in guide


def test_gitlabs_job_is_whole() -> None:
    (job,) = parsed(GITLAB).values()
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"].startswith("report/")
    assert set(job) == {"image", "rules", "variables", "cache", "before_script", "script", "artifacts"}
