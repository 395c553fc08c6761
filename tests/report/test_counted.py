"""What is counted is what reports say: sizes under a cost that is no bits, and runs that count differently."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import evoquant
from evoquant.api.campaigns import begin
from evoquant.campaign.config import config_from_dict
from evoquant.errors import InputError
from evoquant.report.compare import compare
from evoquant.report.compare_tables import champions_table, compare_data
from evoquant.report.counted import Counted, counted_of
from evoquant.report.data import load_run
from evoquant.report.figures_front import front_figure
from evoquant.report.gate import gate_table
from evoquant.report.series import run_series
from evoquant.report.tables import run_tables
from evoquant.scoring.cost import bits_cost

ME = "counted_tests"
sys.modules[ME] = sys.modules[__name__]


class Joules:
    """As many as there are bits, and some for each layer."""

    def __init__(self, each=10**12):
        self.each = each

    def __call__(self, profile, menu, members):
        made = bits_cost(profile, menu, members)
        return replace(made, name="joules", table=made.table + self.each, reference=made.reference + self.each)


class Watts(Joules):
    def __call__(self, profile, menu, members):
        return replace(super().__call__(profile, menu, members), name="watts")


def begun(place, name="own", **changed):
    given = {
        "name": name,
        "models": {"train": ["seed/test"], "valid": [], "test": []},
        "search": {"kind": "nsga2", "population": 8},
        "stop": {"generations": 2},
        "executor": {"kind": "local"},
    }
    return begin(config_from_dict({**given, **changed}, "own.yaml"), "", place / name, "own.yaml")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("counted")
    costs = {"joules": {"kind": f"{ME}:Joules"}, "watts": {"kind": f"{ME}:Watts"}, "bits": None}
    return {name: begun(place, name, cost=cost).path for name, cost in costs.items()}


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def test_scores_and_archive_say_what_is_counted(runs):
    run = load_run(runs["joules"])
    tables = {table.title.partition(":")[0]: table for table in run_tables(run)}
    figures = run.champion.scores["train"]
    cost = figures["cost"]
    assert counted_of(run.champion.scores) == Counted("joules", cost["reference"])
    assert column(tables["Champion"], "Joules") == [f"{cost['value']:,} joules"]
    assert column(tables["Champion"], "Bits/weight") == [f"{figures['effective_bits']:.3f}"]
    assert tables["The search's archive"].notes[0] == "Compr. is of joules, FP32 / this."
    plain = {table.title.partition(":")[0]: table for table in run_tables(load_run(runs["bits"]))}
    assert "Joules" not in plain["Champion"].columns
    assert "Compr. is of" not in " ".join(plain["The search's archive"].notes)


def test_the_front_is_in_the_unit_of_the_cost(runs):
    for name, heading, unit in (("joules", "Joules", " joules"), ("bits", "Bits/weight", "")):
        series = run_series(load_run(runs[name]))
        figure = front_figure(series, {})
        marks, front = figure.tables[0], figure.tables[1]
        assert heading in marks.columns and front.columns[1] == heading
        assert all(cell.endswith(unit) for cell in (*column(marks, heading), *column(front, heading)))
        said = " ".join(str(trace.get("hovertemplate")) for trace in figure.plot["data"])
        assert ("bits per weight" in said) == (name == "bits")
    series = run_series(load_run(runs["joules"]))
    champion = load_run(runs["joules"]).champion.scores["train"]
    assert column(front_figure(series, {}).tables[0], "Joules")[0] == f"{champion['cost']['value']:,} joules"


def test_a_budget_is_said_in_the_unit_of_the_cost(tmp_path):
    goal = {"kind": "budget", "cost": 3 * 10**12}
    run = begun(tmp_path, cost={"kind": f"{ME}:Joules"}, objective=goal, search={"kind": "random", "population": 4})
    series = run_series(load_run(run.path))
    assert series.goal.budget_words() == "3,000,000,000,000 joules"
    notes = [note["text"] for note in front_figure(series, {}).plot["layout"]["annotations"]]
    assert notes == ["budget of 3,000,000,000,000 joules"]
    other = begun(tmp_path, "bits", objective={"kind": "budget", "effective_bits": 5.0})
    assert run_series(load_run(other.path)).goal.budget_words() == "5 bits per weight"


def test_a_gate_has_the_cost_beside_the_bits():
    row = {"name": "champion", "fitness": 1.0, "retention": 1.0, "compression": 4.0, "effective_bits": 8.0}
    gate = {"champion": row, "rivals": [], "recommended": {"name": "champion"}, "warnings": [], "left_out": {}}
    gate |= {"samples": 3, "passes": 4}
    assert column(gate_table(gate, counted=Counted("nanoseconds", 10_000)), "Nanoseconds") == ["2.5 µs"]
    assert "Nanoseconds" not in gate_table(gate).columns


def test_runs_that_count_differently_are_not_compared_unawares(runs):
    for other in ("bits", "watts"):
        with pytest.raises(InputError, match=r"cost is .* in .*: their fitness means different things"):
            compare([runs["joules"], runs[other]])
    made = compare([runs["joules"], runs["bits"]], split="train", anyway=True)
    table = champions_table(made)
    value = load_run(runs["joules"]).champion.scores["train"]["cost"]["value"]
    assert column(table, "Joules") == [f"{value:,} joules", "–"]
    assert table.notes == ("Compression is of joules, FP32 / champion, where these are given.",)
    first, second = (group["runs"][0]["scores"]["train"] for group in compare_data(made)["groups"])
    assert first["cost"] == value and "cost" not in second
    alone = champions_table(compare([runs["bits"]], split="train"))
    assert alone.columns == ("Group", "Retention", "Compression", "Bits/weight") and alone.notes == ()


def test_runs_from_a_programs_memory_are_called_by_their_directories(tmp_path):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    given = {"budget": 6, "menu": ["INT8-channel", "FP32"], "metric": "agreement", "floor": 0.5}
    paths = []
    for name, shift in (("first", 0.0), ("second", 1.0)):
        torch.manual_seed(3)
        network = torch.nn.Sequential(torch.nn.Linear(4, 3))
        with torch.no_grad():
            network[0].bias += shift
        paths.append(evoquant.optimize(network, x, name="mine", run_dir=tmp_path / name, **given).path)
    assert [group.label for group in compare(paths, anyway=True).groups] == ["mine, first", "mine, second"]
    with pytest.raises(InputError, match="second: the model's digest is '"):
        compare(paths)
