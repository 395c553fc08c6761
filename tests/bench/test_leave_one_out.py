import json
from types import SimpleNamespace

import numpy as np
import pytest

from evoquant.bench.leave_one_out import evolve, expected_optimum, measured_in, optimism
from evoquant.genomes.tree import Tree
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.quantization.precision import Menu
from evoquant.report.leave_one_out import leave_one_out_tables
from evoquant.rng import generator_for
from evoquant.scoring.expected_loss import with_expected_loss
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem

MENU = Menu.parse(["INT2", "INT4", "INT8", "FP16"])


def profile(seed, with_losses=True):
    """Losses are what the Fisher costs of a regression let expect."""
    rng = generator_for(seed, 0, "profile")
    layers = []
    for i in range(12):
        narrowest = float(np.exp(rng.normal(-4.0, 1.5)))
        fisher = {name: narrowest / 16.0**k for k, name in enumerate(MENU.names)}
        loss = {name: 1.0 - float(np.exp(-2.0 * nats)) for name, nats in fisher.items()} if with_losses else {}
        size = (int(rng.integers(20, 200)),)
        layers.append(LayerProfile(f"l{i}", "Linear", size, i / 11, fisher=fisher, loss=loss))
    return with_expected_loss(ModelProfile(f"model {seed}", tuple(layers)), "r2")


def test_what_is_evolved_on_some_models_is_good_on_another(tmp_path, monkeypatch):
    monkeypatch.setattr("evoquant.bench.leave_one_out.GENERATIONS", 12)
    paths = []
    for seed in range(2):
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(profile_to_json(profile(seed)), encoding="utf-8")
    champion = evolve(paths, "tree", MENU, 0, tmp_path / "tree")
    assert isinstance(champion.genome, Tree)
    assert evolve(paths, "tree", MENU, 0, tmp_path / "tree").genome == champion.genome, "read back, not run again"
    unseen = compile_problem(profile(2, with_losses=False), MENU)
    truth = compile_problem(profile(2), MENU)
    rows = np.arange(12)

    def fitness(allocation):
        retention = np.exp(-truth.loss[rows, allocation].sum() / 2.0**40)
        compression = truth.cost.reference / truth.cost.table[rows, allocation].sum()
        return float(Cliff().score(retention, compression, np.array(0.0)))

    best = fitness(expected_optimum(unseen, Cliff()))
    assert fitness(champion.genome.allocate(unseen)) > 0.9 * best
    assert best > max(fitness(np.full(12, width)) for width in range(4))


def test_what_was_measured_in_full_is_read_from_a_journal():
    problem = compile_problem(profile(0), MENU)
    measurement = {"status": "ok", "retention": 0.98, "standard_error": 0.0049, "divergence": 0.01}
    record = {
        "population": {"genes": [[1] * 12, [0] * 12, [2] * 12]},
        "measured": {
            "allocations": ["a", "b", "c"],
            "measurements": {"a": measurement, "b": {**measurement, "status": "censored"}},
        },
    }
    found = measured_in(SimpleNamespace(journal=[record, {"population": {"genes": []}}]), problem)
    assert found.allocations.tolist() == [[1] * 12]
    assert found.loss.tolist() == pytest.approx([-np.log(0.98)])
    assert found.standard_error.tolist() == pytest.approx([0.005])


def test_optimism_is_what_fresh_data_take_away_and_never_negative():
    def champion(calibration, selection, gate):
        names = ("calibration", "selection", "gate")
        figures = zip(names, (calibration, selection, gate), strict=True)
        return SimpleNamespace(scores={name: {"retention": value, "samples": 100} for name, value in figures})

    assert optimism(champion(1.0, 0.99, 0.98)) == pytest.approx(-np.log(0.99 * 0.98) / 2)
    assert optimism(champion(0.98, 0.99, 1.0)) == 0.0


def test_shares_are_taken_seed_by_seed():
    def row(name, seed, fitness, **more):
        figures = {"fitness": fitness, "retention": 0.99}
        return {
            "task": "t",
            "seed": seed,
            "name": name,
            "scores": dict.fromkeys(("calibration", "selection", "test"), figures),
        } | more

    learnt = [row("tree", seed, value, text="bits", train=0.97) for seed, value in ((0, 9.0), (1, 8.0))]
    (table,) = leave_one_out_tables(
        [*learnt, row("searched", 0, 10.0), row("searched", 1, 10.0)], ["searched", "other"]
    )
    assert table.rows[0][-1] == "85.0% (80.0%)"
    assert table.rows[1][-1] == "100.0% (100.0%)"
    assert "tree: `bits`" in table.notes
    assert json.dumps(table.rows[0][2]) == '"97.0%"'
