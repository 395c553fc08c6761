import numpy as np
import pytest

from evoquant.errors import GenomeError
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.rule import Rule, RuleSpace
from evoquant.genomes.strategies import CHAMPION, STRATEGIES, Strategy, strategy, strategy_rule
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.seed_suite import DATA_SETS, SPLITS
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

PROBLEMS = {
    f"{data}/{split}": compile_problem(builtin_profile(f"{data}/{split}"), SEED_MENU)
    for data in DATA_SETS
    for split in SPLITS
}
TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = ("gradient_sensitivity", *(f"loss:{name}" for name in SEED_MENU.names[:-1]))
SPACE = RuleSpace(SEED_MENU, TYPES, SIGNALS, 4)

# Strategy, model, compression, retention, fitness: the seed suite's check values.
ROWS = [
    ("mixed_fp16_int8", "seed/test", 2.4258, 0.934703, 0.093470),
    ("gradient_weighted", "seed/test", 2.3706, 0.777485, 0.077748),
    ("sensitivity_0005", "seed-additive/test", 1.1149, 0.915905, 0.091590),
    ("all_fp16", "seed-additive/test", 2.0000, 0.811139, 0.081114),
    ("all_fp16", "seed/test", 2.0000, 0.997108, 3.884305),
    ("fp32_edges_push_95", "seed/test", 1.3574, 0.935627, 0.093563),
    ("sensitivity_fp16_001", "seed/test", 1.7347, 0.998587, 3.420360),
    ("wider_fp16_zone", "seed/test", 1.9437, 0.998451, 3.827279),
    ("wider_fp16_zone", "seed/train", 1.6934, 0.985528, 2.896639),
    ("greedy_sensitivity", "seed/train", 3.9030, 0.499112, 0.049911),
    ("layer_type_aware", "seed/train", 3.8110, 0.508592, 0.050859),
    ("uniform_int8", "seed/test", 4.0000, 0.856010, 0.085601),
    ("first_last_fp16", "seed/test", 3.9978, 0.876667, 0.087667),
    ("sensitivity_based", "seed/test", 7.9988, 0.414443, 0.041444),
    ("position_aware", "seed/test", 3.4694, 0.895945, 0.089594),
    ("hybrid", "seed/test", 4.4639, 0.724786, 0.072479),
    ("pareto", "seed/test", 16.0000, 0.021649, 0.002165),
    ("uniform_fp32", "seed-additive/test", 1.0, 0.918048, 0.0918048),
    ("uniform_fp32", "seed-additive/train", 1.0, 0.771966, 0.0771966),
    ("uniform_fp32", "seed-additive/valid", 1.0, 0.752472, 0.0752472),
]
PLAIN_FUNCTIONS = {"hybrid", "pareto"}


@pytest.mark.parametrize(("name", "model", "compression", "retention", "fitness"), ROWS)
def test_check_values(name, model, compression, retention, fitness):
    problem = PROBLEMS[model]
    allocation = strategy(name).allocate(problem)[None]
    losses = loss_sums(problem, allocation)
    scores = score(Cliff(), (problem,), retention_of(losses)[:, None], cost_sums(problem, allocation)[:, None])
    assert scores.compression[0, 0] == pytest.approx(compression, abs=5.1e-5)
    assert scores.retention[0, 0] == pytest.approx(retention, abs=5.1e-7)
    assert scores.fitness[0] == pytest.approx(fitness, abs=5.1e-7)


def test_which_are_rules():
    assert {name for name, genome in STRATEGIES.items() if not isinstance(genome, Rule)} == PLAIN_FUNCTIONS
    assert isinstance(STRATEGIES[CHAMPION], Rule)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - PLAIN_FUNCTIONS))
def test_rules_pass_through_a_space(name):
    rule = strategy_rule(name)
    row = SPACE.encode(rule)
    assert SPACE.decode(row) == rule
    for problem in PROBLEMS.values():
        np.testing.assert_array_equal(SPACE.allocate(row[None], problem)[0], rule.allocate(problem))


@pytest.mark.parametrize("name", STRATEGIES)
def test_plain_data_rebuilds_them(name):
    assert genome_from_dict(STRATEGIES[name].to_dict(), name) == STRATEGIES[name]
    assert STRATEGIES[name].text


def test_first_last_is_the_first_and_the_last_only():
    for problem in PROBLEMS.values():
        widths = problem.unfold(strategy("first_last_fp16").allocate(problem))
        assert widths[0] == widths[-1] == "FP16"
        assert set(widths[1:-1]) == {"INT8"}


@pytest.mark.parametrize("model", PROBLEMS)
def test_greedy_takes_the_narrowest_width_within_its_limit(model):
    problem = PROBLEMS[model]
    widths = problem.unfold(strategy("greedy_sensitivity").allocate(problem))
    for layer, width in zip(builtin_profile(model).layers, widths, strict=True):
        fine = [name for name in SEED_MENU.names if layer.loss[name] <= 0.02]
        assert width == (fine[0] if fine else "FP32")


def test_functions_are_no_rules_and_data_by_name():
    hybrid = strategy("hybrid")
    assert isinstance(hybrid, Strategy)
    assert hybrid.parts == 0
    assert hybrid.to_dict() == {"kind": "strategy", "name": "hybrid"}
    with pytest.raises(GenomeError, match=r"'hybrid' is a plain function, not a rule"):
        strategy_rule("hybrid")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(GenomeError, match=r"no strategy is called 'al_fp16'\. Did you mean 'all_fp16'"):
        strategy("al_fp16")
