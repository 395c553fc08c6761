import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from evoquant import api
from evoquant.cli import main
from evoquant.errors import MissingExtraError
from evoquant.report.compare import compare
from evoquant.report.compare_plot import curves_figure

pytest.importorskip("matplotlib")

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(9):
        size = f"search.population={20 + 10 * (seed % 2)}"
        overrides = ["executor.kind=local", f"seed={seed}", size, "stop.generations=4", f"name=run{seed % 2}"]
        api.run(CONFIGS / "evolve.yaml", out=folder / f"run-{seed}", overrides=overrides)
    return sorted(folder.iterdir())


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_figure_says_what_it_shows(runs):
    words = texts(curves_figure(compare(runs), "svg"))
    assert {"run0 (5 runs)", "run1 (4 runs)", "candidates evaluated", "best fitness so far on train"} <= set(words)
    assert "median over seeds, band: quartiles; runs that ended earlier keep their last value" in words


def test_more_groups_than_colours(runs):
    names = [f"{mark}{seed}" for mark, seed in zip("abcdefghi", range(9), strict=True)]
    made = compare(runs, by=[f"{name}=run-{name[1]}" for name in names])
    svg = curves_figure(made, "svg")
    assert {f"{name} (1 run)" for name in names} <= set(texts(svg))
    assert b"stroke-dasharray" in svg, "the eighth looks unlike the first"
    assert not any("quartiles" in text for text in texts(svg))


def test_the_command_writes_files_with_the_same_bytes_every_time(runs, tmp_path, monkeypatch, capsys):
    files = [tmp_path / "curves.png", tmp_path / "curves.svg"]
    words = ["compare", *map(str, runs), "--png", str(files[0]), "--svg", str(files[1])]
    monkeypatch.setattr(sys, "argv", ["evoquant", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().err == f"wrote {files[0]}\nwrote {files[1]}\n"
    for file, magic in zip(files, (b"\x89PNG", b"<?xml"), strict=True):
        assert file.read_bytes().startswith(magic)
        assert file.read_bytes() == curves_figure(compare(runs, split="train"), file.suffix[1:])


def test_without_matplotlib_the_extra_is_named(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"evoquant\[report\]"):
        curves_figure(compare(runs), "svg")
