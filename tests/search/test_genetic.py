import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.genomes.base import mutate_genes
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.search.base import best_first

SPACE = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 3)


@given(st.integers(0, 2**32))
def test_mutation_keeps_the_limits_and_changes_every_kind(seed):
    rng = generator_for(seed, 0, "test")
    before = SPACE.sample(rng, 64)
    after = mutate_genes(SPACE.genes, before, rng)
    for j, gene in enumerate(SPACE.genes):
        assert (after[:, j] >= gene.low).all() and (after[:, j] <= gene.high).all(), gene
        if gene.kind in ("flag", "option", "width"):
            assert (after[:, j] == np.rint(after[:, j])).all(), gene
        if gene.kind == "flag":
            assert (after[:, j] != before[:, j]).all()
        assert (after[:, j] != before[:, j]).any(), gene


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 2.0, float("nan")]), st.integers(0, 2), st.integers(1, 3), st.integers(0, 9)
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 30),
)
def test_the_one_order_of_genomes(rows, count):
    fitness, parts, cost, digest = (list(column) for column in zip(*rows, strict=True))
    order = best_first(np.array(fitness), np.array(parts), np.array(cost), lambda row: f"{digest[row]}{row:03d}", count)

    def key(row):
        value = -np.inf if np.isnan(fitness[row]) else fitness[row]
        return (-value, parts[row], cost[row], f"{digest[row]}{row:03d}")

    assert order.tolist() == sorted(range(len(rows)), key=key)[:count]


def test_digests_are_asked_for_only_where_all_else_is_equal():
    asked = []
    best_first(
        np.array([3.0, 2.0, 2.0, 1.0]),
        np.array([0, 0, 0, 0]),
        np.array([1, 1, 1, 1]),
        lambda row: asked.append(row) or str(row),
    )
    assert sorted(asked) == [1, 2]


@pytest.mark.parametrize("kind", ["flag", "option", "width", "fraction", "log"])
def test_every_kind_occurs_in_the_rule_space(kind):
    assert any(gene.kind == kind for gene in SPACE.genes)
