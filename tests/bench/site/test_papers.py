from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert import models
from prunecert.bench.site.papers import OBJECTIVES, PRUNERS, Paper, citation, papers, tex
from prunecert.bench.site.view import make_rows
from tests.bench import boards

ENTRY = boards.make(title="x")
ALL = [*PRUNERS.values(), *OBJECTIVES.values()]


def balanced(text: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\.", "", text):
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("paper", ALL, ids=lambda paper: paper.key)
def test_a_paper_can_be_cited(paper: Paper) -> None:
    text = paper.bibtex()
    assert balanced(text)
    assert text.startswith(("@inproceedings{", "@misc{"))
    assert re.fullmatch(r"\S.*\S (19|20)\d\d", paper.short)
    assert paper.arxiv == "" or re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv)
    assert (paper.arxiv != "") >= (paper.where == "arXiv")


def test_papers_are_of_names_that_there_are() -> None:
    assert set(models.PRUNERS) >= PRUNERS.keys()
    assert set(models.OBJECTIVES) >= OBJECTIVES.keys()
    keys = {paper.key: paper for paper in ALL}
    assert all(keys[paper.key] == paper for paper in ALL)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30))
def test_anybodys_text_breaks_no_bibliography(text: str) -> None:
    assert balanced(tex(text))
    method = {**ENTRY["method"], "authors": text, "url": "https://example.org/}{\\x"}
    assert balanced(citation({**ENTRY, "method": method}, text))


def test_an_entry_is_cited_by_its_authors_else_by_who_submits() -> None:
    (row,) = make_rows([boards.make("hydra", by="The Testers & Co")])
    text = citation(row.entry, row.full_title)
    assert "author = {{The Testers \\& Co}}" in text
    assert "title = {{hydra 10×, cnn-small, ibp, ε = 2/255, seed 0}}" in text
    assert "year = {2026}" in text
    assert row.entry["digest"][:16] in text
    row.entry["method"]["authors"] = "Lovelace, Ada and Turing, Alan"
    assert "author = {Lovelace, Ada and Turing, Alan}" in citation(row.entry, "t")
    assert [paper.short for _, paper in papers(row)] == ["Sehwag et al. 2020", "Gowal et al. 2018"]
