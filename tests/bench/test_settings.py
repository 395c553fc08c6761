"""Every committed row says by its `config_hash` with which settings it was measured, and the code still has them."""

import dataclasses
import shutil

import pytest

from evoquant.bench import leave_one_out, outside, own_models, runtimes, settings, studies_speed, studies_suite, study
from evoquant.bench.settings import campaign_hash, settings_hash, stated, with_hash
from evoquant.bench.speed import TOPICS
from evoquant.bench.studies import ROOT, Place
from evoquant.bench.studies_run import STUDIES
from evoquant.campaign.config import NOT_HASHED, load_config
from evoquant.errors import InputError
from evoquant.files import canonical_hash
from evoquant.quantization.precision import Menu
from evoquant.scoring.objective import Cliff

PLACE = Place(ROOT, ROOT)
# The log of every look at TEST is no table of measured rows: entries are only ever added, and each has the hashes of
# all 40 campaigns whose champions looked, the latest of which are held against the champions' own below.
NO_TABLE = "test_log"


def rows_of(name):
    """(cell, row) of all of a study's rows, one part of those that several cells measure; the machine has no cell."""
    made, found, seen = STUDIES[name](), [], set()
    for cell in made.cells:
        for row in made.part(cell, PLACE):
            shared = "model" in row and "campaign" not in row
            if not shared or (row["model"], row["config_hash"]) not in seen:
                found.append((cell, row))
                seen.add((row.get("model"), row["config_hash"]))
    return found + [((), row) for row in PLACE.rows(name) if "machine" in (row.get("part"), row.get("file"))]


def stale(name, place=PLACE, **changes):
    """Rows that were measured with other settings than the code has now."""
    made = dataclasses.replace(STUDIES[name](), **changes)
    return [row for cell, row in rows_of(name) if row["config_hash"] != made.hash_of(cell, row, place)]


def test_every_row_says_where_it_comes_from():
    for path in sorted((ROOT / "results").glob("*.jsonl")):
        if path.stem != NO_TABLE:
            lacking = [row for row in PLACE.rows(path.stem) if len(row.get("config_hash", "")) != 64]
            assert lacking == [], f"{path.name}: {len(lacking)} rows without a config_hash"


def test_the_log_of_looks_at_test_names_the_champions_campaigns():
    latest = PLACE.rows(NO_TABLE)[-1]["campaigns"]
    for name, look in latest.items():
        mine = sorted(row["config_hash"] for row in PLACE.rows("transfer") if row["campaign"] == name)
        assert look["config_hash"] == mine


@pytest.mark.parametrize("name", STUDIES)
def test_rows_were_measured_with_the_settings_that_the_code_has(name):
    found = stale(name)
    assert found == [], (
        f"{len(found)} rows of results/{name}.jsonl were measured with other settings than the code has now: measure "
        f"them anew, python {STUDIES[name]().script}"
    )


def test_a_row_of_one_campaign_has_the_hash_of_its_config():
    row = PLACE.rows("free_evolution")[3]
    config, _ = load_config(PLACE.config(row["campaign"]), [f"seed={row['seed']}"])
    assert row["config_hash"] == config.hash()


OF_CAMPAIGNS = (
    *("journey", "free_evolution", "digits", "transfer", "gap", "searches", "hypervolume"),
    *("own_models", "leave_one_out", "onnx", "outside", "outside_networks", "export"),
)


