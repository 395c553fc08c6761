import math

import pytest

from evoquant.bench.contest import Measure, Way, interleaved, ratios, seconds_of
from evoquant.bench.speed import TOPICS, machine, measured
from evoquant.errors import InputError
from evoquant.report.performance import TITLES, figure, machine_note, performance_table


def test_ways_take_turns_and_every_other_round_is_turned_round():
    calls = []

    def way(name):
        return Way(lambda: calls.append(name))

    interleaved({"a": way("a"), "b": way("b")}, rounds=2)
    turns = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    assert turns == ["a", "b", "a", "b", "a"]  # warmed up, a then b, b then a


def test_a_rate_counts_the_items_of_a_call():
    rates = interleaved({"one": Way(lambda: None), "many": Way(lambda: None, items=1e6)}, rounds=1)
    assert rates["many"][0] > 1000 * rates["one"][0]


def test_a_short_call_is_repeated_until_the_clock_can_see_it():
    calls = []
    seconds_of(lambda: calls.append(1), least_s=0.005)
    assert len(calls) > 10


def test_ratios_are_taken_round_by_round():
    (measure,) = ratios("rules", {"ours": [20.0, 30.0], "plain": [10.0, 10.0]}, "ours", {"plain": 2.5})
    assert measure.values == (2.0, 3.0) and measure.median == 2.5 and measure.met


@pytest.mark.parametrize(
    ("unit", "value", "met"),
    [("x", 3.0, True), ("x", 1.0, False), ("1/s", 3.0, True), ("%", 3.0, False), ("%", 1.0, True), ("s", 3.0, False)],
)
def test_what_meets_a_goal_depends_on_the_unit(unit, value, met):
    assert Measure("rules", "what", (value,), unit, goal=2.0).met is met


def test_without_a_goal_nothing_is_met():
    assert Measure("rules", "what", (1.0,), "x").met is None


def test_every_topic_has_a_title_and_a_wrong_one_is_named():
    assert tuple(TITLES) == TOPICS
    with pytest.raises(InputError, match="rules"):
        list(measured(["rulse"]))


def test_the_table_shows_median_spread_goal_and_remark():
    rows = [
        Measure("rules", "a | b", (1.0, 4.0, 2.0), "x", 3.0, {"a": 2.5e6}, "how").to_row(),
        Measure("rules", "c", (1.0,), "s").to_row(),
    ]
    table = performance_table("rules", rows)
    assert table.rows[0] == ("a | b", "2x", "1x to 4x", "≥ 3x, missed", "a 2.5M/s")
    assert table.rows[1][3] == "" and "how" in table.notes


def test_figures_have_three_digits_and_their_unit():
    assert [figure(v, "1/s") for v in (1.5, 1500, 2.345e6, 3e9)] == ["1.5/s", "1.5k/s", "2.35M/s", "3G/s"]
    assert figure(1234.5, "x") == "1234x" and figure(7.25, "%") == "7.2%" and figure(math.pi, "s") == "3.14 s"


def test_the_machine_is_described():
    about = machine()
    assert about["cpu"] in machine_note(about) and "numpy" in machine_note(about)
