import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoquant.errors import GenomeError, PrecisionError, ProfileError
from evoquant.genomes.base import Gene, digest_of, sample_genes, tidy
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.rule import CHUNK, Rule, RuleSpace, Rung, changes, rule_from_dict, with_change
from evoquant.genomes.strategies import strategy, strategy_rule
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import compile_problem

TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = ("gradient_sensitivity", "loss:INT4", "loss:INT8", "loss:FP16")
SPACE = RuleSpace(SEED_MENU, TYPES, SIGNALS, 3)
PROBLEM = compile_problem(seed_profile("test"), SEED_MENU)
TRAIN = compile_problem(seed_profile("train"), SEED_MENU)


def gene_values(gene):
    if gene.kind in ("flag", "option", "width"):
        return st.integers(int(gene.low), int(gene.high)).map(float)
    if gene.kind == "fraction":
        return st.integers(0, 500).map(lambda k: k / 1000)
    return st.floats(gene.low, gene.high)


def rows_of(space):
    row = st.tuples(*(gene_values(gene) for gene in space.genes))
    return st.lists(row, min_size=1, max_size=6).map(lambda rows: tidy(space.genes, np.array(rows)))


def plainly(rule, layers):
    """The rule's meaning, layer by layer."""
    widths = []
    for layer in layers:
        if layer.type in rule.protected:
            widths.append(rule.protected_width)
        elif rule.edges and (layer.position < rule.edges or layer.position > 1.0 - rule.edges):
            widths.append(rule.edge_width)
        else:
            for rung in rule.rungs:
                kind, _, width = rung.signal.partition(":")
                value = layer.loss[width] if width else getattr(layer, kind)
                if value > rung.above:
                    widths.append(rung.width)
                    break
            else:
                widths.append(rule.otherwise)
    return tuple(widths)


@given(rows_of(SPACE))
@settings(deadline=None)
def test_population_equals_single_equals_plain(rows):
    together = SPACE.allocate(rows, PROBLEM)
    for row, allocation in zip(rows, together, strict=True):
        rule = SPACE.decode(row)
        np.testing.assert_array_equal(rule.allocate(PROBLEM), allocation)
        assert PROBLEM.unfold(allocation) == plainly(rule, seed_profile("test").layers)


@given(rows_of(SPACE))
@settings(deadline=None)
def test_canonical_rows_are_equal_where_rules_are(rows):
    # The same rules once more, written differently: dormant genes moved, absent rungs first.
    dormant = SPACE.dormant(rows)
    high = np.array([gene.high for gene in SPACE.genes])
    moved = np.where(dormant, high, rows)
    both = np.concatenate([rows, moved])
    canonical = SPACE.canonical(both)
    rules = [SPACE.decode(row) for row in both]
    for i in range(len(both)):
        for j in range(len(both)):
            assert (rules[i] == rules[j]) == np.array_equal(canonical[i], canonical[j])


@given(rows_of(SPACE))
@settings(deadline=None)
def test_round_trips(rows):
    for row in SPACE.canonical(rows):
        rule = SPACE.decode(row)
        np.testing.assert_array_equal(SPACE.encode(rule), row)
        assert genome_from_dict(rule.to_dict(), "x") == rule
        assert digest_of(genome_from_dict(rule.to_dict(), "x")) == digest_of(rule)
        assert SPACE.parts(row[None])[0] == rule.parts


@given(rows_of(SPACE))
@settings(deadline=None)
def test_dormant_genes_never_matter(rows):
    dormant = SPACE.dormant(rows)
    for end in ("low", "high"):
        limit = np.array([getattr(gene, end) for gene in SPACE.genes])
        moved = np.where(dormant, limit, rows)
        np.testing.assert_array_equal(SPACE.allocate(moved, PROBLEM), SPACE.allocate(rows, PROBLEM))
        assert [SPACE.decode(row) for row in moved] == [SPACE.decode(row) for row in rows]


@given(st.floats(1e-5, 1.0))
def test_tidy_thresholds_are_literals_of_two_digits(value):
    gene = Gene("above", "log", 1e-5, 1.0, 0)
    (tidied,) = tidy([gene], np.array([[value]]))[0].tolist()
    assert tidied == float(f"{tidied:.1e}")
    assert tidied == pytest.approx(value, rel=0.0501)
    assert 1e-5 <= tidied <= 1.0
    assert tidy([gene], np.array([[tidied]]))[0, 0] == tidied


@given(st.floats(0.0, 0.5))
def test_tidy_fractions_are_literals_of_three_decimals(value):
    gene = Gene("edges", "fraction", 0, 0.5, 0)
    (tidied,) = tidy([gene], np.array([[value]]))[0].tolist()
    assert tidied == float(f"{tidied:.3f}")
    assert abs(tidied - value) <= 0.0005 + 1e-12


