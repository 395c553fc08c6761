import numpy as np
import pytest

from evoquant.errors import ProfileError
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.model import profile_from_dict, profile_to_dict
from evoquant.profiles.seed_suite import (
    DATA_SETS,
    SPLITS,
    ChaCha8,
    _chacha_blocks,
    _expand_seed,
    suite_digest,
)
from evoquant.quantization.precision import SEED_MENU

DIGESTS = {
    "seed/train": "49d72ed59f2c0bbf",
    "seed/valid": "a70097626883289e",
    "seed/test": "adae759fe9ec8af9",
    "seed-additive/train": "f09b2b17f87168fa",
    "seed-additive/valid": "224883ccaf0ba108",
    "seed-additive/test": "ee4931114f1eabae",
}
SIZES = {"train": (131, 5295841280), "valid": (99, 4037419008), "test": (27, 19323048)}

# Keystream blocks 0 and 1 of ChaCha8 with a 256-bit key and nonce, all zero
# (draft-strombergson-chacha-test-vectors-01, TC1, 8 rounds).
ZERO_KEY_STREAM = (
    "3e00ef2f895f40d67f5bb8e81f09a5a12c840ec3ce9a7f3b181be188ef711a1e"
    "984ce172b9216f419f445367456d5619314a42a3da86b001387bfdb80e0cfe42"
    "d2aefa0deaa5c151bf0adb6c01f2a5adc0fd581259f9a2aadcf20f8fd566a26b"
    "5032ec38bbc5da98ee0c6f568b872a65a08abf251deb21bb4b56e5d8821e68aa"
)


def plain_block(key, counter, rounds):
    """One block, word by word, straight from the RFC's text."""
    mask = 2**32 - 1
    words = [int.from_bytes(b"expand 32-byte k"[i : i + 4], "little") for i in range(0, 16, 4)]
    words += [int(word) for word in key] + [counter & mask, counter >> 32, 0, 0]
    x = list(words)

    def quarter(a, b, c, d):
        for p, q, r, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[p] = (x[p] + x[q]) & mask
            x[r] ^= x[p]
            x[r] = (x[r] << turn | x[r] >> (32 - turn)) & mask

    for _ in range(rounds // 2):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & mask for a, b in zip(x, words, strict=True)]


def test_chacha8_known_stream():
    stream = _chacha_blocks(np.zeros(8, dtype=np.uint32), 0, 2)
    assert stream.astype("<u4").tobytes().hex() == ZERO_KEY_STREAM


@pytest.mark.parametrize("counter", [0, 1, 2**32 - 2, 2**40 + 7])
def test_chacha8_against_plain_words(counter):
    key = np.frombuffer(_expand_seed(42), dtype="<u4")
    expected = [word for block in range(3) for word in plain_block(key, counter + block, 8)]
    assert _chacha_blocks(key, counter, 3).tolist() == expected


def test_the_rfc_itself_anchors_the_plain_words():
    # RFC 8439, 2.3.2, has 20 rounds and a nonce; with a zero key, nonce and counter see its appendix A.1, vector 1.
    words = plain_block([0] * 8, 0, 20)
    stream = b"".join(word.to_bytes(4, "little") for word in words)
    assert stream.hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")


def test_uniform_takes_two_words_low_first():
    words = _chacha_blocks(np.frombuffer(_expand_seed(7), dtype="<u4"), 0, 130).tolist()
    stream = ChaCha8(7)
    for low, high in zip(words[0::2], words[1::2], strict=True):
        value = stream.uniform()
        assert value == ((high << 32 | low) >> 11) / 2**53
        assert 0.0 <= value < 1.0


@pytest.mark.parametrize("name", DIGESTS)
def test_digest(name):
    assert suite_digest(builtin_profile(name))[:16] == DIGESTS[name]


@pytest.mark.parametrize("data", DATA_SETS)
@pytest.mark.parametrize("split", SPLITS)
def test_sizes_positions_and_names(data, split):
    profile = builtin_profile(f"{data}/{split}")
    layers, parameters = SIZES[split]
    assert len(profile.layers) == layers
    assert profile.parameters == parameters
    assert [layer.position for layer in profile.layers] == [i / (layers - 1) for i in range(layers)]
    assert len({layer.name for layer in profile.layers}) == layers
    assert profile.name == f"{data}/{split}"


def test_order_of_the_layers():
    train = [layer.type for layer in builtin_profile("seed/train").layers]
    block = ["Attention", "LayerNorm", "Linear", "LayerNorm"]
    assert train == ["Embedding", *block * 32, "LayerNorm", "Classifier"]
    test = builtin_profile("seed/test").layers
    assert [layer.type for layer in test] == ["Conv"] * 25 + ["Linear", "Classifier"]
    assert [layer.shape[0] for layer in test] == [64] * 7 + [128] * 6 + [256] * 6 + [512] * 6 + [1000] * 2


@pytest.mark.parametrize("name", DIGESTS)
def test_losses_never_grow_with_the_width(name):
    for layer in builtin_profile(name).layers:
        losses = [layer.loss[width] for width in SEED_MENU.names]
        assert losses == sorted(losses, reverse=True)
        # The step that keeps the order may add 0.01 to the clip at 0.99, once for each width.
        assert all(0.0 <= loss <= 1.0 for loss in losses)


@pytest.mark.parametrize("name", DIGESTS)
def test_json_round_trip_keeps_every_bit(name):
    profile = builtin_profile(name)
    again = profile_from_dict(profile_to_dict(profile))
    assert again == profile
    assert suite_digest(again) == suite_digest(profile)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ProfileError, match=r"no built-in profile is called 'seed/tets'.*Did you mean 'seed/test'"):
        builtin_profile("seed/tets")
    for name in ("seed", "seed/", "/train", "other/train"):
        with pytest.raises(ProfileError):
            builtin_profile(name)
