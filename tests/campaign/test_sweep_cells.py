"""A sweep's file: which campaigns it stands for, what they are called, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from evoquant.campaign.config import load_config
from evoquant.campaign.config_sweep import MAX_CAMPAIGNS, load_sweep
from evoquant.campaign.schema import sweep_schema
from evoquant.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))


def written(tmp_path, **keys):
    file = tmp_path / "s.yaml"
    keys.setdefault("base", {"stop": {"generations": 3}})
    file.write_text(yaml.safe_dump(keys, sort_keys=False))
    return file


def names(tmp_path, **keys):
    return [cell.name for cell in load_sweep(written(tmp_path, **keys)).cells]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid_and_agree_with_the_schema(path):
    assert load_sweep(path).config.name == path.stem
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(sweep_schema())
    check = jsonschema.Draft202012Validator(sweep_schema())
    data = yaml.safe_load(path.read_text())
    assert not list(check.iter_errors(data))
    assert list(check.iter_errors(data | {"over": {"search": [{"kind": "genetic", "populatoin": 3}]}}))


def test_the_product_in_order_with_names_that_say_it(tmp_path):
    over = {
        "search": [{"kind": "genetic", "population": 20}, {"kind": "genetic", "population": 40}, {"kind": "random"}],
        "stop.evaluations": [100, 400],
        "seed": "0-1",
    }
    found = load_sweep(written(tmp_path, over=over))
    assert [cell.name for cell in found.cells][:5] == [
        "genetic-population20-evaluations100-seed0",
        "genetic-population20-evaluations100-seed1",
        "genetic-population20-evaluations400-seed0",
        "genetic-population20-evaluations400-seed1",
        "genetic-population40-evaluations100-seed0",
    ]
    assert len(found.cells) == 12 and found.axes == ("search", "stop.evaluations")
    cell = found.cells[5]
    assert cell.config.search.population == 40 and cell.config.stop.evaluations == 100 and cell.config.seed == 1
    assert cell.config.stop.generations == 3 and cell.config.name == cell.combination == cell.name[: -len("-seed1")]


def test_seeds_alone_are_repetitions_of_one(tmp_path):
    assert names(tmp_path, over={"seed": [3, 5]}) == ["s-seed3", "s-seed5"]
    both = load_sweep(written(tmp_path, over={"seed": "0..1", "task.seed": [0]}, base={"task": {"kind": "digits"}}))
    assert [cell.name for cell in both.cells] == ["s-seed0-taskseed0", "s-seed1-taskseed0"]
    assert {cell.combination for cell in both.cells} == {"s"} and both.axes == ()


def test_include_and_exclude(tmp_path):
    over = {"search": [{"kind": "genetic", "population": 20}, {"kind": "random"}], "seed": "0-2"}
    left = names(tmp_path, over=over, exclude=[{"search": {"kind": "random"}, "seed": "1-2"}])
    assert left == ["genetic-seed0", "genetic-seed1", "genetic-seed2", "random-seed0"]
    more = names(tmp_path, over=over, include=[{"search": [{"kind": "nsga2"}], "finalists": [1, 8], "seed": [0]}])
    assert more[6:] == ["nsga2-finalists1-seed0", "nsga2-finalists8-seed0"]
    assert names(tmp_path, include=[{"seed": [1]}]) == ["s-seed1"]


def test_words_of_all_kinds_of_values(tmp_path):
    def words(key, values, **base):
        found = load_sweep(written(tmp_path, over={key: values}, base=base))
        return [cell.name for cell in found.cells]

    assert words("stop.stagnation", [None, 30]) == ["no-stagnation", "stagnation30"]
    assert words("relative_to_optimum", [True, False]) == ["relative_to_optimum-on", "relative_to_optimum-off"]
    assert words("objective.threshold", [0.9, 0.95]) == ["threshold0.9", "threshold0.95"]
    assert words("task.kind", ["digits", "tabular"], task={"kind": "digits"}) == ["digits", "tabular"]
    assert words("menu", [["INT4", "FP16"], ["INT8", "FP16"]]) == ["INT4-FP16", "INT8-FP16"]
    long = [[f"family/cnn/{i}" for i in range(n, n + 9)] for n in (0, 1)]
    cut = words("models.train", long)
    assert len(set(cut)) == 2 and all(len(name) <= 64 for name in cut)


def test_the_file_of_a_campaign_is_the_campaign(tmp_path):
    found = load_sweep(written(tmp_path, over={"seed": [0], "search.population": [30]}))
    (cell,) = found.cells
    (tmp_path / "alone.yaml").write_text(cell.text)
    assert load_config(tmp_path / "alone.yaml")[0].hash() == cell.config.hash()


def test_paths_are_relative_to_the_file_that_names_them(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below/base.yaml").write_text("models: {train: [a.json], valid: [], test: []}\n")
    file = written(tmp_path, base="below/base.yaml", over={"models.valid": [["b.json"]]})
    (cell,) = load_sweep(file).cells
    assert cell.config.models.train == [str(tmp_path / "below/a.json")]
    assert cell.config.models.valid == [str(tmp_path / "b.json")]


def test_where_a_campaign_runs_is_the_sweeps_own_matter(tmp_path):
    base = {"executor": {"kind": "ray", "workers": 7, "batch": 12}, "out": "x", "cache": "y", "seed": 4}
    (cell,) = load_sweep(written(tmp_path, base=base)).cells
    assert cell.config.executor.kind == "local" and cell.config.executor.workers is None
    assert cell.config.executor.batch == 12 and cell.config.out is None and cell.config.cache is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"over": {"serach": [1]}}, "s.yaml: campaign serach1: serach: unknown key. Did you mean 'search'?"),
        ({"over": {"search": [{"kind": "genetik"}]}}, "unknown kind 'genetik'. Did you mean 'genetic'?"),
        ({"over": {"stop.evaluations": [100, -1]}}, "campaign evaluations-1: stop.evaluations"),
        ({"over": {"seed": "0-x"}}, "over.seed: '0-x' is neither a list of values nor a range"),
        ({"over": {"seed": "9-0"}}, "over.seed: '9-0' should go from a number to a larger one"),
        ({"over": {"seed": [1, 1]}}, "over.seed: 1 stands twice"),
        ({"over": {"seed": []}}, "over.seed"),
        ({"over": {"seed": f"0-{MAX_CAMPAIGNS}"}}, "10,001 campaigns; 10,000 are the most"),
        ({"over": {"executor.workers": [1, 2]}}, "executor.workers cannot vary"),
        ({"over": {"name": ["a"]}}, "name cannot vary"),
        ({"over": {"a b": [1]}}, "no dotted key"),
        ({"over": {"name.x": [1]}}, "cannot vary"),
        ({"over": {"seed.x": [1]}, "base": {"seed": 3}}, "'seed' is no mapping"),
        ({"over": {"seed": [0]}, "exclude": [{"seed": 4}]}, "matches no campaign"),
        ({"over": {"seed": [0]}, "exclude": [{"sede": 4}]}, "'sede' does not vary under `over`. Did you mean 'seed'?"),
        ({"over": {"seed": [0]}, "exclude": [{"seed": 0}]}, "there is no campaign in this sweep"),
        ({"over": {"seed": [0]}, "include": [{"seed": [0]}]}, "are the same campaign"),
        ({"base": "nowhere.yaml"}, "s.yaml: base: "),
        ({"base": 7}, "base"),
        ({"turn_s": 0}, "turn_s"),
        ({"ovr": {}}, "ovr: unknown key. Did you mean 'over'?"),
        ({"executor": {"kind": "auto"}}, "a sweep runs on ray, or in turn with local"),
        ({"executor": {"limit_s": 3}}, "limit_s is of each campaign; set it under base: executor"),
        ({"executor": {"kind": "local", "resources": {"cpus": 2}}}, "resources is for Ray's workers"),
        ({"base": str(CONFIGS / "journey.yaml")}, "a replay searches nothing"),
    ],
)
def test_a_wrong_file_ends_in_one_message(tmp_path, keys, message):
    with pytest.raises(ConfigError) as caught:
        load_sweep(written(tmp_path, **keys))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "s.yaml"))


def test_a_campaigns_file_is_told_from_a_sweeps():
    with pytest.raises(ConfigError, match="one campaign, not a sweep; run it with: evoquant run"):
        load_sweep(CONFIGS / "random.yaml")


def test_the_record_makes_the_same_campaigns_again(tmp_path):
    from evoquant.campaign.config_sweep import sweep_from_dict

    over = {"search": [{"kind": "genetic"}, {"kind": "random"}], "seed": "0-2"}
    found = load_sweep(written(tmp_path, over=over, exclude=[{"seed": 1, "search": {"kind": "random"}}]))
    again = sweep_from_dict(json.loads(json.dumps(found.record())), "record", tmp_path)
    assert [(cell.name, cell.config.hash()) for cell in again.cells] == [
        (cell.name, cell.config.hash()) for cell in found.cells
    ]


def test_the_base_is_changed_from_the_command_line_where_nothing_varies(tmp_path):
    file = written(tmp_path, over={"seed": [0]})
    (cell,) = load_sweep(file, ["stop.generations=5", "search={kind: random}"]).cells
    assert cell.config.stop.generations == 5 and cell.config.search.kind == "random"
    for change, message in (
        ("seed=3", "--set seed=3: seed varies in this sweep"),
        ("finalists", "write it as key.path=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_sweep(file, [change])
