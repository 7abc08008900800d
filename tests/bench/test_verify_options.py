from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.bench.verify_options import request_of, verify_parser
from prunecert.compaction import Mode
from prunecert.errors import EXIT_USAGE, UserError
from prunecert.verifiers.base import Status


def request(*words: str) -> PropertiesRequest:
    return request_of(verify_parser().parse_args(words), words)


def test_a_command_line_becomes_a_request(tmp_path: Path) -> None:
    words = [
        *("--onnx", "a.onnx", "--with", "b.onnx", "--vnnlib", "p", "--alike", "class", "--verifier", "ibp, crown,ibp"),
        *("--settings", "crown.alpha=true", "--timeout", "5", "--device", "cuda:0", "--abcrown", str(tmp_path)),
        *("--compact", "--memory-limit", "512", "--threads", "3", "--certificate", "c", "--category", "toy"),
        *("--retry", "error", "--out", "o"),
    ]
    assert request(*words) == PropertiesRequest(
        verifiers={"ibp": {}, "crown": {"alpha": True}},
        onnx=Path("a.onnx"),
        vnnlib=Path("p"),
        second=Path("b.onnx"),
        alike="class",
        timeout=5.0,
        category="toy",
        device="cuda:0",
        memory_limit_mb=512,
        threads=3,
        abcrown=tmp_path,
        compact=Mode.ALL_INPUTS,
        certificate=Path("c"),
        retry=frozenset({Status.ERROR}),
        out=Path("o"),
        argv=tuple(words),
    )
    bare = request("--instances", "l.csv", "--verifier", "ibp")
    assert bare == PropertiesRequest(verifiers={"ibp": {}}, instances=Path("l.csv"), argv=bare.argv)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--verifier", "crwon"), "Did you mean"),
        (("--verifier", "ibp", "--settings", "crown.alpha=1"), "this run has ibp"),
        (("--verifier", "ibp", "--retry", "unsat"), "--retry 'unsat' is refused"),
        (("--verifier", "ibp", "--category", "../up"), "category"),
        (("--verifier", "ibp", "--abcrown", "nowhere"), "--abcrown nowhere is no folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_files_are_read(words: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        request(*words, "--onnx", "missing.onnx", "--vnnlib", "missing.vnnlib")


@pytest.mark.parametrize("option", ["--onnx", "--vnnlib", "--with", "--alike", "--instances"])
def test_what_is_given_twice_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        request(option, "a", "--verifier", "ibp", option, "b")
    assert caught.value.code == EXIT_USAGE
    assert f"argument {option}: it is given twice, as 'a' and 'b'; give one" in capsys.readouterr().err
