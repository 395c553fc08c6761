import json
import sys
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.apply import load_genome
from evoquant.campaign.build import allow_genomes, build_campaign
from evoquant.campaign.champion import load_champion
from evoquant.campaign.config import config_from_dict
from evoquant.errors import GenomeError, InputError
from evoquant.genomes import load as loading
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.bound import bound_data
from evoquant.report.data import load_run
from evoquant.report.tables import run_tables
from evoquant.report.why import why_data
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.testing import check_cost, check_estimator, check_space
from evoquant.testing.examples import example_problem

sys.path.insert(0, str(Path(__file__).parent))
import own_parts

ALL = {
    "name": "own",
    "genome": {"kind": "own_parts:HalvesSpace", "options": {"most": 0.9}},
    "cost": {"kind": "own_parts:Nanoseconds", "options": {"call": 7}},
    "estimator": {"kind": "own_parts:Pessimist"},
    "objective": {"kind": "own_parts:Goal"},
    "search": {"kind": "genetic", "population": 12},
    "stop": {"generations": 4},
    "executor": {"kind": "local"},
}
CODE = ["own_parts:Goal", "own_parts:HalvesSpace", "own_parts:Nanoseconds", "own_parts:Pessimist"]


def config(**changed):
    return config_from_dict({**ALL, **changed}, "own.yaml")


