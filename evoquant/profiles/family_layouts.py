"""Layouts of the random families: which layers a model has, of what type and shape.

A layout is drawn from ranges that cover common published architectures; none is one of them. Each kind first draws the
number of layers it aims at, log-uniform, and then as many blocks as come nearest, because the time that a heuristic
takes grows with the layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoquant.profiles.draw import round_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.profiles.draw import Draw

FEWEST_LAYERS, MOST_LAYERS = 10, 280
AIM = (16, 230)  # layers; blocks are whole, so a model may lie a little outside
MOST_CHANNELS = 2048


@dataclass(frozen=True)
class LayerPlan:
    """A layer before its figures are drawn; `groups` are convolution groups."""

    name: str
    type: str
    shape: tuple[int, ...]
    tie: str | None = None
    groups: int = 1


def _conv(name: str, out: int, into: int, kernel: int, groups: int = 1) -> LayerPlan:
    return LayerPlan(name, "Conv", (out, into // groups, kernel, kernel), groups=groups)


def _linear(name: str, out: int, into: int, tie: str | None = None) -> LayerPlan:
    return LayerPlan(name, "Linear", (out, into), tie)


def _blocks(draw: Draw, per_block: float, others: int, aim: tuple[int, int] = AIM) -> int:
    """How many blocks bring a model of `others` further layers nearest to a drawn number of layers."""
    return max(round((draw.size(*aim) - others) / per_block), 1)


@dataclass(frozen=True)
class _Style:
    """What all blocks of a transformer share."""

    hidden: int
    inner: int
    key_value: int
    norm_vectors: int
    norms: int  # a block: 1 where attention and MLP run in parallel, 2, or 4 with norms behind them too
    projections: str  # "separate", "tied" (separate layers of one fused kernel) or "fused" for q, k and v
    gate: bool


def _style(draw: Draw, widest: int = 8192) -> _Style:
    hidden = draw.size(128, widest, 64)
    return _Style(
        hidden=hidden,
        inner=round_to(hidden * draw.uniform(1.5, 5.0), 64),
        key_value=max(hidden // draw.pick((1, 1, 1, 2, 4, 8)), 32),
        norm_vectors=draw.pick((1, 2)),
        norms=draw.pick((1, 2, 2, 2, 4)),
        projections=draw.pick(("separate", "tied", "fused")),
        gate=draw.chance(0.5),
    )


def _norm(name: str, style: _Style) -> LayerPlan:
    vectors = style.norm_vectors
    return LayerPlan(name, "LayerNorm", (style.hidden,) if vectors == 1 else (vectors, style.hidden))


def _attention(name: str, style: _Style) -> list[LayerPlan]:
    hidden, narrow = style.hidden, style.key_value
    if style.projections == "fused":
        plans = [LayerPlan(f"{name}.qkv", "Attention", (hidden + 2 * narrow, hidden))]
    else:
        tie = f"{name}.qkv" if style.projections == "tied" else None
        sizes = (("q", hidden), ("k", narrow), ("v", narrow))
        plans = [LayerPlan(f"{name}.{part}", "Attention", (out, hidden), tie) for part, out in sizes]
    return [*plans, LayerPlan(f"{name}.o", "Attention", (hidden, hidden))]


def _mlp(name: str, style: _Style) -> list[LayerPlan]:
    gate = [_linear(f"{name}.gate", style.inner, style.hidden)] if style.gate else []
    return [*gate, _linear(f"{name}.up", style.inner, style.hidden), _linear(f"{name}.down", style.hidden, style.inner)]


def _block(name: str, style: _Style, feed: list[LayerPlan], cross: bool = False) -> list[LayerPlan]:
    """Norms, attention, if asked for cross-attention too, and the feed-forward part."""
    parts = [_attention(f"{name}.attention", style), *([_attention(f"{name}.cross", style)] if cross else []), feed]
    plans = []
    for i, part in enumerate(parts):
        if i == 0 or style.norms > 1:
            plans.append(_norm(f"{name}.norm{i}", style))
        plans += part
        if style.norms == 4:
            plans.append(_norm(f"{name}.post_norm{i}", style))
    return plans


def _head(draw: Draw, into: int) -> LayerPlan:
    return LayerPlan("head", "Classifier", (draw.size(2, 22000), into))


def _embedded(draw: Draw, hidden: int) -> tuple[list[LayerPlan], LayerPlan]:
    """The input and output of a language model; their formats are tied in some."""
    vocabulary = draw.size(1000, 260_000)
    tie = "vocabulary" if draw.chance(0.3) else None
    inputs = [LayerPlan("embedding", "Embedding", (vocabulary, hidden), tie)]
    if draw.chance(0.3):
        inputs.append(LayerPlan("positions", "Embedding", (draw.size(128, 8192), hidden)))
    return inputs, LayerPlan("head", "Classifier", (vocabulary, hidden), tie)


def _patches(draw: Draw, hidden: int) -> LayerPlan:
    return _conv("patches", hidden, draw.pick((1, 3, 3, 3, 4, 10)), draw.pick((2, 4, 8, 14, 16, 32)))


def transformer(draw: Draw) -> list[LayerPlan]:
    """A decoder or encoder over tokens, or an encoder over image patches."""
    style = _style(draw)
    if draw.chance(0.7):
        inputs, head = _embedded(draw, style.hidden)
    else:
        inputs, head = [_patches(draw, style.hidden)], _head(draw, style.hidden)
    end = [_norm("norm", style)] if draw.chance(0.8) else []
    blocks = _blocks(draw, len(_block("", style, _mlp("", style))), len(inputs) + len(end) + 1)
    body = [p for i in range(blocks) for p in _block(f"block{i}", style, _mlp(f"block{i}.mlp", style))]
    return [*inputs, *body, *end, head]


def mixture_of_experts(draw: Draw) -> list[LayerPlan]:
    """A decoder where every so many blocks a router chooses among experts, of one width a block or of any."""
    style = _style(draw)
    experts, every, tied = draw.size(2, 16), draw.whole(1, 3), draw.chance(0.6)
    shared = draw.chance(0.3)
    inner = round_to(style.inner * draw.uniform(0.2, 1.0), 64)

    def feed(name: str, block: int) -> list[LayerPlan]:
        if block % every:
            return _mlp(f"{name}.mlp", style)
        matrices = 3 if style.gate else 2  # of one expert, stored as one tensor
        tie = f"{name}.experts" if tied else None
        own = [_linear(f"{name}.expert{i}", matrices * inner, style.hidden, tie) for i in range(experts)]
        return [
            _linear(f"{name}.router", experts, style.hidden),
            *own,
            *(_mlp(f"{name}.shared", style) if shared else []),
        ]

    inputs, head = _embedded(draw, style.hidden)
    round_of = sum(len(_block("", style, feed("", block))) for block in range(every))
    blocks = every * _blocks(draw, round_of, len(inputs) + 2)
    body = [p for i in range(blocks) for p in _block(f"block{i}", style, feed(f"block{i}", i))]
    return [*inputs, *body, _norm("norm", style), head]


def encoder_decoder(draw: Draw) -> list[LayerPlan]:
    """A decoder with cross-attention over an encoder of tokens, or over a convolutional one."""
    style = _style(draw, 4096)
    inputs, head = _embedded(draw, style.hidden)
    one = len(_block("", style, _mlp("", style), cross=True))
    if draw.chance(0.65):
        share = draw.uniform(0.3, 0.8)
        total = _blocks(draw, one, 8)
        decoder = max(round(total * (1 - share)), 1)
        layers = range(max(total - decoder, 1))
        encoder = [p for i in layers for p in _block(f"encoder{i}", style, _mlp(f"encoder{i}.mlp", style))]
        start = [*inputs, *encoder, _norm("encoder.norm", style)]
    else:
        decoder = _blocks(draw, one, 0, (12, 110))
        convolutions, channels = _stages(draw, draw.pick(("plain", "residual")), (10, 100))
        start = [*convolutions, _linear("bridge", style.hidden, channels), *inputs]
    body = [p for i in range(decoder) for p in _block(f"decoder{i}", style, _mlp(f"decoder{i}.mlp", style), cross=True)]
    return [*start, *body, _norm("norm", style), head]


def mlp_mixer(draw: Draw) -> list[LayerPlan]:
    """Image patches mixed along positions and along channels in turn."""
    style = _style(draw, 2048)
    positions = draw.size(16, 1024)
    mixing = round_to(positions * draw.uniform(0.5, 4.0), 8)
    blocks = _blocks(draw, 6, 3)
    plans = [_patches(draw, style.hidden)]
    for i in range(blocks):
        name = f"block{i}"
        plans += [
            _norm(f"{name}.norm0", style),
            _linear(f"{name}.positions.up", mixing, positions),
            _linear(f"{name}.positions.down", positions, mixing),
            _norm(f"{name}.norm1", style),
            _linear(f"{name}.channels.up", style.inner, style.hidden),
            _linear(f"{name}.channels.down", style.hidden, style.inner),
        ]
    return [*plans, _norm("norm", style), _head(draw, style.hidden)]


def recurrent(draw: Draw) -> list[LayerPlan]:
    """A stack of LSTM (four gates) or GRU (three) layers over tokens or over frames."""
    gates, hidden = draw.pick((3, 4)), draw.size(64, 2048, 16)
    directions = ("forward", "backward") if draw.chance(0.5) else ("forward",)
    norm, projection = draw.chance(0.4), draw.chance(0.3)
    width = draw.size(32, 1024, 8)
    plans = (
        [LayerPlan("embedding", "Embedding", (draw.size(1000, 260_000), width))]
        if draw.chance(0.6)
        else [_linear("frames", width, draw.size(13, 512))]
    )
    per_layer = 2 * len(directions) + norm + projection
    for i in range(_blocks(draw, per_layer, 2, (15, 90))):
        for direction in directions:
            name = f"layer{i}.{direction}"
            plans.append(_linear(f"{name}.input", gates * hidden, width))
            plans.append(_linear(f"{name}.recurrent", gates * hidden, hidden))
        width = hidden * len(directions)
        if projection:
            plans.append(_linear(f"layer{i}.projection", hidden, width))
            width = hidden
        if norm:
            plans.append(LayerPlan(f"layer{i}.norm", "LayerNorm", (2, width)))
    return [*plans, LayerPlan("head", "Classifier", (draw.size(2, 260_000), width))]


def _convolutions(name: str, kind: str, into: int, out: int, kernel: int, norm: bool, spread: float) -> list[LayerPlan]:
    """One block of a convolutional network, the shortcut included where the number of channels changes."""
    middle = round_to(out * spread, 4)
    plans = {
        "plain": [_conv(f"{name}.conv", out, into, kernel)],
        "residual": [_conv(f"{name}.conv1", out, into, kernel), _conv(f"{name}.conv2", out, out, kernel)],
        "bottleneck": [
            _conv(f"{name}.reduce", middle, into, 1),
            _conv(f"{name}.conv", middle, middle, kernel),
            _conv(f"{name}.expand", out, middle, 1),
        ],
        "separable": [_conv(f"{name}.depthwise", into, into, kernel, into), _conv(f"{name}.pointwise", out, into, 1)],
    }[kind]
    if kind in ("residual", "bottleneck") and into != out:
        plans.append(_conv(f"{name}.shortcut", out, into, 1))
    if norm:
        plans = [p for conv in plans for p in (conv, LayerPlan(f"{conv.name}.norm", "LayerNorm", (2, conv.shape[0])))]
    return plans


def _stages(draw: Draw, kind: str, aim: tuple[int, int]) -> tuple[list[LayerPlan], int]:
    """Stem and stages, and the channels that leave them. Depth is split over the stages by drawn shares."""
    norm, kernel = draw.chance(0.5), draw.pick((3, 3, 3, 5))
    stages = draw.whole(3, 6)
    channels = draw.size(8, 192, 8)
    spread = draw.uniform(0.2, 0.6)
    growth = draw.scale(1.2, 2.4)
    plans = [_conv("stem", channels, draw.pick((1, 3, 3, 3, 4, 12)), draw.pick((3, 3, 4, 5, 7, 9)))]
    if norm:
        plans.append(LayerPlan("stem.norm", "LayerNorm", (2, channels)))
    per_block = len(_convolutions("", kind, 8, 8, kernel, norm, spread))
    blocks = max(_blocks(draw, per_block, 4 + stages, aim), stages)
    shares = [draw.scale(0.5, 3.0) for _ in range(stages)]
    whole = math.fsum(shares)
    for stage, share in enumerate(shares):
        out = min(round_to(channels * growth, 8), MOST_CHANNELS) if stage or draw.chance(0.5) else channels
        for i in range(max(round(blocks * share / whole), 1)):
            plans += _convolutions(f"stage{stage}.block{i}", kind, channels, out, kernel, norm, spread)
            channels = out
    return plans, channels


def cnn(draw: Draw) -> list[LayerPlan]:
    """Plain (VGG), residual, bottleneck or depthwise-separable convolutions, then one to three Linear layers."""
    kind = draw.pick(("plain", "residual", "bottleneck", "separable"))
    plans, width = _stages(draw, kind, AIM)
    for i in range(draw.pick((0, 0, 1, 2))):
        inner = draw.size(64, 4096, 16)
        plans.append(_linear(f"dense{i}", inner, width))
        width = inner
    return [*plans, _head(draw, width)]


def unet(draw: Draw) -> list[LayerPlan]:
    """A convolutional encoder and decoder of some levels, each level of the decoder fed by its opposite too."""
    norm, kernel = draw.chance(0.6), draw.pick((3, 3, 5))
    levels, growth = draw.whole(2, 5), draw.scale(1.3, 2.2)
    channels = [draw.size(8, 320, 8)]
    for _ in range(levels):
        channels.append(min(round_to(channels[-1] * growth, 8), MOST_CHANNELS))
    lowest_attention = draw.chance(0.4)
    kind = draw.pick(("plain", "residual"))
    per_block = len(_convolutions("", kind, 8, 8, kernel, norm, 1.0))
    blocks = _blocks(draw, per_block * (2 * levels + 1), levels + 4)

    def level(name: str, into: int, out: int) -> list[LayerPlan]:
        sizes = [into] + [out] * blocks
        return [
            p
            for i in range(blocks)
            for p in _convolutions(f"{name}.block{i}", kind, sizes[i], sizes[i + 1], kernel, norm, 1.0)
        ]

    plans = [_conv("stem", channels[0], draw.pick((1, 3, 3, 4)), kernel)]
    for i in range(levels):
        plans += level(f"down{i}", channels[max(i - 1, 0)], channels[i])
    plans += level("middle", channels[levels - 1], channels[levels])
    if lowest_attention:
        deep = channels[levels]
        plans.append(LayerPlan("middle.attention.qkv", "Attention", (3 * deep, deep)))
        plans.append(LayerPlan("middle.attention.o", "Attention", (deep, deep)))
    for i in reversed(range(levels)):
        plans.append(_conv(f"up{i}.resize", channels[i], channels[i + 1], draw.pick((2, 3))))
        plans += level(f"up{i}", 2 * channels[i], channels[i])
    return [*plans, _conv("head", draw.size(1, 150), channels[0], 1)]


LAYOUTS: dict[str, Callable[[Draw], list[LayerPlan]]] = {
    "cnn": cnn,
    "encoder_decoder": encoder_decoder,
    "mixture_of_experts": mixture_of_experts,
    "mlp_mixer": mlp_mixer,
    "recurrent": recurrent,
    "transformer": transformer,
    "unet": unet,
}
