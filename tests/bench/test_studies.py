"""Studies: rendered from committed rows alone, measured again to be compared, measured whole where they stopped."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from evoquant.bench import studies_main, studies_run
from evoquant.bench.studies import ROOT, Difference, Place, Study, by_cell, differences, in_order, render
from evoquant.bench.studies_run import STUDIES, check_again, chosen, drawn, measure_whole
from evoquant.errors import CampaignError, InputError
from evoquant.report.study import read_rows, write_rows


@pytest.mark.parametrize("name", STUDIES)
def test_committed_tables_are_what_committed_rows_give(name):
    study = STUDIES[name]()
    for file, text in study.render(Place(ROOT, ROOT)).items():
        committed = (ROOT / "results" / file).read_text(encoding="utf-8")
        assert text == committed, f"results/{file} is no longer what the rows give: python {study.script} --render"


@pytest.mark.parametrize("name", STUDIES)
def test_cells_and_rows_match(name):
    study, place = STUDIES[name](), Place(ROOT, ROOT)
    assert len(set(study.cells)) == len(study.cells)
    parts = {cell: study.part(cell, place) for cell in study.cells}
    assert [cell for cell, rows in parts.items() if not rows] == []
    for stem, rows in study.whole(parts, place).items():
        committed = [row for row in place.rows(stem) if row.get("file") != "machine" and row.get("part") != "machine"]
        assert [row for row in rows if row.get("file") != "machine" and row.get("part") != "machine"] == committed
    assert (ROOT / study.script).is_file()


def test_every_file_of_rows_has_a_study():
    place = Place(ROOT, ROOT)
    stems = set()
    for make in STUDIES.values():
        study = make()
        stems |= study.whole({cell: study.part(cell, place) for cell in study.cells}, place).keys()
    assert {path.stem for path in (ROOT / "results").glob("*.jsonl")} == stems


def test_every_script_names_its_study():
    for name, make in STUDIES.items():
        assert f'study_main("{name}")' in (ROOT / make().script).read_text(encoding="utf-8")


def test_baselines_are_equal_when_measured_again(tmp_path):
    said = []
    assert check_again(chosen(["baselines"]), seed=1, workers=1, say=said.append, minutes=5) == 0
    assert any("108 rows equal" in line for line in said)


# A study of four cells whose rows say how often they were measured.

CELLS = (("a", "0"), ("a", "1"), ("b", "0"), ("b", "1"))


def measure_one(cell, place):
    log = place.root / "measured.txt"
    log.write_text((log.read_text() if log.exists() else "") + " ".join(cell) + "\n")
    if (place.root / "broken").exists() and cell == ("b", "0"):
        raise CampaignError("the disk is full; make room.")
    value = json.loads((place.root / "value.json").read_text())
    return [{"name": cell[0], "seed": int(cell[1]), "fitness": value, "seconds": len(log.read_text())}]


def small(**changes):
    study = Study(
        "small",
        "experiments/small.py",
        CELLS,
        measure_one,
        lambda place: {"small.md": f"{len(place.rows('small'))} rows\n"},
        by_cell("small", lambda row: (row["name"], str(row["seed"]))),
        in_order("small"),
        lambda cell, row, place: {"name": cell[0], "seed": cell[1]},
        1.0,
        1.0,
        loose=frozenset({"seconds"}),
        native=True,  # in this process
    )
    return dataclasses.replace(study, **changes)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(studies_run.STUDIES, "small", small)
    (tmp_path / "value.json").write_text("2.5")
    (tmp_path / "results").mkdir()
    measure_whole(small(), say=lambda text: None, root=tmp_path)
    (tmp_path / "measured.txt").unlink()
    return tmp_path


def test_a_whole_study_writes_rows_and_tables(root):
    assert [row["fitness"] for row in read_rows(root / "results/small.jsonl")] == [2.5] * 4
    assert (root / "results/small.md").read_text() == "4 rows\n"
    assert not (root / "results/.partial/small.jsonl").exists()


def test_an_interrupted_study_goes_on_and_replaces_rows_when_it_is_whole(root):
    (root / "value.json").write_text("3.5")
    (root / "broken").touch()
    with pytest.raises(InputError, match=r"small b 0: the disk is full; make room\."):
        measure_whole(small(), say=lambda text: None, root=root)
    assert {row["fitness"] for row in read_rows(root / "results/small.jsonl")} == {2.5}, "not whole yet"
    (root / "broken").unlink()
    partial = root / "results/.partial/small.jsonl"
    partial.write_text(partial.read_text() + '{"cell": ["b", "1"], "ro')  # torn
    said = []
    found = measure_whole(small(), say=said.append, root=root)
    assert "going on with 2 finished cells" in said[0]
    assert (root / "measured.txt").read_text().split("\n")[:-1] == ["a 0", "a 1", "b 0", "b 0", "b 1"]
    assert {row["fitness"] for row in read_rows(root / "results/small.jsonl")} == {3.5}
    assert str(found[0]) == "results/small.jsonl, a 0: fitness is 2.5 in results/, 3.5 measured again"
    assert len(found) == 4


def test_cells_that_are_not_asked_for_keep_their_rows_where_the_study_allows_it(root):
    (root / "value.json").write_text("3.5")
    measure_whole(small(), words=["b"], say=lambda text: None, root=root)
    assert {row["fitness"] for row in read_rows(root / "results/small.jsonl")} == {2.5}
    (root / "results/.partial/small.jsonl").unlink()
    measure_whole(small(kept=True), words=["b"], say=lambda text: None, root=root)
    assert [row["fitness"] for row in read_rows(root / "results/small.jsonl")] == [2.5, 2.5, 3.5, 3.5]
    with pytest.raises(InputError, match=r"no cell has the word 'c'; e\.g\. a 0"):
        measure_whole(small(), words=["c"], say=lambda text: None, root=root)


def test_measured_again_and_equal(root):
    said = []
    assert check_again([small()], share=1.0, seed=5, say=said.append, root=root) == 0
    assert "4 rows of 4 cells measured again (seed 5): 0 values differ" in said[-1]


def test_measured_again_and_not_equal(root):
    rows = read_rows(root / "results/small.jsonl")
    rows[2]["fitness"] = 2.5000001
    rows[3]["fitness"] = 2.5000000000000004
    write_rows(root / "results/small.jsonl", rows)
    said = []
    assert check_again([small()], share=1.0, seed=5, say=said.append, root=root) == 1
    text = "\n".join(said)
    assert "results/small.jsonl, b 0: fitness is 2.5000001 in results/, 2.5 measured again" in text
    assert "1 values in their last digits only" in text
    said.clear()
    (root / "broken").touch()
    assert check_again([small()], words=["b"], say=said.append, root=root) == 1
    assert "small b 0 (0 s): FAILED: the disk is full; make room." in said


def test_what_was_trained_on_another_cpu_is_said_and_no_fault(root):
    machine = {"part": "machine", "row": {"processor_features": "of 1985"}}
    write_rows(root / "results/performance.jsonl", [machine])
    (root / "value.json").write_text("9.5")
    said = []
    assert check_again([small(trained=True)], share=1.0, seed=5, say=said.append, root=root) == 0
    assert sum("differs, as it may" in line and "9.5" in line for line in said) == 4
    assert check_again([small()], share=1.0, seed=5, say=said.append, root=root) == 4


def test_cells_are_measured_with_the_instructions_that_the_rows_were_measured_with(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "mine")
    monkeypatch.delenv("NPY_DISABLE_CPU_FEATURES", raising=False)
    monkeypatch.setattr(studies_run.platform, "machine", lambda: "x86_64")
    with studies_run.plain_vectors():
        code = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert "AVX512" not in found
    assert "X86_V4" not in found
    assert os.environ["OPENBLAS_CORETYPE"] == "mine"
    assert "NPY_DISABLE_CPU_FEATURES" not in os.environ


def test_other_settings_are_a_fault_even_where_the_figures_are_equal(root, monkeypatch):
    def changed(**changes):
        return small(settings=lambda cell, row, place: {"name": cell[0], "seed": cell[1], "rate": 0.5}, **changes)

    said = []
    assert check_again([small()], share=1.0, seed=5, say=said.append, root=root) == 0
    monkeypatch.setitem(studies_run.STUDIES, "small", changed)
    assert check_again([changed()], share=1.0, seed=5, say=said.append, root=root) == 4
    assert "results/small.jsonl, a 0: config_hash is" in "\n".join(said)
    write_rows(root / "results/performance.jsonl", [{"part": "machine", "row": {"processor_features": "of 1985"}}])
    assert check_again([changed(trained=True)], share=1.0, seed=5, say=said.append, root=root) == 4, "no CPU's doing"


def test_a_row_of_a_run_that_was_begun_with_other_settings_is_refused(root, monkeypatch):
    def of_a_run(cell, place):
        return [{**row, "config_hash": "0" * 64} for row in measure_one(cell, place)]

    monkeypatch.setitem(studies_run.STUDIES, "small", lambda: small(measure=of_a_run))
    said = []
    assert check_again([small()], words=["b"], say=said.append, root=root) == 2
    assert "comes from a run with config 000000000000, and its settings are now" in "\n".join(said)


def compared(old, new, **changes):
    return [(one.key, one.committed, one.measured) for one in differences(small(**changes), ("a", "0"), [old], [new])]


def test_rows_are_compared_value_by_value():
    old = {"scores": {"test": {"fitness": 1.0, "interval": [0.5, 0.6]}}, "text": "x"}
    assert compared(old, json.loads(json.dumps(old))) == []
    assert compared({"a": [1, 2]}, {"a": (1, 2)}) == [], "as in a file"
    new = {"scores": {"test": {"fitness": 1.0, "interval": [0.5, 0.61]}}, "text": "x"}
    assert compared(old, new) == [("scores.test.interval[1]", 0.6, 0.61)]
    assert compared(old, {"scores": old["scores"]}) == [("text", "x", None)]
    assert compared({"n": 1}, {"n": 1.0}) == [("n", 1, 1.0)]
    assert compared({"a": [1, 2]}, {"a": [1]}) == [("a", [1, 2], [1])]
    assert [one.key for one in differences(small(), ("a", "0"), [old], [])] == ["rows"]


def test_times_may_differ_within_their_factor():
    within = {"median": 3.0}
    assert compared({"median": 1.0}, {"median": 2.9}, within=within) == []
    assert compared({"median": 2.9}, {"median": 1.0}, within=within) == []
    assert compared({"median": 1.0}, {"median": 3.1}, within=within) == [("median", 1.0, 3.1)]
    assert compared({"median": 1.0}, {"median": -1.0}, within=within) == [("median", 1.0, -1.0)]
    assert compared({"median": 1.0}, {"median": None}, within=within) == [("median", 1.0, None)]
    assert compared({"median": {"own": [1.0, 0]}}, {"median": {"own": [2.9, 0]}}, within=within) == []
    assert compared({"median": {"own": 0}}, {"median": {"own": 2.9}}, within=within) == [("median.own", 0, 2.9)]
    assert compared({"own": {"mean": 1.0}}, {"own": {"mean": 2.9}}, within=within) == [("own.mean", 1.0, 2.9)]
    assert compared({"seconds": 1.0}, {"seconds": 50.0}) == []


def test_a_difference_of_settings_and_of_rounding():
    assert Difference("r", "config_hash", "a", "b").of_settings
    assert not Difference("r", "scores.fitness", 1, 2).of_settings
    assert not Difference("r", "scores.fitness", 1, 2).of_rounding
    assert Difference("r", "scores.fitness", 0.1 + 0.2, 0.3).of_rounding
    assert not Difference("r", "scores.fitness", 0.3, 0.3000001).of_rounding


def test_every_study_with_short_cells_takes_part_in_a_draw():
    studies = chosen([])
    for seed in range(20):
        found = drawn(studies, 0.02, seed, 15.0, 2)
        assert found == drawn(studies, 0.02, seed, 15.0, 2)
        names = {study.name for study, _ in found}
        short = {study.name for study in studies if any(study.cost(cell) <= 60 for cell in study.cells)}
        assert short <= names
        assert len(found) == len({(study.name, cell) for study, cell in found})
        long = sum(study.cost(cell) * (2 if study.alone else 1) for study, cell in found if study.cost(cell) > 60)
        assert long <= 15 * 60 * 2
    draws = [tuple((study.name, cell) for study, cell in drawn(studies, 0.02, seed, 15.0, 2)) for seed in range(20)]
    assert len(set(draws)) > 15, "another seed, other cells"


def test_about_the_share_is_drawn():
    tabular = chosen(["tabular"])
    counts = [len(drawn(tabular, 0.02, seed, 1e6, 2)) for seed in range(30)]
    assert set(counts) <= {24, 25}
    own = chosen(["own_models"])
    assert len(drawn(own, 1.0, 0, 1e6, 2)) == 300


def test_what_is_missing_is_said(root):
    said = []
    assert check_again([small(needs=("no_such_package",))], share=1.0, say=said.append, root=root) == 0
    assert "small: left out: needs no_such_package, which is not installed (make install-… brings it)" in said
    with pytest.raises(InputError, match="small: needs no_such_package"):
        measure_whole(small(needs=("no_such_package",)), say=said.append, root=root)


def test_fashion_is_needed_by_its_cells_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOQUANT_DATA", str(tmp_path / "nowhere"))
    study = STUDIES["own_models"]()
    why = dataclasses.replace(study, needs=()).missing(("fashion_cnn", "0", "rivals"))
    assert why is not None
    assert "dataset-fashion-mnist" in why
    assert dataclasses.replace(study, needs=()).missing(("tabular", "0", "rivals")) is None


def test_wrong_names_are_one_message(capsys):
    assert studies_main.results_main(["--render", "--only", "searchs"]) == 2
    assert "no study is called 'searchs'; known: journey" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        studies_main.results_main(["--again", "2"])
    assert left.value.code == 2


def test_outside_the_repository_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(studies_main, "ROOT", tmp_path)
    assert studies_main.study_main("baselines", ["--render"]) == 2
    assert "holds no configs/ and results/" in capsys.readouterr().err


def test_rendering_twice_changes_nothing(root):
    place = Place(root, root)
    assert render(small(), place) == []
    (root / "results/small.md").write_text("typed\n")
    assert render(small(), place) == [root / "results/small.md"]
