import pytest

from evoquant.campaign.build import make_search
from evoquant.campaign.build_search import SEARCHES
from evoquant.campaign.config import CampaignConfig
from evoquant.campaign.config_search import BUILT_IN
from evoquant.errors import GenomeError, InputError
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem

RULES = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)
PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
DIRECT = DirectSpace(PROBLEM)
KINDS = {
    "genetic": ({"population": 7}, 7),
    "random": ({"population": 7}, 7),
    "nsga2": ({"population": 7}, 7),
    "cmaes": ({"population": 7}, 7),
    "map_elites": ({"batch": 5, "initial": 7}, 7),
    "islands": ({"islands": 3, "genetic": {"population": 7}}, 21),
    "level_switch": ({"initial": 7}, 7),
    "surrogate": ({"batch": 3}, 3),
}


def build(space, **search):
    return make_search(CampaignConfig(name="x", seed=4, search=search), space, (PROBLEM,))


def test_every_kind_can_be_named_and_has_a_test_here():
    assert set(BUILT_IN) == set(KINDS) == {*SEARCHES, "random"}


@pytest.mark.parametrize("kind", KINDS)
def test_options_and_seed_reach_the_search(kind):
    options, size = KINDS[kind]
    first = build(DIRECT, kind=kind, **options).ask()
    assert len(first) == size
    assert (first.genes == build(DIRECT, kind=kind, **options).ask().genes).all()
    other = make_search(CampaignConfig(name="x", seed=5, search={"kind": kind, **options}), DIRECT, (PROBLEM,)).ask()
    if kind != "surrogate":  # it begins where the table says, whatever the seed
        assert (first.genes != other.genes).any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("random", "cmaes", "islands")])
def test_start_genomes_come_first(kind):
    batch = build(DIRECT, kind=kind, start=["wider_fp16_zone"]).ask()
    assert (batch.genes[0] == DIRECT.encode(build_rule("wider_fp16_zone"))).all()
    assert batch.operators[0] == "start"


def test_a_model_of_the_loss_is_one_networks():
    config = CampaignConfig(name="x", search={"kind": "surrogate"})
    with pytest.raises(InputError, match=r"models one network's loss; there are 2 models"):
        make_search(config, RULES, (PROBLEM, PROBLEM))


def build_rule(name):
    from evoquant.genomes.strategies import strategy_rule

    return strategy_rule(name)


def test_every_island_begins_with_the_start():
    batch = build(RULES, kind="islands", islands=2, genetic={"population": 6, "start": ["all_fp16"]}).ask()
    assert [i for i, operator in enumerate(batch.operators) if operator == "start"] == [0, 6]


def test_what_cannot_be_searched_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"genome\.kind: direct"):
        build(RULES, kind="level_switch")
    few = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity",), 1)
    with pytest.raises(GenomeError, match="no signal"):
        build(few, kind="map_elites", start=["wider_fp16_zone"])
