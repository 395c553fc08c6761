"""Export, import, the same allocation: random ones within each target's rules, read back from the files alone."""

import os

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from transformers import LlamaConfig, LlamaForCausalLM

from evoquant.campaign.score import read_allocation, resolved
from evoquant.export.recipe import build_recipe
from evoquant.export.writers import SUFFIXES, WRITERS
from evoquant.models.deployable import deployable
from evoquant.models.torch_task import language_model
from evoquant.profiles.narrowing import constrained
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 5
INTEGERS = ["INT2-g32", "INT4-g32", "INT4-channel", "INT6-g32", "INT8-g32", "INT8-channel"]
MENU = Menu.parse([*INTEGERS, "FP8-channel", "FP8-tensor", "FP16", "BF16", "FP32"])
PACKAGES = {"compressed-tensors": "compressed_tensors", "gguf": "gguf", "modelopt": "modelopt"}


@pytest.fixture(scope="module")
def task():
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    network = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=False, use_cache=False))
    tokens = np.arange(4 * 16).reshape(4, 16)
    return language_model(network, calibration=tokens, selection=tokens, test=tokens)


@pytest.mark.parametrize("target", PACKAGES)
def test_an_export_reads_back_as_the_allocation_that_it_was_made_of(target, task, tmp_path):
    pytest.importorskip(PACKAGES[target])
    ready = deployable(task)
    profile = constrained(task.profile(MENU, lambda requests: [], ()), MENU, [target])
    problem = compile_problem(profile, MENU)
    rng = generator_for(3, 0, "allocations")
    seen = set()
    for index in range(ALLOCATIONS):
        drawn = rng.integers(0, len(MENU), (1, len(problem.units)), dtype=np.int8)
        widths = problem.unfold(problem.repair(drawn)[0])
        seen.update(widths)
        recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
        WRITERS[target](recipe, ready, tmp_path / f"{index}{SUFFIXES[target]}")
        found, warnings = resolved(read_allocation(tmp_path / f"{index}{SUFFIXES[target]}"), task)
        assert found == dict(zip(task.layers, widths, strict=True))
        assert len(warnings) <= 2, warnings  # codes are made anew; nothing is only near
    assert len(seen) >= 4
