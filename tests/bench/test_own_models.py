import numpy as np
import pytest

from evoquant.report.own_models import own_models_tables, paired_share


def row(name, seed, test, selection=1.0):
    figures = {"fitness": test, "retention": 0.98, "compression": 6.0}
    scores = {split: dict(figures) for split in ("calibration", "gate", "test")}
    scores["selection"] = {**figures, "fitness": selection}
    return {"task": "t", "seed": seed, "name": name, "passes": 15.0, "allocations": 9, "scores": scores}


def test_shares_are_paired_by_seed_with_an_interval():
    share, low, high = paired_share(np.array([9.0, 19.0, 29.0]), np.array([10.0, 20.0, 30.0]))
    ratios = np.array([0.9, 0.95, 29 / 30])
    assert share == pytest.approx(ratios.mean())
    assert high - share == pytest.approx(4.302653 * ratios.std(ddof=1) / 3**0.5)
    assert low == pytest.approx(2 * share - high)


def test_one_seed_proves_nothing():
    assert paired_share(np.array([9.0]), np.array([10.0])) == (0.9, float("-inf"), float("inf"))


def test_the_row_that_selection_prefers_is_the_measure_of_all():
    rows = [row("a", seed, 10.0 + seed, selection=2.0) for seed in range(3)]
    rows += [row("b", seed, 5.0 + seed / 2) for seed in range(3)]
    rows += [row("c", seed, value) for seed, value in enumerate((9.0, 12.0, 12.5))]
    table, _ = own_models_tables(rows)
    assert [cells[0] for cells in table.rows] == ["a (best on selection)", "b", "c"]
    assert [cells[-1] for cells in table.rows] == ["—", "behind", "not distinguishable"]
    assert table.rows[1][-3] == "50.0%"


def test_goals_are_judged_by_medians_and_said_to_be_open_where_the_interval_holds_them():
    rows = [row("plain evolution", seed, 10.0, selection=2.0) for seed in range(3)]
    for name, values in (("15", (9.6, 9.6, 9.61)), ("25", (9.9, 9.9, 8.0)), ("80", (9.0, 9.0, 9.1))):
        rows += [row(f"evoquant tree, {name} passes", seed, value) for seed, value in enumerate(values)]
    rows[3]["scores"]["test"]["retention"] = 0.949
    rows[3]["scores"]["calibration"]["fitness"] = 12.0
    _, goals = own_models_tables(rows)
    assert [cells[1:4] for cells in goals.rows] == [
        ("95%", "96.0%", "met"),
        ("98%", "99.0%", "met, not distinguishable"),
        ("100%", "90.0%", "missed"),
    ]
    assert [cells[4] for cells in goals.rows] == ["1 of 3", "0 of 3", "0 of 3"]
    assert goals.rows[0][5:] == ("+0.0%", "+0.0%"), "medians"


@pytest.mark.long
def test_a_whole_study_of_a_small_network(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from evoquant.bench import own_models

    monkeypatch.setattr(own_models, "EVALUATIONS", 24)
    config = tmp_path / "digits.yaml"
    config.write_text(
        "name: digits\ntask: {kind: digits}\nsignals: [fisher]\nsearch: {kind: surrogate}\n"
        "menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]\nstop: {passes: 9, generations: 1000}\n",
        encoding="utf-8",
    )
    study = own_models.Study(config, 0, tmp_path)
    campaigns = ("evoquant direct, 9 passes", "evoquant tree, 9 passes")
    ways = ("rivals", "random search", "plain evolution", *campaigns)
    rows = {one["name"]: one for way in ways for one in own_models.way_rows(study, way)}
    assert rows["plain evolution"]["passes"] == 25 == rows["random search"]["passes"]
    own = rows["plain evolution, best on calibration"]["scores"]["calibration"]["fitness"]
    assert (
        own
        >= rows["plain evolution"]["scores"]["calibration"]["fitness"]
        > rows["uniform FP16"]["scores"]["test"]["fitness"]
    )
    assert rows["evoquant direct, 9 passes"]["passes"] <= 9
    assert rows["evoquant tree, 9 passes"]["passes"] <= 9
    assert rows["one at a time, optimum"]["passes"] >= 40  # ten layers, four widths
    assert rows["greedy flips"]["allocations"] > 41
    assert rows["uniform INT8-channel"]["scores"]["test"]["fitness"] > 7
    for one in rows.values():
        assert set(one["scores"]) == {"calibration", "selection", "gate", "test"}
