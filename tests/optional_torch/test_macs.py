"""Multiply-accumulates of a sample, counted by hand."""

import pytest

pytest.importorskip("torch")

from evoquant.campaign.build_measured import bare_profile
from evoquant.quantization.precision import Menu
from evoquant.scoring.bit_operations import bit_operations
from tests.optional_torch.networks import image_task, language_task

TOKENS, WIDTH, VOCABULARY = 8, 16, 20
MENU = Menu.parse(["INT4-channel", "INT8-channel-a8", "FP32"])


def macs_of(task):
    return {layer.name: layer.macs for layer in bare_profile(task, MENU).layers}


def test_tokens_attention_recurrence_and_a_matrix_that_is_tied():
    found = macs_of(language_task())
    assert found["embed"] == TOKENS * WIDTH * VOCABULARY  # looked up, which multiplies nothing, then the classifier
    assert found["pos"] == 0
    assert found["block.self_attn.in_proj"] == 3 * TOKENS * WIDTH**2
    assert found["block.linear1"] == TOKENS * WIDTH * 24
    assert found["rnn.weight_hh_l0"] == TOKENS * 32 * 8
    assert found["turned"] == TOKENS * WIDTH**2  # read transposed
    assert found["norm"] == TOKENS * WIDTH


def test_convolutions_strides_groups_and_one_that_is_used_twice():
    found = macs_of(image_task())
    assert found["first"] == 8 * 8 * 4 * 2 * 9
    assert found["twice"] == 2 * 8 * 8 * 4 * 2 * 9
    assert found["up"] == 4 * 8 * 8 * 3 * 2 * 2  # each value that comes in meets its filters once


def test_bit_operations_are_products_of_bits():
    profile = bare_profile(image_task(), MENU)
    cost = bit_operations(profile, MENU, [(i,) for i in range(len(profile.layers))])
    first = next(i for i, layer in enumerate(profile.layers) if layer.name == "first")
    macs = profile.layers[first].macs
    assert cost.table[first].tolist() == [macs * 4 * 32, macs * 8 * 8, macs * 32 * 32]
    assert cost.reference == sum(layer.macs for layer in profile.layers) * 1024