def begun(place, **changed):
    return api.begin(config(**changed), "", place, "own.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("own") / "run")


@pytest.fixture
def elsewhere(monkeypatch):
    """As in a process that has made no space of its own."""
    monkeypatch.setattr(loading, "_OWN", {})


def test_the_examples_keep_their_protocols():
    check_space(own_parts.HalvesSpace((example_problem(),)), n=12)
    check_cost(own_parts.Nanoseconds())
    check_estimator(own_parts.Pessimist())


def test_a_campaign_of_ones_own_parts_ends_with_its_figures(run):
    found = json.loads((run.path / "champion.json").read_text())
    assert found["genome"]["kind"] == "halves"
    assert found["provenance"]["own"]["cost"] == {"kind": "own_parts:Nanoseconds", "options": {"call": 7}}
    champion = own_parts.HalvesSpace.genome_from_dict(found["genome"])
    for split, figures in found["scores"].items():
        profile = builtin_profile(f"seed/{split}")
        problem = compile_problem(profile, SEED_MENU, own_parts.Nanoseconds(7))
        allocation = champion.allocate(problem)
        assert figures["retention"] == pytest.approx(own_parts.Pessimist().retention(problem, allocation[None])[0])
        assert figures["cost"]["value"] == problem.cost.table[np.arange(len(allocation)), allocation].sum()
        assert figures["compression"] == figures["cost"]["reference"] / figures["cost"]["value"]
        widths = np.array([width.code_bits for width in SEED_MENU])[allocation]
        parameters = [layer.parameters for layer in profile.layers]
        assert figures["effective_bits"] == pytest.approx((widths * parameters).sum() / problem.weights)
        assert "share_of_optimum" not in figures  # of an estimator of one's own nothing is certified


def test_such_a_run_resumes_to_the_same_bytes(run, tmp_path):
    whole = (run.path / "journal.jsonl").read_bytes()
    for name in ("config.yaml", "resolved.json", "environment.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    (tmp_path / "journal.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="--allow-code own_parts:Goal --allow-code own_parts:HalvesSpace"):
        api.resume(tmp_path)
    api.resume(tmp_path, allow_code=CODE)
    assert (tmp_path / "journal.jsonl").read_bytes() == whole
    assert (tmp_path / "champion.json").read_bytes() == (run.path / "champion.json").read_bytes()


def test_its_tables_say_what_is_counted_and_what_cannot_be_explained(run):
    data = load_run(run.path)
    notes = [note for table in run_tables(data) for note in table.notes]
    assert any(note.startswith("Compression is of nanoseconds, FP32 / champion: train ") for note in notes)
    assert "by code from outside" in why_data(data)["notes"][0]


def test_its_champion_is_read_without_its_code_and_used_with_it(run, elsewhere):
    champion = load_champion(run.path / "champion.json")
    assert champion.genome.text == run.champion.genome.text
    assert champion.to_json() == (run.path / "champion.json").read_text()
    problem = compile_problem(builtin_profile("seed/test"), SEED_MENU)
    with pytest.raises(GenomeError, match="--allow-code own_parts:HalvesSpace"):
        champion.genome.allocate(problem)
    allow_genomes(["own_parts:HalvesSpace"])
    assert np.array_equal(champion.genome.allocate(problem), run.champion.genome.allocate(problem))
    assert load_genome(str(run.path)) == run.champion.genome


def test_a_genome_that_is_none_is_told_with_its_file(run, tmp_path):
    found = json.loads((run.path / "champion.json").read_text())
    del found["genome"]["cut"]
    (tmp_path / "champion.json").write_text(json.dumps(found))
    with pytest.raises(GenomeError, match=r"champion\.json: genome: halves have cut, first and rest"):
        load_champion(tmp_path / "champion.json")


def test_who_fails_does_not_depend_on_who_shares_a_batch(tmp_path):
    journals = []
    for batch in (1, 5, 256):
        begun(
            tmp_path / str(batch),
            estimator={"kind": "own_parts:Fragile"},
            executor={"kind": "local", "batch": batch},
        )
        journals.append((tmp_path / str(batch) / "journal.jsonl").read_bytes())
    assert journals[0] == journals[1] == journals[2]
    reasons = [reason for line in journals[0].splitlines() for reason in json.loads(line)["failures"].values()]
    assert {"raised:KeyError", "not_finite"} <= set(reasons)


def test_under_a_cost_of_ones_own_the_optimum_is_certified_and_a_budget_is_in_its_unit(tmp_path):
    reference = compile_problem(builtin_profile("seed/test"), SEED_MENU, own_parts.Nanoseconds()).cost.reference
    run = begun(
        tmp_path / "run",
        models={"train": ["seed/test"], "valid": [], "test": []},
        genome={"kind": "direct"},
        cost={"kind": "own_parts:Nanoseconds"},
        estimator=None,
        objective={"kind": "budget", "cost": reference // 3},
    )
    figures = run.champion.scores["train"]
    assert figures["cost"]["value"] <= reference // 3
    assert 0.0 < figures["share_of_optimum"] <= 1.0 + 1e-12
    bound = bound_data(builtin_profile("seed/test"), Cliff(), menu=SEED_MENU.names, cost=own_parts.Nanoseconds())
    assert bound["cost"] == "nanoseconds"
    assert (
        bound["optimum"]["compression"] != bound_data(builtin_profile("seed/test"), Cliff())["optimum"]["compression"]
    )


def test_a_measured_campaign_counts_it_too(tmp_path, tiny):
    run = begun(
        tmp_path / "run",
        task={"kind": "tiny"},
        signals=["fisher"],
        estimator=None,
        genome={"kind": "own_parts:HalvesSpace"},
        search={"kind": "random", "population": 2},
        stop={"generations": 1},
        finalists=1,
    )
    figures = run.champion.scores["test"]
    assert figures["compression"] == figures["cost"]["reference"] / figures["cost"]["value"]
    assert figures["cost"]["name"] == "nanoseconds"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cost": {"kind": "nowhere:Cost"}}, "nowhere:Cost: cannot be imported"),
        ({"cost": {"kind": "own_parts:Nothing"}}, "has no attribute 'Nothing'"),
        ({"cost": {"kind": "own_parts:number"}}, "own_parts:number is no class"),
        ({"cost": {"kind": "own_parts:Goal"}}, r"cost\.kind: own_parts:Goal lacks __call__\(\).*CostMaker"),
        ({"estimator": {"kind": "own_parts:Goal"}}, r"estimator\.kind: own_parts:Goal lacks retention\(\)"),
        ({"search": {"kind": "own_parts:Goal"}}, r"own_parts:Goal cannot be called as Goal\(space, seed=seed"),
        ({"objective": {"kind": "own_parts:Pessimist"}}, r"own_parts:Pessimist lacks score\(\)"),
        ({"cost": {"kind": "own_parts:Nanoseconds", "options": {"cal": 3}}}, r"cost\.options: .*'cal'"),
        ({"cost": {"kind": "own_parts:NoDevice"}}, "making own_parts:NoDevice raised RuntimeError: no device"),
        ({"cost": {"kind": "own_parts:NoTable"}}, r"cost\.kind: own_parts:NoTable: latency\.csv: no such file"),
        ({"cost": {"kind": "own_parts:Three"}}, "cost of 'seed/train': should be an evoquant.scoring.cost.Cost"),
        ({"cost": {"kind": "own_parts:Wrong", "options": {"name": "bits"}}}, "'bits' is evoquant's own count"),
        ({"cost": {"kind": "own_parts:Wrong", "options": {"dtype": "float64"}}}, "table: should be int64"),
        ({"cost": {"kind": "own_parts:Wrong", "options": {"sign": -1}}}, "is below 0"),
        ({"cost": {"kind": "own_parts:Wrong", "options": {"sign": 2**40}}}, "exceed 2.62"),
        ({"cost": {"kind": "own_parts:Wrong", "options": {"reference": 0}}}, "reference: 0 is not above"),
        ({"estimator": {"kind": "own_parts:Three"}}, r"should give float64 of shape \(n,\) = \(1,\)"),
        ({"genome": {"kind": "own_parts:Misnamed"}}, "is 'halves'; should be the space's `kind`, 'quarters'"),
        ({"genome": {"kind": "own_parts:Unreadable"}}, r"needs `kind`.*genome_from_dict\(data\)"),
        ({"genome": {"kind": "own_parts:Forgetful"}}, "makes another genome than to_dict wrote"),
    ],
)
def test_what_cannot_be_used_is_told_before_the_search(changed, message, tmp_path):
    with pytest.raises(InputError, match=message):
        build_campaign(config(**changed), Path(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cost": {"kind": "latency"}}, "cost.kind: unknown kind 'latency'. Known: bit_operations, bits, bytes, table"),
        ({"objective": {"kind": "budget", "effective_bits": 6}}, "effective_bits and megabytes count bits"),
        ({"cost": None, "objective": {"kind": "budget", "cost": 6}}, "effective_bits and megabytes count bits"),
        ({"relative_to_optimum": True}, "relative_to_optimum needs a built-in objective"),
        ({"relative_to_optimum": True, "objective": {}}, "relative_to_optimum needs the separable estimator"),
        ({"task": {"kind": "digits"}}, "estimator is for campaigns on profiles"),
    ],
)
def test_what_does_not_go_together_is_told(changed, message):
    with pytest.raises(InputError) as caught:
        config(**changed)
    assert message in str(caught.value)


def test_configs_without_them_do_not_know_of_them():
    plain = config_from_dict({"name": "plain", "objective": {"kind": "budget", "effective_bits": 6}}, "plain.yaml")
    assert not {"cost", "estimator"} & set(plain.to_dict())
    assert set(plain.to_dict()["objective"]) == {"kind", "effective_bits", "megabytes"}
