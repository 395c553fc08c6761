from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.campaign.build import make_objective
from evoquant.campaign.config import CampaignConfig, load_config
from evoquant.campaign.signals import profile_signals
from evoquant.campaign.yaml_file import parse_yaml
from evoquant.errors import ConfigError
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_named_after_their_file(path):
    config, text = load_config(path)
    assert config.name == path.stem
    assert text.startswith("#")


def test_an_empty_mapping_is_a_campaign(tmp_path):
    config, _ = load_config(write(tmp_path, "{}"))
    assert config.name == "mine"
    assert config.to_dict()["menu"] == ["INT2", "INT4", "INT8", "FP16", "FP32"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("search: {populatoin: 3}", ["mine.yaml", "search.populatoin", "unknown key", "'population'"]),
        ("search: {kind: genetik}", ["search.kind", "'genetik'", "'genetic'"]),
        ("objective: {kind: clif}", ["objective.kind", "'cliff'"]),
        ("search: {population: 0}", ["search.population", "greater than or equal to 2", "0"]),
        ("search: {population: 1000000000000}", ["search.population", "1000000"]),
        ("search: {population: 4, elites: 4}", ["elites (4) must be fewer than population (4)"]),
        ("search: {start: [all_fp61]}", ["'all_fp61'", "'all_fp16'"]),
        ("search: {start: [{kind: tree, expression: [add, loss]}]}", ["search.start", "expression", "add"]),
        ("search: {kind: nsga2, floor: 1}", ["search.floor", "less than 1"]),
        ("search: {kind: nsga2, archive: 1}", ["search.archive", "2"]),
        ("search: {kind: nsga2, population: 2, start: [all_fp16, hybrid, pareto]}", ["3 genomes", "raise population"]),
        ("search: {kind: cmaes, sigma: 0}", ["search.sigma", "greater than 0"]),
        ("search: {kind: cmaes, start: [all_fp16]}", ["search.start", "unknown key"]),
        ("search: {kind: nsga2, in_flight: 4}", ["search.in_flight", "known elsewhere"]),
        ("search: {kind: map_elites, compression: [8, 2]}", ["from 8 to 2", "lower limit first"]),
        ("search: {kind: map_elites, bins: 0}", ["search.bins"]),
        ("search: {kind: islands, islands: 1}", ["search.islands", "2"]),
        ("search: {kind: islands, migrants: 5, genetic: {population: 5}}", ["migrants (5)", "population (5)"]),
        ("search: {kind: islands, islands: 50, genetic: {initial: 40000}}", ["50 islands of 40000", "1000000"]),
        ("search: {kind: islands, genetic: {populatoin: 5}}", ["search.genetic.populatoin", "'population'"]),
        ("task: {kind: digitz}", ["task.kind", "'digitz'", "'digits'"]),
        ("task: {kind: torch}", ["task.factory", "required"]),
        ("task: {kind: torch, factory: nowhere}", ["task.factory", "nowhere"]),
        ("task: {kind: onnx, model: a.onnx, data: b.npz, metric: acuracy}", ["task.metric", "'accuracy'"]),
        ("task: {kind: digits, model: a.onnx}", ["task.model", "unknown key"]),
        ("signals: [fisher]", ["signals is for measured tasks"]),
        ("task: {kind: digits}\nsignals: [fischer]", ["signals", "'fischer'", "'fisher'"]),
        ("racing: {enabled: false}", ["racing is for measured tasks"]),
        ("task: {kind: digits}\nracing: {confidence: 1}", ["racing.confidence", "less than 1"]),
        ("objective: {kind: budget}", ["objective", "either `effective_bits` or `megabytes`"]),
        ("search: {kind: level_swich}", ["'level_swich'", "'level_switch'"]),
        ("search: {kind: level_switch, step_rate: 2}", ["search.step_rate"]),
        ("menu: [INT4, INT9]", ["menu", "'INT9'", "INT4-channel"]),
        ("objective: {threshold: .nan}", ["objective.threshold"]),
        ("seed: -1", ["seed", "-1"]),
        ("name: ../evil", ["name", "../evil"]),
        ("seed: 1\nseed: 2", ["'seed' stands twice", "line 2"]),
        ("- 1", ["YAML mapping"]),
        ("a: [", ["not valid YAML", "line"]),
        ("a: !!python/object/apply:os.system [ls]", ["not valid YAML"]),
        ("task: {kind: digits}\nmodels: {}", ["either `task`", "`models`"]),
        ("stop: {passes: 3}", ["stop.passes", "stop.evaluations"]),
        ("executor: {limit_s: 3}", ["executor.limit_s is for measured tasks"]),
        ("schema_version: 2", ["schema_version"]),
        ("search: {kind: replay, data: {a: seed/test}, generations: [{generation: '1', candidates: [{data: b}]}]}", []),
    ],
)
def test_faults_name_file_key_fault_and_remedy(tmp_path, text, parts):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    for part in ["mine.yaml", *parts]:
        assert part in str(caught.value)


