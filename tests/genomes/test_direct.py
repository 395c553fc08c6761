import dataclasses
import json

import numpy as np
import pytest

from evoquant.errors import GenomeError, PrecisionError
from evoquant.files import canonical_json
from evoquant.genomes.direct import Direct, DirectSpace, direct_from_dict
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.strategies import strategy
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

PROBLEM = compile_problem(seed_profile("test"), SEED_MENU)
OTHER = compile_problem(seed_profile("train"), SEED_MENU)
SMALL = ModelProfile(
    "small",
    (
        LayerProfile("q", "Linear", (4, 4), 0.0, tie_group="qk"),
        LayerProfile("o", "Linear", (4, 4), 0.5, allowed=("INT4", "FP16")),
        LayerProfile("k", "Linear", (4, 4), 1.0, tie_group="qk"),
    ),
)


def test_round_trips():
    space = DirectSpace(PROBLEM)
    rows = space.sample(np.random.default_rng(0), 8)
    for row in rows:
        genome = space.decode(row)
        assert genome_from_dict(genome.to_dict(), "x") == genome
        np.testing.assert_array_equal(space.encode(genome), row)
        np.testing.assert_array_equal(genome.allocate(PROBLEM), row)


def test_any_genome_of_the_model_can_be_written_as_direct():
    space = DirectSpace(PROBLEM)
    for name in ("wider_fp16_zone", "hybrid"):
        row = space.encode(strategy(name))
        np.testing.assert_array_equal(space.decode(row).allocate(PROBLEM), strategy(name).allocate(PROBLEM))


def test_units_and_forbidden_widths():
    problem = compile_problem(SMALL, SEED_MENU)
    space = DirectSpace(problem)
    assert [gene.name for gene in space.genes] == ["qk", "o"]
    row = space.canonical(np.array([[0.0, 2.0]]))[0]
    assert space.decode(row) == Direct("small", (("qk", "INT2"), ("o", "FP16")))
    assert problem.unfold(space.decode(row).allocate(problem)) == ("INT2", "FP16", "INT2")
    written = Direct("small", (("qk", "INT2"), ("o", "FP32")))
    assert problem.unfold(written.allocate(problem)) == ("INT2", "FP16", "INT2")


def test_mutation_steps_mostly_and_switches_units_of_like_size():
    space = DirectSpace(OTHER)
    rng = generator_for(0, 0, "test")
    before = space.sample(rng, 2000)
    after = space.mutate(before, 1 / 131, rng)
    moved = before != after
    assert 1.2 < moved.sum(axis=1).mean() < 2.0  # one by a step or draw, one by half a switch of two
    permuted = (np.sort(before, axis=1) == np.sort(after, axis=1)).all(axis=1) & moved.any(axis=1)
    assert (moved[permuted].sum(axis=1) == 2).mean() > 0.9
    size = OTHER.scalars["parameters"]
    ratios = [size[row].max() / size[row].min() for row in moved[permuted] if row.sum() == 2]
    assert np.mean(np.array(ratios) < 2.5) > 0.9 and permuted.sum() > 200  # two steps may look like a switch
    assert np.array_equal(space.mutate(before, 0.0, rng), before)


def test_levels_pass_over_forbidden_widths():
    problem = compile_problem(SMALL, SEED_MENU)
    space = DirectSpace(problem)
    rows = np.array([[float(code)] * 2 for code in range(5)])
    assert space.levels(rows, up=True)[:, 0].tolist() == [1, 2, 3, 4, 4]
    assert space.levels(rows, up=False)[:, 0].tolist() == [0, 0, 1, 2, 3]
    assert space.levels(rows, up=True)[:, 1].tolist() == [1, 3, 3, 3, 4]  # INT4 and FP16 are allowed
    assert space.levels(rows, up=False)[:, 1].tolist() == [0, 1, 1, 1, 3]


def test_a_partner_is_eligible_and_near_or_the_unit_itself():
    space = DirectSpace(OTHER)
    rng = generator_for(0, 0, "test")
    units = np.arange(131)
    eligible = np.zeros((131, 131), dtype=bool)
    assert np.array_equal(space.like_sized(units, eligible, rng), units)
    eligible[:, 7] = True
    assert (space.like_sized(units, eligible, rng) == 7).all()
    eligible[:] = ~np.eye(131, dtype=bool)
    partners = space.like_sized(units, eligible, rng)
    size = OTHER.scalars["parameters"]
    assert (partners != units).all()
    assert (size[partners] == size)[size < 1e8].all()
    assert len(np.unique([space.like_sized(units[:1], eligible[:1], rng) for _ in range(200)])) > 30


def test_a_genome_of_a_journal_is_the_same_genome():
    """Journals sort their keys, and units are not in alphabetical order."""
    space = DirectSpace(PROBLEM)
    genes = generator_for(0, 0, "genes").integers(0, 5, len(PROBLEM.units)).astype(np.float64)
    genome = space.decode(space.canonical(genes[None])[0])
    again = genome_from_dict(json.loads(canonical_json(genome.to_dict())), "journal")
    assert again != genome and (again.allocate(PROBLEM) == genome.allocate(PROBLEM)).all()


def test_another_model_is_refused_by_name():
    genome = DirectSpace(PROBLEM).decode(np.zeros(len(PROBLEM.units)))
    with pytest.raises(GenomeError, match=r"'seed/test' cannot be applied to 'seed/train'; evolve a rule"):
        genome.allocate(OTHER)
    with pytest.raises(GenomeError, match=r"'seed/test' cannot be applied to 'seed/train'"):
        DirectSpace(PROBLEM).allocate(np.zeros((2, len(PROBLEM.units))), OTHER)
    renamed = compile_problem(dataclasses.replace(seed_profile("test"), name="mine"), SEED_MENU)
    with pytest.raises(GenomeError, match="'mine'"):
        genome.allocate(renamed)


def test_widths_resolve_on_the_menu():
    problem = compile_problem(SMALL, Menu.parse(["INT4-channel", "FP16"]))
    profile = ModelProfile("small", tuple(dataclasses.replace(layer, allowed=None) for layer in SMALL.layers))
    problem = compile_problem(profile, problem.menu)
    genome = Direct("small", (("qk", "INT4"), ("o", "FP16")))
    assert problem.unfold(genome.allocate(problem)) == ("INT4-channel", "FP16", "INT4-channel")
    with pytest.raises(PrecisionError, match="has no INT8"):
        Direct("small", (("qk", "INT8"), ("o", "FP16"))).allocate(problem)


def test_text_counts_widths():
    assert Direct("m", (("a", "INT4"), ("b", "FP16"), ("c", "INT4"))).text == "m: 1 × FP16, 2 × INT4"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"kind": "direct", "model": "m", "widths": {}}, "widths"),
        ({"kind": "direct", "model": "m", "widths": {"a": "INT9"}}, "unknown precision 'INT9'"),
        ({"kind": "direct", "widths": {"a": "INT4"}}, "model: this key is required"),
        ({"kind": "direct", "model": "m", "widths": {"a": "INT4"}, "width": 1}, r"width: unknown key.*'widths'"),
        ({"kind": "direct", "model": "m", "widths": [1]}, "widths"),
    ],
)
def test_faults_name_the_key(data, fault):
    with pytest.raises(GenomeError, match=fault):
        direct_from_dict(data, "file")
