import numpy as np
import pytest

from evoquant.genomes.strategies import STRATEGIES
from evoquant.report import transfer

MODELS = ("seed/train", "seed/valid", "family/cnn/0")


def row(campaign, seed, strategy):
    share = {"train": 0.9, "valid": 0.8}
    return {
        "campaign": campaign,
        "seed": seed,
        "config_hash": "abc",
        "parts": 1,
        "champion": strategy,
        "genome": STRATEGIES[strategy].to_dict(),
        "share_of_optimum": share,
        "fitness": share,
    }


CHAMPIONS = [row("one", 0, "all_fp16"), row("one", 1, "uniform_int8"), row("other", 0, "wider_fp16_zone")]


@pytest.fixture(scope="module")
def rows():
    return transfer.share_rows(transfer.baselines() | transfer.champions_of(CHAMPIONS), MODELS)


def test_shares_are_of_the_certified_optimum(rows):
    assert rows[0]["optimum"] == pytest.approx(3.2392, abs=5e-5)
    assert rows[0]["gap"] == 0
    assert rows[0]["fitness"]["published champion"] == pytest.approx(2.896639, abs=5e-7)
    assert rows[0]["fitness"]["one 0"] == rows[0]["fitness"]["uniform FP16"]
    for label in rows[0]["fitness"]:
        assert (transfer.shares(rows, label) <= 1).all()
    greedy = transfer.shares(rows, transfer.GREEDY)
    assert (greedy >= transfer.shares(rows, "uniform FP32")).all(), "greedy starts there and only improves"


def test_tables_pool_the_champions_of_a_campaign(rows):
    groups = {"uniform FP16": ["uniform FP16"], **transfer.groups_of(CHAMPIONS)}
    assert groups["one"] == ["one 0", "one 1"]
    spread = transfer.spread_table("t", rows, groups)
    pooled = np.concatenate([transfer.shares(rows, label) for label in groups["one"]])
    (cells,) = [cells for cells in spread.rows if cells[0] == "one"]
    assert cells[1] == f"{np.median(pooled):.2%}"
    assert cells[3] == f"{pooled.min():.2%}"
    assert cells[5] == "2"
    carry = transfer.carry_table("t", CHAMPIONS, rows)
    assert [cells[0] for cells in carry.rows] == ["one", "other"]
    assert carry.rows[0][7].endswith("of 2")
    champions = transfer.champions_table("t", CHAMPIONS, rows)
    assert [cells[1] for cells in champions.rows] == ["0", "1", "0"]


def test_gap_table_is_sorted_and_ends_with_the_optimum(rows):
    ceilings = [
        {"campaign": "oracle_rule", "model": model, "ceiling": value, "seed": 0}
        for model, value in zip(MODELS, (3.0, 3.1, 0.5), strict=True)
    ]
    table = transfer.gap_table("t", rows, transfer.groups_of(CHAMPIONS), ceilings)
    values = [float(cells[-1].partition(" ")[0]) for cells in table.rows]
    assert values == sorted(values)
    assert table.rows[-1][0] == "certified optimum"
    assert table.rows[-1][1] == "3.2392 (100.0%)"
    assert any(cells[0] == "one (median of 2)" for cells in table.rows)
    assert any(cells[0].startswith("oracle_rule") and cells[1] == "3.0000 (92.6%)" for cells in table.rows)


def test_the_log_of_looks_at_test_tells_whose_champions_looked(rows):
    log = transfer.test_log_row(CHAMPIONS, rows)
    assert log["model"] == MODELS[-1]
    assert log["campaigns"]["one"]["config_hash"] == ["abc"]
    assert len(log["campaigns"]["one"]["share_of_optimum"]) == 2
