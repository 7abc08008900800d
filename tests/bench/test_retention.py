"""What pruning keeps, as a command; and the documents' tables are its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.retention import main
from prunecert.errors import UserError
from tests.printed import commands_of, printed_by, renewed

ROOT = Path(__file__).parents[2]


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_cells_are_chosen_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    zoo = ROOT / "results"
    main([str(zoo), "--cells", "cnn-large_ibp*_x1_*,cnn-large_ibp*_lwm_x10_*"])
    assert [(row[0], row[1]) for row in cells(capsys.readouterr().out)] == [
        ("cnn-large, ibp, 2/255, 0", "dense"),
        ("cnn-large, ibp, 2/255, 0", "lwm"),
    ]
    with pytest.raises(UserError, match="Did you mean"):
        main([str(zoo), "--cells", "cnn-large_ipb*"])


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        main([str(tmp_path / "none")])
    with pytest.raises(UserError, match="holds no checkpoints"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="write ratios"):
        main([str(tmp_path), "--compression", "ten"])


@pytest.mark.parametrize(
    "document",
    ["README.md", "docs/zoo.md", "docs/methods.md", pytest.param("docs/board.md", marks=pytest.mark.slow)],
)
def test_documents_hold_what_the_command_prints(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table stands behind its command, which is in backquotes; in other tables, commands are only named."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / document).read_text(encoding="utf-8")
    commands = commands_of(text)
    assert commands
    printed = {command: printed_by(command) for command in commands}
    for command in commands:
        assert printed[command] in text, f"python -m tests.printed {document} renews what {command} prints"
    assert renewed(text, printed.__getitem__) == text


def test_what_a_document_holds_is_renewed_where_its_command_stands() -> None:
    text = (
        "By `python -m bench.retention a\n--about b`:\n\n<!-- printed -->\n| old |\ntext\n<!-- /printed -->\n"
        "By `python -m bench.retention c`:\n\n| old |\n|---|\n\nMore.\n\n| `python -m bench.retention d` |\n"
    )
    assert commands_of(text) == ["python -m bench.retention a --about b", "python -m bench.retention c"]
    once = renewed(text, lambda command: f"| {command.split()[-1]} |\n")
    assert once == (
        "By `python -m bench.retention a\n--about b`:\n\n<!-- printed -->\n| b |\n<!-- /printed -->\n"
        "By `python -m bench.retention c`:\n\n| c |\n\nMore.\n\n| `python -m bench.retention d` |\n"
    )
    # A remark belongs to what is printed.
    text = "`python -m bench.retention e`\n\n| old |\n|---|\n\n\\* Old.\n\nMore.\n"
    once = renewed(text, lambda _: "| e |\n\n\\* New.\n")
    assert once == "`python -m bench.retention e`\n\n| e |\n\n\\* New.\n\nMore.\n"
    with pytest.raises(ValueError, match="nothing stands behind python"):
        renewed("`python -m bench.retention a`", str.upper)


def test_proofs_are_followed_by_themselves(tmp_path: Path) -> None:
    for words in (["--about", "classes"], [str(tmp_path)]):
        with pytest.raises(UserError, match="--proved goes without"):
            main(["--proved", str(tmp_path), *words])
