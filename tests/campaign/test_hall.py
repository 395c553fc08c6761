import pytest

from evoquant.campaign.hall import Hall, form_of


def record(number, fitness, genome, parts=1):
    return {"id": number, "fitness": fitness, "genome": genome, "parts": parts, "cost": 0, "digest": f"d{genome}"}


def rule(threshold, width="FP16"):
    return {
        "kind": "rule",
        "rungs": [{"signal": "parameters", "above": threshold, "width": width}],
        "otherwise": "INT4",
    }


def test_keeps_the_best_distinct_ones_in_order():
    hall = Hall(2)
    hall.update([record(0, 1.0, rule(0.5)), record(1, 3.0, rule(0.6)), record(2, 2.0, rule(0.7))])
    hall.update([record(3, 3.0, rule(0.6)), record(4, 3.0, rule(0.8), parts=0)])
    assert [kept["id"] for kept in hall.records] == [4, 1]  # fewer parts first; the same genome again changes nothing


def test_by_form_a_better_one_takes_the_place_of_its_like():
    hall = Hall(10, by_form=True)
    hall.update([record(0, 1.0, rule(0.5)), record(1, 0.5, rule(0.5, "INT8"))])
    hall.update([record(2, 2.0, rule(0.25)), record(3, 1.5, rule(0.3))])
    assert [kept["id"] for kept in hall.records] == [2, 1]
    again = Hall(10, by_form=True)
    again.restore(hall.records)
    assert again.records == hall.records


@pytest.mark.parametrize(("one", "other", "same"), [(0.5, 0.25, True), (0.5, "INT8", False)])
def test_a_form_is_a_genome_without_its_numbers(one, other, same):
    trees = [{"kind": "tree", "expression": ["add", "loss", item]} for item in (one, other)]
    assert (form_of(trees[0]) == form_of(trees[1])) is same
