"""The figures of results/ are what their rows give."""

import re
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib")

from evoquant.report.figures_drawn import draw_figures, drawn
from evoquant.report.study import read_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures():
    return drawn(lambda stem: read_rows(ROOT / f"results/{stem}.jsonl"))


def test_the_committed_figures_are_what_the_rows_give(figures):
    pinned = re.search(r"^matplotlib==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if pinned is None or pinned[1] != matplotlib.__version__:
        pytest.skip("drawn by another matplotlib")
    for name, data in figures.items():
        assert (ROOT / "results" / name).read_bytes() == data, f"{name}: python experiments/results.py --render"


def test_figures_that_are_there_are_left_alone(tmp_path, figures):
    (tmp_path / "results").mkdir()
    for stem in ("journey", "tabular", "own_models"):
        (tmp_path / f"results/{stem}.jsonl").write_bytes((ROOT / f"results/{stem}.jsonl").read_bytes())
    assert {path.name for path in draw_figures(tmp_path)} == set(figures)
    assert draw_figures(tmp_path) == []


def test_a_figure_says_what_it_shows(figures):
    text = figures["journey.svg"].decode("utf-8")
    for words in ("3.8273", "3.4204", "0.0935", "Gen 4", "the cliff"):
        assert words in text


def test_documents_show_every_figure(figures):
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    for name in figures:
        assert re.search(rf"!\[[^\]]{{40,}}\]\(\.\./results/{name}\)", text), f"{name}: with what it shows in words"