def test_tidy_clips_and_leaves_its_argument():
    genes = [Gene("edges", "fraction", 0, 0.5, 0), Gene("above", "log", 1e-5, 1.0, 0), Gene("w", "width", 0, 4, 0)]
    columns = np.array([[0.9, 7.0, 9.0], [-1.0, 1e-9, -3.0]])
    before = columns.copy()
    assert tidy(genes, columns).tolist() == [[0.5, 1.0, 4.0], [0.0, 1e-5, 0.0]]
    np.testing.assert_array_equal(columns, before)


def test_sample_rates():
    rows = sample_genes(SPACE.genes, np.random.default_rng(0), 20_000)
    for column, gene in zip(rows.T, SPACE.genes, strict=True):
        if gene.kind == "flag":
            assert column.mean() == pytest.approx(0.25, abs=0.02)
        elif gene.kind in ("option", "fraction"):
            assert (column == 0).mean() == pytest.approx(0.5, abs=0.02)
        elif gene.kind == "width":
            assert sorted(set(column)) == [0, 1, 2, 3, 4]


def test_populations_larger_than_a_chunk():
    rows = SPACE.sample(np.random.default_rng(1), CHUNK + 3)
    whole = SPACE.allocate(rows, PROBLEM)
    np.testing.assert_array_equal(whole[CHUNK:], SPACE.allocate(rows[CHUNK:], PROBLEM))


def test_precedence_and_strictness():
    layers = tuple(
        LayerProfile(f"l{i}", kind, (2,), i / 4, gradient_sensitivity=0.5)
        for i, kind in enumerate(["Norm", "Conv", "Conv", "Conv", "Conv"])
    )
    problem = compile_problem(ModelProfile("m", layers), SEED_MENU)
    rule = Rule(
        "INT8",
        (Rung("gradient_sensitivity", 0.5, "INT4"), Rung("gradient_sensitivity", 0.49, "FP16")),
        edges=0.25,
        edge_width="INT2",
        protected=frozenset({"Norm"}),
        protected_width="FP32",
    )
    # 0.25 and 0.75 are not below 0.25 or above 0.75; 0.5 is not above 0.5.
    assert problem.unfold(rule.allocate(problem)) == ("FP32", "FP16", "FP16", "FP16", "INT2")


def test_text_and_parts():
    rule = strategy_rule("wider_fp16_zone")
    assert rule.text == "Classifier, LayerNorm FP32; edges 0.075 FP32; loss:FP16 > 0.001 FP32; else FP16"
    assert rule.parts == 4
    assert Rule("INT8").text == "all INT8"
    assert Rule("INT8").parts == 0


def test_what_has_no_effect_is_not_kept():
    assert Rule("INT8", edge_width="FP16", protected_width="FP32") == Rule("INT8")


def test_incomplete_rules_are_refused():
    with pytest.raises(GenomeError, match="protects Conv but names no width"):
        Rule("INT8", protected=frozenset({"Conv"}))
    with pytest.raises(GenomeError, match=r"edges of 0\.1 but names no width"):
        Rule("INT8", edges=0.1)


def test_changes():
    rule = strategy_rule("wider_fp16_zone")
    assert changes(rule, rule) == "no change"
    assert changes(strategy_rule("sensitivity_fp16_001"), rule) == "edges 0.1 → 0.075"
    assert changes(rule, with_change(rule, protect=["Conv"])) == "+Conv protected"
    assert changes(rule, with_change(rule, unprotect=["LayerNorm"])) == "LayerNorm unprotected"
    assert changes(rule, dataclasses.replace(rule, otherwise="INT8")) == "else FP16 → INT8"
    assert changes(rule, dataclasses.replace(rule, protected_width="FP16")) == "protected width FP32 → FP16"
    assert changes(rule, with_change(rule, threshold=0.002)) == "−(loss:FP16 > 0.001 FP32), +(loss:FP16 > 0.002 FP32)"
    two = dataclasses.replace(rule, rungs=(*rule.rungs, Rung("loss:INT8", 0.1, "FP32")))
    assert changes(two, dataclasses.replace(two, rungs=two.rungs[::-1])) == "rungs reordered"


@given(rows_of(SPACE))
@settings(deadline=None)
def test_changes_say_something_where_rules_differ(rows):
    rules = [SPACE.decode(row) for row in rows]
    for before, after in itertools.pairwise(rules):
        text = changes(before, after)
        assert text
        assert "\n" not in text
        if before == after:
            assert text == "no change"
        elif before.parts == after.parts and bool(before.edges) == bool(after.edges):
            assert text != "no change"


def test_with_change():
    rule = strategy_rule("wider_fp16_zone")
    assert with_change(rule) == rule
    assert with_change(rule, edges=0.0) == dataclasses.replace(rule, edges=0.0)
    assert with_change(rule, edges=0.0).edge_width is None
    assert with_change(rule, edges=0.2, edge_width="FP16").edges == 0.2
    assert with_change(rule, threshold=0.5).rungs[0] == Rung("loss:FP16", 0.5, "FP32")
    assert with_change(rule, unprotect=["LayerNorm", "Classifier"]).protected_width is None
    with pytest.raises(GenomeError, match="has no rung"):
        with_change(Rule("INT8"), threshold=0.1)
    with pytest.raises(GenomeError, match="names no width"):
        with_change(Rule("INT8"), protect=["Conv"])