def test_overrides(tmp_path):
    path = write(tmp_path, "search: {population: 10}")
    config, _ = load_config(path, ["search.population=20", "stop.generations=3", "seed=7", "menu=[FP16, FP32]"])
    assert (config.search.population, config.stop.generations, config.seed) == (20, 3, 7)
    assert config.menu == ["FP16", "FP32"]
    for wrong in ("seed", "search..x=1", "search.population.x=1"):
        with pytest.raises(ConfigError, match="--set"):
            load_config(path, [wrong])


def test_the_hash_leaves_out_what_cannot_change_a_result():
    base = CampaignConfig(name="x")
    for same in ({"executor": {"kind": "ray", "workers": 2}}, {"cache": "/tmp"}, {"out": "a"}):
        assert CampaignConfig(name="x", **same).hash() == base.hash()
    for other in ({"seed": 1}, {"stop": {"generations": 5}}, {"menu": ["FP16", "FP32"]}):
        assert CampaignConfig(name="x", **other).hash() != base.hash()


def test_the_hash_is_that_of_the_resolved_config():
    config = CampaignConfig(name="x", search={"kind": "random"})
    assert CampaignConfig.model_validate(config.to_dict()).hash() == config.hash()


def test_aliases_that_blow_up_are_refused():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="aliases count in full"):
        parse_yaml("\n".join(lines), "bomb")


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_in_our_words(text):
    try:
        parse_yaml(text, "here")
    except ConfigError as error:
        assert str(error).startswith("here")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["search", "kind", "population", "stop", "name", "menu", "objective", "genome", "task"])
                | st.text(max_size=3),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_data_is_a_config_or_refused_in_our_words(data):
    from evoquant.campaign.config import config_from_dict

    try:
        config_from_dict(data, "here")
    except ConfigError as error:
        assert str(error).startswith("here")


def test_paths_of_an_onnx_task_are_relative_to_the_file_and_its_metric_is_code(tmp_path):
    text = "task: {kind: onnx, model: m.onnx, data: d.npz, metric: 'own:metric'}\nobjective: {kind: 'mine:Goal'}"
    config, _ = load_config(write(tmp_path, text))
    assert config.task.model == str(tmp_path / "m.onnx")
    assert config.task.data == str(tmp_path / "d.npz")
    assert config.code() == ["mine:Goal", "own:metric"]
    torch, _ = load_config(write(tmp_path, "task: {kind: torch, factory: 'own:network'}"))
    assert torch.code() == ["own:network"]


def test_racing_is_on_for_measured_tasks_and_unknown_to_profiles():
    measured = CampaignConfig(name="x", task={"kind": "digits"})
    assert measured.to_dict()["racing"] == {"enabled": True, "confidence": 0.99}
    assert measured.hash() == CampaignConfig.model_validate(measured.to_dict()).hash()
    assert measured.hash() != CampaignConfig(name="x", task={"kind": "digits"}, racing={"enabled": False}).hash()
    assert not {"racing", "signals"} & set(CampaignConfig(name="x").to_dict())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("fisher", "activation_range")),
        ({"genome": {"kind": "direct"}}, ("fisher",)),
        ({"genome": {"kind": "rule", "signals": ["loss_per_bit:INT4-channel"]}}, ("loss", "fisher")),
        ({"search": {"start": ["wider_fp16_zone"]}}, ("loss", "fisher", "activation_range")),
        ({"genome": {"kind": "tree", "signals": ["total_loss"]}}, ("loss", "fisher")),
        (
            {"genome": {"kind": "tree"}, "search": {"start": [{"kind": "tree", "expression": ["divergence"]}]}},
            ("divergence", "fisher", "activation_range"),
        ),
        ({"signals": ["hessian", "fisher"]}, ("fisher", "hessian")),
        ({"task": {"kind": "onnx", "model": "m", "data": "d"}}, ("divergence",)),
    ],
)
def test_only_signals_that_something_reads_are_measured(more, expected):
    config = CampaignConfig.model_validate({"name": "x", "task": {"kind": "digits"}, **more})
    assert profile_signals(config) == expected


def test_megabytes_are_a_size_of_one_model(tmp_path):
    config = CampaignConfig(name="x", objective={"kind": "budget", "megabytes": 100})
    problem = compile_problem(seed_profile("train"), SEED_MENU)
    objective = make_objective(config, (problem,))
    bits = np.array([objective.effective_bits])
    assert bits[0] * problem.weights / 8e6 == pytest.approx(100)
    assert objective.score(np.array([0.9]), np.array([1.0]), bits) == [0.9]
    with pytest.raises(ConfigError, match="size of one model"):
        make_objective(config, (problem, problem))
