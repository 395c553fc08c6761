import csv
import io
import json

import pytest
import yaml

from evoquant.campaign.apply import load_genome, profile_menu
from evoquant.campaign.champion import load_champion
from evoquant.errors import GenomeError, InputError, ProfileError
from evoquant.export import TARGETS, render
from evoquant.genomes.direct import Direct
from evoquant.genomes.rule import Rule, Rung
from evoquant.genomes.strategies import STRATEGIES, strategy
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import compile_problem

from .conftest import champion_of

DIRECT = Direct("m", (("no", "INT4"), ("1e5", "FP16"), ("line\nbreak", "INT8"), ("größe", "FP32")))


def test_targets():
    assert list(TARGETS) == ["json", "yaml", "python", "rust", "csv"]
    for target in TARGETS.values():
        assert target.description
        assert target.suffix.startswith(".")


def test_unknown_target_suggests_the_nearest():
    with pytest.raises(InputError, match=r"unknown export target 'pyton'\. Did you mean 'python'\?"):
        render("pyton", champion_of(Rule("INT8")))


@pytest.mark.parametrize("genome", [DIRECT, strategy("hybrid")])
@pytest.mark.parametrize("target", ["python", "rust"])
def test_code_needs_a_rule(target, genome):
    with pytest.raises(InputError, match=rf"{target} exports rules.*--to csv --profile PROFILE"):
        render(target, champion_of(genome))


def test_json_is_the_champion_file(tmp_path, rules):
    path = tmp_path / "champion.json"
    for genome in [*rules, DIRECT, *STRATEGIES.values()]:
        champion = champion_of(genome)
        path.write_text(render("json", champion), encoding="utf-8")
        assert load_champion(path) == champion
        assert load_genome(str(path)) == genome


def test_yaml_gives_an_equal_genome_and_equal_data(tmp_path, rules):
    path = tmp_path / "champion.yaml"
    for genome in [*rules, DIRECT, *STRATEGIES.values()]:
        champion = champion_of(genome)
        text = render("yaml", champion)
        path.write_text(text, encoding="utf-8")
        assert load_genome(str(path)) == genome
        assert yaml.safe_load(text) == json.loads(render("json", champion))


def test_yaml_of_hostile_names(tmp_path, hostile):
    path = tmp_path / "champion.yaml"
    shared = [1, 2]
    for name in hostile:
        genome = Rule("INT8", protected=frozenset({name}), protected_width="FP16")
        champion = champion_of(genome, model=name, first=shared, second=shared)
        text = render("yaml", champion)
        path.write_text(text, encoding="utf-8")
        assert load_genome(str(path)) == genome
        assert yaml.safe_load(text)["provenance"]["model"] == name
        assert "&id" not in text


def test_csv(hostile):
    layers = tuple(
        LayerProfile(name, "Conv", (4, 8), 0.5, loss=dict.fromkeys(SEED_MENU.names, 0.1)) for name in hostile
    )
    profile = ModelProfile("m", layers)
    rows = list(csv.DictReader(io.StringIO(render("csv", champion_of(Rule("INT4")), profile))))
    assert [row["layer"] for row in rows] == hostile
    assert {(row["precision"], row["parameters"], row["bits"]) for row in rows} == {("INT4", "32", "128")}


def test_csv_of_any_genome(suite):
    for genome in (strategy("hybrid"), strategy("wider_fp16_zone")):
        for profile in suite:
            problem = compile_problem(profile, SEED_MENU)
            rows = list(csv.DictReader(io.StringIO(render("csv", champion_of(genome), profile))))
            assert tuple(row["precision"] for row in rows) == problem.unfold(genome.allocate(problem))
            assert [int(row["parameters"]) for row in rows] == [layer.parameters for layer in profile.layers]


def test_csv_counts_scales_and_takes_the_model_s_menu(tied_models):
    profile = tied_models[0]
    assert "INT8-channel" in profile_menu(profile).names
    text = render("csv", champion_of(Rule("INT8")), profile)
    assert "INT8-channel" in text
    assert "INT8," not in text
    layer = LayerProfile("a", "Conv", (4, 8), 0.5)
    text = render("csv", champion_of(Rule("INT8")), ModelProfile("m", (layer,)), Menu.parse(["INT8-channel"]))
    assert text.splitlines() == ["layer,precision,parameters,bits", "a,INT8-channel,32,320"]


def test_csv_needs_a_model():
    with pytest.raises(InputError, match="--profile PROFILE"):
        render("csv", champion_of(Rule("INT8")))
    with pytest.raises(GenomeError, match="'m' cannot be applied to 'seed/test'"):
        render("csv", champion_of(DIRECT), seed_profile("test"))
    with pytest.raises(ProfileError, match="no fisher"):
        render("csv", champion_of(Rule("INT8", (Rung("fisher:INT8", 0.1, "FP16"),))), seed_profile("test"))


def test_load_genome(tmp_path):
    assert load_genome("wider_fp16_zone") == strategy("wider_fp16_zone")
    (tmp_path / "champion.json").write_text(render("json", champion_of(Rule("INT8"))))
    assert load_genome(str(tmp_path)) == Rule("INT8")
    with pytest.raises(GenomeError, match=r"called 'wider_fp16_zon'\. Did you mean 'wider_fp16_zone'"):
        load_genome("wider_fp16_zon")
    for name in ("missing.json", "missing.yaml"):
        with pytest.raises(GenomeError, match="does not exist"):
            load_genome(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- 1", "not a champion file"),
        ("schema: evoquant.champion\nversion: 7", r"version: this evoquant reads version 1 \(got 7\)"),
        ("schema: evoquant.champion\nversion: 1", "object with a `kind`"),
        ("schema: evoquant.champion\nversion: 1\ngenome: {kind: rule}", "genome: otherwise: this key is required"),
        ("a: 1\na: 2", "stands twice"),
        ("a: [", "not valid YAML"),
    ],
)
def test_yaml_faults(tmp_path, text, fault):
    path = tmp_path / "champion.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=fault):
        load_genome(str(path))
