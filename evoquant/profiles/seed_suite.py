"""The seed suite: three synthetic models, regenerated bit for bit.

The published benchmark draws everything from one ChaCha8 stream a model. Two data sets exist:
`seed` (proportional noise, the published data) and `seed-additive` (an earlier one, behind part
of the published Gen 1 table).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU

Noise = Literal["proportional", "additive"]
Phase = Literal["early", "late", "middle"]

DATA_SETS: dict[str, Noise] = {"seed": "proportional", "seed-additive": "additive"}
SPLITS = ("train", "valid", "test")

_MASK64 = 2**64 - 1
_BLOCK_WORDS = 16

# Base gradient sensitivity a + k·u, and the loss curve over INT2 … FP32, by layer type.
_BASE = {
    "LayerNorm": (0.8, 0.15),
    "Embedding": (0.6, 0.2),
    "Classifier": (0.7, 0.2),
    "Attention": (0.4, 0.3),
    "Linear": (0.2, 0.3),
    "Conv": (0.2, 0.25),
}
_CURVE = {
    "LayerNorm": (0.5, 0.2, 0.05, 0.001, 0.0),
    "Embedding": (0.4, 0.15, 0.03, 0.001, 0.0),
    "Classifier": (0.35, 0.12, 0.02, 0.001, 0.0),
    "Attention": (0.25, 0.08, 0.015, 0.0005, 0.0),
    "Linear": (0.2, 0.06, 0.01, 0.0002, 0.0),
    "Conv": (0.18, 0.05, 0.008, 0.0001, 0.0),
}
_FIXED_WEIGHTS = {
    "Embedding": (0.0, 0.02, 0.1),
    "LayerNorm": (1.0, 0.01, 0.05),
    "Classifier": (0.0, 0.01, 0.05),
}
_ACTIVATION = {"LayerNorm": (1.0, 0.5), "Classifier": (10.0, 5.0)}


class ChaCha8:
    """ChaCha with 8 rounds as a stream of uniform doubles (RFC 8439 quarter round; 64-bit counter, stream 0)."""

    def __init__(self, seed: int) -> None:
        self._key = np.frombuffer(_expand_seed(seed), dtype="<u4").astype(np.uint32)
        self._words: list[int] = []
        self._next = 0
        self._counter = 0

    def uniform(self) -> float:
        """The next double in [0, 1), from two output words, low word first."""
        low = self._word()
        high = self._word()
        return float((high << 32 | low) >> 11) * 2.0**-53

    def _word(self) -> int:
        if self._next == len(self._words):
            self._words = _chacha_blocks(self._key, self._counter, 64).tolist()
            self._counter += 64
            self._next = 0
        word = self._words[self._next]
        self._next += 1
        return word


def _expand_seed(seed: int) -> bytes:
    """The 32-byte key of a 64-bit seed: eight steps of a permuted congruential generator."""
    state = seed & _MASK64
    key = b""
    for _ in range(8):
        state = (state * 6364136223846793005 + 11634580027462260723) & _MASK64
        shifted = (((state >> 18) ^ state) >> 27) & 0xFFFFFFFF
        turn = state >> 59
        word = (shifted >> turn | shifted << (32 - turn)) & 0xFFFFFFFF
        key += word.to_bytes(4, "little")
    return key


def _chacha_blocks(key: np.ndarray, counter: int, blocks: int) -> np.ndarray:
    """`(blocks · 16,)` output words of consecutive blocks from `counter`, computed side by side."""
    start = np.zeros((_BLOCK_WORDS, blocks), dtype=np.uint32)
    start[0:4] = np.frombuffer(b"expand 32-byte k", dtype="<u4").astype(np.uint32)[:, None]
    start[4:12] = key[:, None]
    counters = np.arange(counter, counter + blocks, dtype=np.uint64)
    start[12] = (counters & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    start[13] = (counters >> np.uint64(32)).astype(np.uint32)
    x = start.copy()
    for _ in range(4):
        for column in range(4):
            _quarter_round(x, column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            _quarter_round(x, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return (x + start).T.reshape(-1)


def _quarter_round(x: np.ndarray, a: int, b: int, c: int, d: int) -> None:
    for target, source, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[target] += x[source]
        x[mixed] ^= x[target]
        x[mixed] = x[mixed] << np.uint32(turn) | x[mixed] >> np.uint32(32 - turn)


@dataclass(frozen=True)
class _Plan:
    """A layer before its figures are drawn."""

    name: str
    type: str
    shape: tuple[int, ...]
    phase: Phase = "middle"


def _transformer(blocks: int) -> list[_Plan]:
    hidden, inner, vocabulary = 4096, 11008, 32000
    plans = [_Plan("embedding", "Embedding", (vocabulary, hidden), "early")]
    for block in range(blocks):
        phase: Phase = "early" if block < blocks // 4 else "late" if block > 3 * blocks // 4 else "middle"
        plans += [
            _Plan(f"block{block}.attention", "Attention", (4 * hidden, hidden), phase),
            _Plan(f"block{block}.norm1", "LayerNorm", (2, hidden), phase),
            _Plan(f"block{block}.mlp", "Linear", (2 * inner, hidden), phase),
            _Plan(f"block{block}.norm2", "LayerNorm", (2, hidden), phase),
        ]
    plans.append(_Plan("norm", "LayerNorm", (2, hidden), "late"))
    plans.append(_Plan("classifier", "Classifier", (vocabulary, hidden), "late"))
    return plans


def _residual_network() -> list[_Plan]:
    plans = [_Plan("stem", "Conv", (64, 3, 7, 7), "early")]
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(3):
            phase: Phase = "early" if (stage, block) == (0, 0) else "late" if (stage, block) == (3, 2) else "middle"
            shape = (channels, channels, 3, 3)
            plans.append(_Plan(f"stage{stage}.block{block}.conv1", "Conv", shape, phase))
            plans.append(_Plan(f"stage{stage}.block{block}.conv2", "Conv", shape))
    plans.append(_Plan("linear", "Linear", (1000, 512), "late"))
    plans.append(_Plan("classifier", "Classifier", (1000,), "late"))
    return plans


def _draw_layer(plan: _Plan, position: float, noise: Noise, stream: ChaCha8) -> LayerProfile:
    u = stream.uniform
    if plan.type in _FIXED_WEIGHTS:
        mean, std, span = _FIXED_WEIGHTS[plan.type]
    else:
        mean, std, span = 0.0, 0.02 + 0.01 * u(), 0.1 + 0.05 * u()
    low, slope = _ACTIVATION.get(plan.type, (2.0, 3.0))
    activation = low + slope * u()
    low, slope = _BASE[plan.type]
    base = low + slope * u()
    gradient = min(base * {"early": 1.2, "late": 1.15, "middle": 1.0}[plan.phase], 0.99)
    losses = []
    for curve in _CURVE[plan.type]:
        spread = 0.1 * curve if noise == "proportional" else 0.01
        losses.append(min(max(curve * (0.5 + 0.5 * gradient) + (2.0 * u() - 1.0) * spread, 0.0), 0.99))
    for i in range(len(losses) - 2, -1, -1):
        if losses[i] < losses[i + 1]:
            losses[i] = losses[i + 1] + 0.01
    return LayerProfile(
        name=plan.name,
        type=plan.type,
        shape=plan.shape,
        channel_axis=0,
        position=position,
        weight_mean=mean,
        weight_std=std,
        weight_range=span,
        activation_range=activation,
        gradient_sensitivity=gradient,
        loss=dict(zip(SEED_MENU.names, losses, strict=True)),
    )


@functools.cache
def seed_profile(split: str, noise: Noise = "proportional") -> ModelProfile:
    """The suite's model of `split` (`train`, `valid` or `test`) with the given noise."""
    if split == "test":
        layers, seed = _residual_network(), 456
    else:
        layers, seed = (_transformer(32), 42) if split == "train" else (_transformer(24), 123)
    stream = ChaCha8(seed)
    last = len(layers) - 1
    drawn = tuple(_draw_layer(plan, i / last, noise, stream) for i, plan in enumerate(layers))
    data = next(name for name, kind in DATA_SETS.items() if kind == noise)
    return ModelProfile(f"{data}/{split}", drawn, provenance={"suite": "seed", "noise": noise, "seed": seed})


def suite_digest(profile: ModelProfile) -> str:
    """sha256 over rows [activation range, g, mean, std, range, s_INT2 … s_FP32] as little-endian float64."""
    rows = [
        [
            layer.activation_range,
            layer.gradient_sensitivity,
            layer.weight_mean,
            layer.weight_std,
            layer.weight_range,
            *(layer.loss[name] for name in SEED_MENU.names),
        ]
        for layer in profile.layers
    ]
    return hashlib.sha256(np.array(rows, dtype="<f8").tobytes()).hexdigest()
