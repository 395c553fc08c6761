"""`evoquant bound` and the data behind it."""

import json
import os
import subprocess
import sys

import pytest

from evoquant.errors import InputError
from evoquant.profiles.model import profile_to_json
from evoquant.profiles.seed_suite import seed_profile
from evoquant.report.bound import bound_data, bound_tables, parse_objective, parse_pins
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst

NOTHING = {"threshold": None, "floor": None, "bits": None}


def command(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "evoquant.cli", "bound", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_table_says_it_all():
    text = command("seed/train").stdout
    for part in ("cliff, threshold 0.95", "3.239250", "proven optimal", "98.0989%", "1.9998x", "16.0016", "FP32"):
        assert part in text
    assert "Pareto front" not in text


def test_json_front_menu_pins_and_a_profile_file(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(profile_to_json(seed_profile("valid")))
    words = (path, "--json", "--front", "--at-least", 0.9, "--menu", "INT8,FP16", "--pin", "classifier=FP16")
    data = json.loads(command(*words, "--objective", "feasible_first", "--floor", 0.9).stdout)
    assert data["menu"] == ["INT8", "FP16"]
    assert data["objective"] == {"kind": "feasible_first", "floor": 0.9}
    assert data["optimum"]["exact"]
    assert data["optimum"]["allocation"]["classifier"] == "FP16"
    assert sum(taken["units"] for taken in data["optimum"]["widths"].values()) == 99
    front = data["front"]
    assert front["exact"]
    assert min(point["retention"] for point in front["points"]) >= 0.9
    assert data["optimum"]["compression"] == max(point["compression"] for point in front["points"])


def test_errors_are_one_line_and_name_the_fault():
    done = command("seed/train", "--pin", "clasifier=FP16", code=2)
    assert done.stderr.count("\n") == 1
    assert "pin clasifier=FP16" in done.stderr
    assert "Did you mean 'classifier'?" in done.stderr
    assert "--at-least belongs to --front" in command("seed/train", "--at-least", 0.9, code=2).stderr


def test_objectives_from_options():
    assert parse_objective("cliff", NOTHING) == Cliff(0.95)
    assert parse_objective("cliff", {**NOTHING, "threshold": 0.9}) == Cliff(0.9)
    assert parse_objective("feasible_first", {**NOTHING, "floor": 0.9}) == FeasibleFirst(0.9)
    assert parse_objective("budget", {**NOTHING, "bits": 5.0}) == BitBudget(5.0)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("clif", {}, "Did you mean 'cliff'"),
        ("cliff", {"bits": 3.0}, "--bits belongs to --objective budget; cliff takes --threshold"),
        ("budget", {}, "--objective budget needs --bits"),
        ("cliff", {"threshold": 1.0}, "--threshold 1: must lie above 0 and below 1"),
        ("feasible_first", {"floor": float("nan")}, "--floor nan"),
    ],
)
def test_options_that_do_not_fit(kind, given, message):
    with pytest.raises(InputError, match=message):
        parse_objective(kind, {**NOTHING, **given})


def test_pins_from_text():
    assert parse_pins(["a=INT8", "b=c=FP16"]) == {"a": "INT8", "b=c": "FP16"}
    for wrong in ("a", "=INT8", "a="):
        with pytest.raises(InputError, match="write LAYER=WIDTH"):
            parse_pins([wrong])
    with pytest.raises(InputError, match="'a' is pinned twice"):
        parse_pins(["a=INT8", "a=FP16"])


def test_long_fronts_are_thinned_out_for_the_screen():
    data = bound_data(seed_profile("valid"), Cliff(), front=True)
    optimum, widths, front = bound_tables(data)
    assert len(front.rows) == 24
    assert front.rows[0][0] == "2.0000"
    assert front.rows[-1][2] == f"{data['front']['points'][-1]['retention']:.4%}"
    assert f"24 of {len(data['front']['points']):,} points" in front.notes[0]
    assert [row[0] for row in widths.rows] == ["INT2", "INT4", "INT8", "FP16", "FP32"]
    assert dict(optimum.rows)["Method"] == data["optimum"]["method"]
