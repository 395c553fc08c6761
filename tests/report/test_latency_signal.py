"""Reports say where a measured cost cannot tell the champion from what it is compared with."""

import json
import re

import numpy as np
import pytest

from evoquant import api
from evoquant.errors import InputError
from evoquant.profiles.builtin import any_profile
from evoquant.quantization.precision import Menu
from evoquant.report import page_verdict
from evoquant.report.counted import Counted
from evoquant.report.data import load_run
from evoquant.report.gate import gate_table
from evoquant.report.series import gate_rows, run_series
from evoquant.report.tables import run_tables
from evoquant.scoring.cost import Cost, checked_cost

SHARES = {"INT4": 0.4, "INT8": 0.5, "FP32": 1.0}
CAMPAIGN = """
models: {train: [seed/test], valid: [], test: []}
menu: [INT4, INT8, FP32]
objective: {kind: feasible_first, floor: 0.5}
genome: {kind: direct}
search: {kind: genetic, population: 8}
stop: {generations: 2}
executor: {kind: local}
"""


def table(noise):
    layers = [
        {"name": layer.name, "values": {width: round(layer.parameters * share) for width, share in SHARES.items()}}
        for layer in any_profile("seed/test").layers
    ]
    whole = {"schema": "evoquant.cost_table", "version": 1, "layers": layers}
    return whole if noise is None else {**whole, "noise": noise}


def figures(tmp_path, noise, under):
    (tmp_path / "t.json").write_text(json.dumps(table(noise)))
    (tmp_path / "own.yaml").write_text(CAMPAIGN + under)
    run = load_run(api.run(tmp_path / "own.yaml", out=tmp_path / "run").path)
    notes = [note for one in run_tables(run) for note in one.notes]
    return run.champion.scores["train"], notes, page_verdict.verdict_html(run, run_series(run))


@pytest.mark.parametrize("under", ["cost: {kind: table, file: t.json}", "costs: {phone: {kind: table, file: t.json}}"])
def test_a_champion_within_the_noise_of_the_widest_is_said_to_be(tmp_path, under):
    parameters = any_profile("seed/test").parameters
    found, notes, verdict = figures(tmp_path, int(parameters * 0.29), under)  # all INT4 is just told from FP32
    (row,) = found["signals"]
    assert row["widest"] == parameters and row["widest"] - row["value"] < 2 * row["noise"] and not row["present"]
    assert any("no latency signal here: " in note and "of FP32 throughout" in note for note in notes)
    assert re.search(r'<p class="warning">(cost|phone): no latency signal here: [^<]*of FP32 throughout', verdict)
    assert verdict.count("signal here") == 1


def test_how_far_apart_it_is_beside_the_noise_is_said_too_and_nothing_where_nobody_measured(tmp_path):
    found, notes, verdict = figures(tmp_path, 10, "cost: {kind: table, file: t.json}")
    assert found["signals"][0]["present"] and found["cost"]["noise"] == 10
    assert any("throughout; the noise is 10 ns" in note for note in notes)
    assert "throughout; the noise is 10 ns" in verdict and 'class="warning"' not in verdict
    (tmp_path / "other").mkdir()
    found, notes, verdict = figures(tmp_path / "other", None, "cost: {kind: table, file: t.json}")
    assert "signals" not in found and "noise" not in found["cost"] and not any("noise" in note for note in notes)
    assert "noise" not in verdict


def test_the_gate_names_rivals_that_the_cost_cannot_tell_from_the_champion():
    row = {"fitness": 1.0, "retention": 0.9, "effective_bits": 4.0, "kind": "uniform"}
    champion = {**row, "name": "champion", "compression": 2.0}
    rivals = [{**row, "name": "INT8", "compression": 2.1}, {**row, "name": "INT4", "compression": 4.0}]
    gate = {"champion": champion, "rivals": rivals, "recommended": {"name": "champion"}, "samples": 9, "passes": 3}
    gate |= {"warnings": [], "left_out": {}}
    notes = gate_table(gate, counted=Counted("nanoseconds", 1_000_000, 20_000)).notes
    assert notes == ("no latency signal here between the champion and INT8: less than twice the noise of 20 µs apart.",)
    assert gate_table(gate, counted=Counted("nanoseconds", 1_000_000)).notes == ()
    page = page_verdict._gate(gate_rows(gate), gate, Counted("nanoseconds", 1_000_000, 20_000))
    assert f'<p class="warning">{notes[0]}</p>' in page
    assert "signal" not in page_verdict._gate(gate_rows(gate), gate, Counted("nanoseconds", 1_000_000))


@pytest.mark.parametrize("noise", [-1, 0.5, "much"])
def test_a_noise_that_is_none_is_told(noise):
    profile = any_profile("seed/test")
    members = [(i,) for i in range(len(profile.layers))]

    def mine(*_):
        return Cost("joules", np.ones((len(members), 1), dtype=np.int64), 0, 100, noise)

    with pytest.raises(InputError, match="noise: should be a whole number from 0, or None"):
        checked_cost(mine, profile, Menu.parse(["FP32"]), members)
