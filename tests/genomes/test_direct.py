import dataclasses

import numpy as np
import pytest

from evoquant.errors import GenomeError, PrecisionError
from evoquant.genomes.direct import Direct, DirectSpace, direct_from_dict
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.strategies import strategy
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
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
