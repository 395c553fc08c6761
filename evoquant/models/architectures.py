"""The example tasks' networks beyond a plain chain of modules. Imported only once PyTorch is known to be there.

Linear layers are applied to `(rows, features)`: exported to ONNX each is then one Gemm that keeps the weight's name.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class Attention(nn.Module):
    """Multi-head self-attention with separate projections (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.causal = causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, rows: torch.Tensor, length: int) -> torch.Tensor:
        """`(samples · length, width)` → the same shape."""
        each = self.width // self.heads

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.reshape(-1, length, self.heads, each).transpose(1, 2)

        query, key, value = heads(self.query(rows)), heads(self.key(rows)), heads(self.value(rows))
        scores = query @ key.transpose(2, 3) * (1 / math.sqrt(each))
        if self.causal:
            scores = scores + torch.full((length, length), -1e9).triu(1)
        mixed = scores.softmax(dim=-1) @ value
        output: torch.Tensor = self.output(mixed.transpose(1, 2).reshape(-1, self.width))
        return output


class Block(nn.Module):
    """A transformer block with its norms first (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, rows: torch.Tensor, length: int) -> torch.Tensor:
        """`(samples · length, width)` → the same shape."""
        rows = rows + self.attention(self.norm1(rows), length)
        more: torch.Tensor = self.contract(torch.relu(self.expand(self.norm2(rows))))
        return rows + more


class VisionTransformer(nn.Module):
    """Square patches, learned positions, transformer blocks, the mean over patches (after Dosovitskiy et al. 2021).

    Sizes: `inputs` channels of `side` × `side` pixels, `patch`, `width`, `heads`, `hidden`, `depth`, `classes`.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.width = width = sizes["width"]
        self.length = (sizes["side"] // sizes["patch"]) ** 2
        self.patches = nn.Conv2d(sizes["inputs"], width, sizes["patch"], stride=sizes["patch"])
        self.positions = nn.Embedding(self.length, width)
        self.blocks = nn.ModuleList(
            Block(width, sizes["heads"], sizes["hidden"], causal=False) for _ in range(sizes["depth"])
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, sizes["classes"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(samples, inputs, side, side)` → logits `(samples, classes)`."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions(torch.arange(self.length))
        rows = tokens.reshape(-1, self.width)
        for block in self.blocks:
            rows = block(rows, self.length)
        logits: torch.Tensor = self.classifier(self.norm(rows).reshape(-1, self.length, self.width).mean(dim=1))
        return logits


class LanguageModel(nn.Module):
    """A causal transformer over characters; its output layer is the embedding, transposed (Press and Wolf 2017).

    Sizes: `vocabulary`, `length` of the context, `width`, `heads`, `hidden`, `depth`.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.width = width = sizes["width"]
        self.length = sizes["length"]
        self.characters = nn.Embedding(sizes["vocabulary"], width)
        self.positions = nn.Embedding(self.length, width)
        self.blocks = nn.ModuleList(
            Block(width, sizes["heads"], sizes["hidden"], causal=True) for _ in range(sizes["depth"])
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """`(samples, length)` int64 → logits of the next character `(samples, length, vocabulary)`."""
        tokens = self.characters(characters) + self.positions(torch.arange(self.length))
        rows = tokens.reshape(-1, self.width)
        for block in self.blocks:
            rows = block(rows, self.length)
        logits = nn.functional.linear(self.norm(rows), self.characters.weight)
        return logits.reshape(-1, self.length, self.characters.num_embeddings)


def cnn(sizes: Mapping[str, Any]) -> nn.Module:
    """3×3 convolutions with batch normalisation, the mean over pixels, then two linear layers.

    Sizes: `inputs` channels, `channels` and `strides` of the convolutions, `hidden`, `classes`.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    before = sizes["inputs"]
    for number, (channels, stride) in enumerate(zip(sizes["channels"], sizes["strides"], strict=True), start=1):
        parts[f"conv{number}"] = nn.Conv2d(before, channels, 3, stride=stride, padding=1, bias=False)
        parts[f"norm{number}"] = nn.BatchNorm2d(channels)
        parts[f"relu{number}"] = nn.ReLU()
        before = channels
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["hidden"] = nn.Linear(before, sizes["hidden"])
    parts["relu_hidden"] = nn.ReLU()
    parts["classifier"] = nn.Linear(sizes["hidden"], sizes["classes"])
    return nn.Sequential(parts)


def mlp(sizes: Mapping[str, Any]) -> nn.Module:
    """Linear layers with layer normalisation and ReLU between them, and one output.

    Sizes: `inputs` features, `hidden` features of each layer.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    before = sizes["inputs"]
    for number, features in enumerate(sizes["hidden"], start=1):
        parts[f"linear{number}"] = nn.Linear(before, features)
        parts[f"norm{number}"] = nn.LayerNorm(features)
        parts[f"relu{number}"] = nn.ReLU()
        before = features
    parts["output"] = nn.Linear(before, 1)
    return nn.Sequential(parts)
