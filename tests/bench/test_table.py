import numpy as np
import pytest

from evoquant.bench.shipped import read_arrays, write_arrays
from evoquant.bench.table import NAMES, load_table
from evoquant.errors import InputError
from evoquant.scoring.objective import FeasibleFirst
from evoquant.scoring.statistics import paired_retention

OPTIMUM = {"digits-cnn": (60059, 11.87085), "fashion-mixer": (104982, 9.95641)}


@pytest.mark.parametrize("name", NAMES)
def test_the_optimum_is_the_one_that_is_published(name):
    table = load_table(name)
    row, fitness = OPTIMUM[name]
    assert len(table) == len(table.problem.menu) ** len(table.problem.units)
    assert table.optimum == row
    assert table.fitness[row] == pytest.approx(fitness, abs=1e-5)
    assert (table.fitness <= table.fitness[row]).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_allocations_are_each_others_inverse(name):
    table = load_table(name)
    rows = np.arange(0, len(table), 997)
    assert (table.rows(table.allocations(rows)) == rows).all()
    units, widths = len(table.problem.units), len(table.problem.menu)
    first = np.zeros((1, units), dtype=np.int8)
    first[0, 0] = 1
    assert table.rows(first)[0] == widths ** (units - 1)


@pytest.mark.parametrize("name", NAMES)
def test_counts_fit_the_splits_and_wider_is_nearer(name):
    table = load_table(name)
    for split, right in table.right.items():
        assert right.max() <= table.samples[split]
    assert (table.gained <= table.right["calibration"]).all()
    assert (table.gained + 0 <= table.samples["calibration"] - table.reference["calibration"]).all()
    assert table.divergence[-1] == table.divergence.min() < 1e-3  # the widest everywhere
    assert table.retention(np.array([len(table) - 1]))[0] == pytest.approx(1.0, abs=0.005)


def test_standard_error_is_that_of_the_paired_samples():
    table = load_table("digits-cnn")
    rows = np.array([table.optimum, 5, len(table) - 1])
    n, reference = table.samples["calibration"], table.reference["calibration"]
    for row, error in zip(rows.tolist(), table.standard_error(rows).tolist(), strict=True):
        right, gained = int(table.right["calibration"][row]), int(table.gained[row])
        full = np.zeros(n)
        full[:reference] = 1
        quantized = np.zeros(n)
        quantized[: right - gained] = 1
        quantized[n - gained :] = 1 if gained else 0
        expected = paired_retention(quantized, full)
        assert error == pytest.approx(expected.standard_error, rel=1e-9)
        assert table.retention(np.array([row]))[0] == pytest.approx(expected.value)


def test_scores_follow_the_objective_and_the_split():
    table = load_table("fashion-mixer")
    rows = np.array([table.optimum, 0])
    own = table.score(rows, "test", FeasibleFirst(0.9))
    assert own.fitness[0] == own.compression[0, 0]
    assert own.fitness[1] == pytest.approx(table.retention(rows, "test")[1] - 1)


def test_unknown_tables_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match="digits-cnm"):
        load_table("digits-cnm")
    path = tmp_path / "a.npz.xz"
    write_arrays(path, {"x": np.arange(5)})
    assert (read_arrays(path)["x"] == np.arange(5)).all()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"a\.npz\.xz.*--rebuild"):
        read_arrays(path)
