from __future__ import annotations

import argparse
import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from prunecert.errors import (
    DEBUG,
    EXIT_INTERRUPTED,
    EXIT_REGRESSION,
    EXIT_USAGE,
    UserError,
    describe_os_error,
    did_you_mean,
    run_main,
)


def ending(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Returns the exit code of a command that raises, and what it says."""

    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("No."), "error: No.\n"),
        (UserError("Two things:", ["one", "two"]), "error: Two things:\n  one\n  two\n"),
        (UserError("a\n::error::b \x1b[31m", ["c\nd"]), "error: a\\n::error::b \\x1b[31m\n  c\\nd\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y can't be used (permission denied)"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x can't be used (read-only file system): the file sys"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000), "the name is longer than the file system"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "it is a folder; name a file"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a", None, "/b"), "/a and /b can't be used"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "error: the disk is full (writing /x); finished"),
        (RecursionError("maximum recursion depth"), "error: the input is nested too deeply"),
        (MemoryError(), "error: the memory doesn't suffice"),
        (KeyError("a\x1b[0m"), "error: this input broke the program (KeyError: 'a\\x1b[0m')"),
        (OverflowError("int too large\nmore"), "(OverflowError: int too large); finished results are kept. Please"),
        (ValueError(), "(ValueError: no more is said)"),
    ],
)
def test_whatever_stops_a_command_is_one_sentence_and_exit_2(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = ending(error, capsys)
    assert code == EXIT_USAGE
    assert said in shown
    assert "Traceback" not in shown
    assert len(shown) < 700
    assert "\x1b" not in shown


def test_the_traceback_is_shown_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DEBUG, "1")
    code, shown = ending(KeyError("x"), capsys)
    assert code == EXIT_USAGE
    assert "Traceback" in shown
    assert "error: this input broke" in shown


def _leaves(code: object) -> int:
    raise SystemExit(code)


@pytest.mark.parametrize("code", [0, 1, None, "goodbye"])
def test_foreign_code_that_ends_the_program_is_neither_a_pass_nor_a_regression(
    code: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: _leaves(code))
    assert caught.value.code == EXIT_USAGE
    assert f"error: code that isn't prunecert's ended the program (SystemExit {code!r})" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--odd"], 2)])
def test_the_reader_of_options_may_end_it(arguments: list[str], code: int) -> None:
    def main() -> int:
        argparse.ArgumentParser().parse_args(arguments)
        return 1

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == code


def test_an_interrupt_has_a_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(KeyboardInterrupt(), capsys)[0] == EXIT_INTERRUPTED


def test_an_interrupt_may_end_the_process_at_once() -> None:
    code = """
import atexit, sys
from prunecert.errors import ending_at_once, run_main
atexit.register(print, "taken down")
def main():
    print("answer")
    raise KeyboardInterrupt
run_main((lambda: ending_at_once(main)) if sys.argv[1] == "yes" else main)
"""
    for word, lines in (("yes", ["answer"]), ("no", ["answer", "taken down"])):
        ended = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, ended.stdout.splitlines()) == (EXIT_INTERRUPTED, lines)
        assert ended.stderr.startswith("interrupted: finished results are kept")


def test_a_user_error_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(UserError("Two:", ["a", "b"])))
    assert (error.sentence, error.details, str(error)) == ("Two:", ("a", "b"), "Two:\n  a\n  b")


def test_long_names_are_not_repeated() -> None:
    assert len(did_you_mean("key", "x" * 100_000, ["lwm", "hydra"])) < 400
    assert "Did you mean 'hydra'" in did_you_mean("key", "hydr", ["lwm", "hydra"])


def test_an_os_error_without_a_path() -> None:
    assert describe_os_error(OSError(errno.EIO, "Input/output error")).startswith("a file can't be used (input/output")


def command(body: str, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfrom prunecert.errors import run_main\ndef main():\n{body}\nrun_main(main)"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}", "bash", sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_command_outlives_the_reader_of_its_output(tmp_path: Path) -> None:
    body = f"""
    for i in range(20_000):
        print("line", i, flush=True)
    open({str(tmp_path / "done")!r}, "w").close()
    return {EXIT_REGRESSION}
"""
    process = command(body, '"$1" -c "$2" | true')
    assert (tmp_path / "done").exists()
    assert process.returncode == EXIT_REGRESSION
    assert process.stderr == ""


def test_text_that_the_output_cannot_encode_is_shown_as_escapes() -> None:
    process = command('    print("ε → \\udc80", flush=True)\n    return 0', '"$1" -c "$2"', PYTHONIOENCODING="ascii")
    assert (process.returncode, process.stdout) == (0, "\\u03b5 \\u2192 \\udc80\n")


def test_a_full_output_is_no_success() -> None:
    process = command('    print("x")\n    return 0', '"$1" -c "$2" > /dev/full')
    assert process.returncode == EXIT_USAGE
    assert process.stderr.startswith("error: the disk is full")
    assert "Traceback" not in process.stderr


def test_of_very_many_names_the_nearest_are_listed() -> None:
    names = [f"cnn-small_ibp_eps2_lwm_x{number}_s0" for number in range(100)]
    sentence = did_you_mean("cell", "cnn-small_ibp_eps2_lwm_x42_s1", names)
    assert "Did you mean 'cnn-small_ibp_eps2_lwm_x42_s0'?" in sentence
    assert sentence.count("cnn-small") == 10
    assert sentence.endswith("and 92 others.")