def test_encode_refuses_what_the_space_lacks():
    with pytest.raises(GenomeError, match="is no rule"):
        SPACE.encode(strategy("hybrid"))
    with pytest.raises(GenomeError, match=r"has 4 rungs; genome\.rungs allows 3"):
        SPACE.encode(strategy("greedy_sensitivity"))
    with pytest.raises(GenomeError, match=r"protects 'Conf'.*Did you mean 'Conv'"):
        SPACE.encode(Rule("INT8", protected=frozenset({"Conf"}), protected_width="FP16"))
    with pytest.raises(GenomeError, match=r"no signal 'loss:INT2'; add it to genome\.signals"):
        SPACE.encode(Rule("INT8", (Rung("loss:INT2", 0.1, "FP16"),)))
    with pytest.raises(PrecisionError, match="has no INT3"):
        SPACE.encode(Rule("INT3"))


def test_nominal_names_mean_the_menu_s_own():
    menu = Menu.parse(["INT4-channel", "INT8-channel", "FP16"])
    losses = {"INT4-channel": 0.3, "INT8-channel": 0.2, "FP16": 0.0}
    layers = (LayerProfile("a", "Conv", (2, 2), 0.0, loss=losses), LayerProfile("b", "Conv", (2, 2), 1.0, loss=losses))
    problem = compile_problem(ModelProfile("m", layers), menu)
    rule = Rule("INT4", (Rung("loss:INT8", 0.1, "INT8"),))
    assert problem.unfold(rule.allocate(problem)) == ("INT8-channel", "INT8-channel")
    space = RuleSpace(menu, ["Conv"], ["loss:INT8-channel"], 1)
    decoded = space.decode(space.encode(rule))
    assert decoded == Rule("INT4-channel", (Rung("loss:INT8-channel", 0.1, "INT8-channel"),))
    priced = Rule("FP16", (Rung("loss_per_bit:INT8", 0.1, "INT8"),))
    space = RuleSpace(menu, ["Conv"], ["loss_per_bit:INT8-channel"], 1)
    assert space.decode(space.encode(priced)).rungs == (Rung("loss_per_bit:INT8-channel", 0.1, "INT8-channel"),)
    assert rule_from_dict(priced.to_dict(), "x") == priced
    ambiguous = compile_problem(ModelProfile("m", layers), Menu.parse(["INT8-channel", "INT8-tensor", "FP16"]))
    with pytest.raises(PrecisionError, match="has more than one INT8"):
        Rule("INT8").allocate(ambiguous)


def test_a_signal_that_the_profile_lacks_is_named():
    problem = compile_problem(ModelProfile("m", (LayerProfile("a", "Conv", (2,), 0.5),)), SEED_MENU)
    with pytest.raises(ProfileError, match=r"'m' has no loss for FP16, which the signal 'loss:FP16' reads"):
        strategy("wider_fp16_zone").allocate(problem)
    with pytest.raises(ProfileError, match=r"unknown signal 'gradient'.*gradient_sensitivity"):
        Rule("INT8", (Rung("gradient", 0.1, "FP16"),)).allocate(problem)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"kind": "rule"}, "otherwise: this key is required"),
        ({"kind": "rule", "otherwise": "INT9"}, "unknown precision 'INT9'"),
        ({"kind": "rule", "otherwise": "INT8", "edge": 1}, r"edge: unknown key.*'edges'"),
        ({"kind": "rule", "otherwise": "INT8", "edges": {"fraction": 0, "width": "INT8"}}, "edges.fraction"),
        ({"kind": "rule", "otherwise": "INT8", "protected": {"types": [], "width": "INT8"}}, "protected.types"),
        ({"kind": "rule", "otherwise": "INT8", "rungs": [{"signal": "a b", "above": 1, "width": "INT8"}]}, "signal"),
        ({"kind": "rule", "otherwise": "INT8", "rungs": [{"signal": "a", "above": "x", "width": "INT8"}]}, "above"),
        ([], "should hold keys and their values"),
    ],
)
def test_faults_name_the_key(data, fault):
    with pytest.raises(GenomeError, match=fault):
        rule_from_dict(data, "file")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, "object with a `kind`"),
        (3, "object with a `kind`"),
        ({"kind": "rul"}, "Did you mean 'rule'"),
        ({"kind": "strategy", "name": 1}, "has a `name`"),
        ({"kind": "strategy", "name": "nothing"}, "no strategy is called"),
    ],
)
def test_load_faults(data, fault):
    with pytest.raises(GenomeError, match=fault):
        genome_from_dict(data, "file")