def test_a_changed_config_is_found_in_every_study_that_rests_on_campaigns(tmp_path):
    (tmp_path / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        key = "report_test_by_generation: true\n"
        text = text.replace(key, "") if key in text else f"{text}\n{key}"
        (tmp_path / "configs" / path.name).write_text(text, encoding="utf-8")
    found = {name: len(stale(name, Place(tmp_path, tmp_path))) for name in OF_CAMPAIGNS}
    every = {name: len(rows_of(name)) for name in found}
    assert found == every | {"outside": 240}, "searches on frozen tables have no config"


# study, where a setting of its own stands, its name, another value, rows that it concerns
@pytest.mark.parametrize(
    ("name", "module", "setting", "value", "rows"),
    [
        ("baselines", studies_suite, "CLIFF", Cliff(0.9), 108),
        ("gap", studies_suite, "SEED_MENU", Menu.parse(["INT4", "FP32"]), 3),
        ("tabular", study, "POINTS", (20, 50, 100), 1204),
        ("tabular", study, "SEARCHES", study.SEARCHES | {"random": study.SEARCHES["tpe"]}, 200),
        ("outside", outside, "SUITE_EVALUATIONS", 500, 240),
        ("outside", outside, "EVALUATIONS", 500, 240),
        ("own_models", own_models, "FRONT_POINTS", 30, 160),
        ("own_models", own_models, "EVALUATIONS", 300, 60),
        ("leave_one_out", leave_one_out, "GENERATIONS", 90, 40),
        ("onnx", runtimes, "DRAWN", 30, 8),
        ("reliability", studies_speed, "FUZZ_S", 60, 6),
    ],
)
def test_a_changed_setting_is_found_in_the_rows_that_it_concerns(monkeypatch, name, module, setting, value, rows):
    monkeypatch.setattr(module, setting, value)
    assert len(stale(name)) == rows


def test_a_changed_constant_of_a_measurement_is_found(monkeypatch, tmp_path):
    bench, faults = tmp_path / "bench", tmp_path / "tests/faults"
    shutil.copytree(studies_speed.BENCH, bench, ignore=shutil.ignore_patterns("*.xz", "__pycache__"))
    shutil.copytree(ROOT / "tests/faults", faults, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(studies_speed, "BENCH", bench)
    place = Place(tmp_path, tmp_path)
    assert stale("performance", place) + stale("reliability", place) == []
    replace(bench / "speed_trees.py", "TREES = 1000", "TREES = 1_000  # the same")
    assert stale("performance", place) == []
    replace(bench / "speed_trees.py", "TREES = 1_000", "TREES = 999")
    assert {row["part"] for row in stale("performance", place)} == {"trees"}
    replace(bench / "contest.py", "ROUNDS = 5", "ROUNDS = 6")
    assert {row["part"] for row in stale("performance", place)} == set(TOPICS)
    replace(faults / "judging.py", "pytest.param(2500", "pytest.param(2600")
    assert {row["file"] for row in stale("reliability", place)} == {"test_input", "test_input_networks"}


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_another_protocol_is_found_where_rows_report_no_campaign():
    assert len(stale("baselines", protocol=2)) == 108
    assert stale("free_evolution", protocol=2) == []


def test_settings_and_campaigns_have_the_same_kind_of_hash():
    data = load_config(PLACE.config("evolve"))[0].to_dict()
    kept = {key: value for key, value in data.items() if key not in NOT_HASHED}
    assert campaign_hash(PLACE.config("evolve")) == canonical_hash(kept)
    assert settings_hash("small", {"b": 1, "a": [2.5]}) == canonical_hash(
        {"a": [2.5], "b": 1, "protocol": 1, "study": "small"}
    )


def test_a_measured_row_keeps_the_hash_of_its_run_or_gets_one():
    assert with_hash({"fitness": 1.0}, "x" * 64, "here") == {"fitness": 1.0, "config_hash": "x" * 64}
    assert with_hash({"config_hash": "x" * 64}, "x" * 64, "here") == {"config_hash": "x" * 64}
    with pytest.raises(InputError, match="gap named: comes from a run with config yyyyyyyyyyyy, and its settings are"):
        with_hash({"config_hash": "y" * 64}, "x" * 64, "gap named")


def test_what_a_module_states(tmp_path):
    text = """from .beside import TRIED, helper
from pathlib import Path

LIMIT_S, NAMES = 2.5, ("a", b"b")  # remark
HERE = Path(__file__)
NAMES += ("c",)
TYPED: dict[str, int] = {"d": 1_000, "e": None}
lower = 7


def work():
    LOCAL = 8
"""
    (tmp_path / "module.py").write_text(text, encoding="utf-8")
    (tmp_path / "beside.py").write_text("TRIED = [40, 2500]\nOTHER = 1\n", encoding="utf-8")
    together = [2.5, "a", "b'b'"]
    assert stated(tmp_path / "module.py") == {
        "LIMIT_S": together,
        "NAMES": [*together, "c"],
        "HERE": [],
        "TYPED": ["d", "e", 1000, None],
        "TRIED": [40, 2500],
    }
    assert stated(tmp_path / "module.py", also=("beside",))["OTHER"] == [1]
    (tmp_path / "module.py").write_text("x = (", encoding="utf-8")
    with pytest.raises(InputError, match=r"module\.py: is no Python"):
        stated(tmp_path / "module.py")


def test_a_search_that_is_not_there_is_one_message():
    with pytest.raises(InputError, match="search"):
        settings.search_settings({"kind": "genetik"})
