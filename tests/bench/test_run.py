import numpy as np
import pytest

from evoquant.bench.rivals import Flips, Steepest, uniform_genes
from evoquant.bench.run import run_on_table, signal_evaluations
from evoquant.bench.study import SEARCHES, Job, facts, row_of, run_study, trajectory
from evoquant.bench.table import load_table
from evoquant.errors import InputError
from evoquant.genomes.direct import DirectSpace
from evoquant.report.tabular import tabular_table
from evoquant.search.base import NO_PARENT, CandidateBatch

TABLE = load_table("digits-cnn")
SPACE = DirectSpace(TABLE.problem)
QUICK = [name for name in SEARCHES if name not in ("tpe", "surrogate")]


class Scripted:
    """Asks for given rows of the table, batch by batch."""

    def __init__(self, *batches):
        self.batches = list(batches)
        self.told = []

    def ask(self):
        rows = np.array(self.batches.pop(0))
        parents = np.full((len(rows), 2), NO_PARENT)
        return CandidateBatch(0, parents, ("x",) * len(rows), genes=TABLE.allocations(rows).astype(float))

    def tell(self, evaluations):
        self.told.append(evaluations)

    def done(self):
        return not self.batches


def test_distinct_allocations_are_counted_and_the_best_so_far_is_kept():
    last = len(TABLE) - 1
    search = Scripted([last, last, 0], [last, TABLE.optimum], [7])
    found = run_on_table(search, SPACE, TABLE, 10)
    assert found.spent == 4
    expected = TABLE.fitness[[last, last, TABLE.optimum, TABLE.optimum]]
    assert found.best[:4] == pytest.approx(expected)
    assert found.rows.tolist() == [last] * 2 + [TABLE.optimum] * 8
    assert [len(one) for one in search.told] == [3, 2, 1]


def test_the_budget_is_exact_within_a_batch():
    found = run_on_table(Scripted([1, 2, TABLE.optimum], [5]), SPACE, TABLE, 2)
    assert found.spent == 2 and TABLE.optimum not in found.rows


def test_evaluations_are_those_of_a_measured_campaign():
    search = Scripted([TABLE.optimum])
    run_on_table(search, SPACE, TABLE, 1)
    (told,) = search.told
    rows = np.array([TABLE.optimum])
    assert told.fitness[0] == TABLE.fitness[TABLE.optimum]
    assert told.retention[0, 0] == TABLE.retention(rows)[0]
    assert told.standard_error[0] == 0  # the table is the truth
    assert told.divergence[0] == pytest.approx(TABLE.divergence[TABLE.optimum])


def test_signals_are_paid_for():
    assert signal_evaluations(TABLE, ()) == 0
    assert signal_evaluations(TABLE, ("fisher",)) == 1
    assert signal_evaluations(TABLE, ("divergence",)) == signal_evaluations(TABLE, ("loss",)) > 24
    found = run_on_table(Scripted([TABLE.optimum], [3]), SPACE, TABLE, 3, spent=1)
    assert found.best[0] == 0 and found.rows[0] == -1
    assert found.rows[1:].tolist() == [TABLE.optimum] * 2


def test_a_search_that_repeats_itself_comes_to_an_end():
    found = run_on_table(Scripted(*[[3]] * 1000), SPACE, TABLE, 5)
    assert found.spent == 1


@pytest.mark.parametrize("name", QUICK)
def test_every_search_runs_and_repeats(name):
    first, again = (trajectory(Job("digits-cnn", name, 4, 40)) for _ in range(2))
    assert (first.rows == again.rows).all()
    assert (np.diff(first.best) >= 0).all() and first.best[-1] > 0
    assert first.spent == 40
    other = trajectory(Job("digits-cnn", name, 5, 40))
    assert (other.rows != first.rows).any() == SEARCHES[name].seeded


def test_the_surrogate_pays_for_its_signal():
    found = trajectory(Job("digits-cnn", "surrogate", 0, 12))
    assert found.rows[0] == -1 and found.best[-1] > TABLE.fitness[TABLE.rows(np.full((1, 8), 3))[0]]


def test_tpe_runs_and_repeats():
    pytest.importorskip("optuna")
    first, again = (trajectory(Job("digits-cnn", "tpe", 4, 15)) for _ in range(2))
    assert (first.rows == again.rows).all()
    assert set(TABLE.rows(uniform_genes(SPACE).astype(np.int8)).tolist()) & set(first.rows.tolist())


@pytest.mark.parametrize("rival", [Flips, Steepest])
def test_greedy_flips_stop_where_nothing_more_holds_the_floor(rival):
    search = rival(SPACE, 0.95)
    found = run_on_table(search, SPACE, TABLE, 400)
    assert search.done() and found.spent < 200
    retention = TABLE.retention(TABLE.rows(search._current[None].astype(np.int8)))
    assert retention[0] >= 0.95
    assert (search._current < 3).any()


def test_steepest_takes_the_narrowing_that_loses_least_per_bit():
    search = Steepest(SPACE, 0.95)
    run_on_table(search, SPACE, TABLE, 9)
    trials = np.full((8, 8), 3, dtype=np.int8)
    np.fill_diagonal(trials, 2)
    lost = TABLE.retention(np.array([len(TABLE) - 1]))[0] - TABLE.retention(TABLE.rows(trials))
    saved = TABLE.problem.cost.table[:, 3] - TABLE.problem.cost.table[:, 2]
    assert (search._current == trials[(lost / saved).argmin()]).all()


def test_rows_tables_and_processes():
    rows = run_study(["digits-cnn"], ["level_switch", "flips"], range(3), processes=2)
    assert [(row["search"], row["seed"]) for row in rows] == [
        *(("level_switch", seed) for seed in range(3)),
        ("flips", 0),
    ]
    assert rows[1] == row_of(Job("digits-cnn", "level_switch", 1))
    assert all(0 < row["share"]["20"] <= row["share"]["200"] <= 1 for row in rows)
    text = tabular_table(facts("digits-cnn"), rows).to_markdown()
    assert "| level_switch | 3 |" in text and "65,536 allocations" in text and "Optimum 11.87" in text
    assert f"{np.mean([row['share']['50'] for row in rows[:3]]):.1%}" in text


@pytest.mark.parametrize(("tables", "searches"), [(["nothing"], ["random"]), (["digits-cnn"], ["randon"])])
def test_unknown_names_are_refused(tables, searches):
    with pytest.raises(InputError, match=r"no (table|search) is called"):
        run_study(tables, searches, range(1))
