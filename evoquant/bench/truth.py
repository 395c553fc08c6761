"""Measure every allocation of a chain, depth first, so that each prefix of widths is computed once.

The state after each stage is kept while the stages behind it run through their widths: of n units with P widths stage
k runs P^k times instead of P^n, and the last one, a small linear layer, once for all its widths together.
Imported only once PyTorch is known to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evoquant.bench.networks import Stage
from evoquant.quantization.numerics import fake_quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from evoquant.quantization.precision import Menu


@dataclass(frozen=True, eq=False)
class Truth:
    """What was measured; rows in the order of the allocations, the first unit's width changing slowest.

    Attributes:
        right: `(allocations, splits)` samples classified correctly.
        both: `(allocations,)` samples of the first split that the FP32 network gets right too.
        divergence: `(allocations,)` mean KL(FP32 ‖ quantized) on the first split, in nats.
        reference: `(splits,)` samples that the FP32 network gets right.
    """

    right: NDArray[np.uint16]
    both: NDArray[np.uint16]
    divergence: NDArray[np.float32]
    reference: NDArray[np.uint16]


def quantized_weights(stage: Stage, menu: Menu) -> list[torch.Tensor]:
    """The stage's weight at each width; a norm's is one slice, any other's has its output channels first."""
    weight = stage.layer.weight.detach().numpy()
    axis = None if weight.ndim == 1 else 0
    return [torch.from_numpy(fake_quantize(weight, precision, axis)) for precision in menu]


def measure_all(
    chain: nn.Sequential, menu: Menu, inputs: NDArray[np.float32], labels: NDArray[np.int64], splits: Sequence[slice]
) -> Truth:
    """Run all P^n allocations; call it within `one_thread`.

    Args:
        chain: the FP32 network.
        menu: the P widths.
        inputs: `(samples, …)` of all splits.
        labels: `(samples,)`.
        splits: where each split lies in the samples; the first also gets divergences.
    """
    with torch.inference_mode():
        return _Walk(chain, menu, torch.from_numpy(inputs), torch.from_numpy(labels), splits).run()


class _Walk:
    """Samples lie last in the logits, `(widths, classes, samples)`: reductions over classes are fast that way."""

    def __init__(
        self, chain: nn.Sequential, menu: Menu, inputs: torch.Tensor, labels: torch.Tensor, splits: Sequence[slice]
    ) -> None:
        self._stages = [stage for stage in chain.children() if isinstance(stage, Stage)]
        self._weights = [quantized_weights(stage, menu) for stage in self._stages]
        self._inputs = inputs
        bias = self._stages[-1].layer.bias
        assert bias is not None
        self._head = torch.stack(self._weights[-1])
        self._bias = bias.repeat(len(menu))[:, None]
        logits = chain(inputs)
        right = logits.argmax(dim=1) == labels
        self._labels = labels.expand(len(menu), 1, -1).contiguous()
        self._first = splits[0]
        self._probabilities = logits[self._first].softmax(dim=1)
        inner = (self._probabilities * logits[self._first].log_softmax(dim=1)).sum(dim=1)
        self._entropy = -float(inner.mean())
        # a column for each split, and one for the samples of the first that the FP32 network gets right
        self._counted = torch.zeros(len(labels), len(splits) + 1)
        for column, split in enumerate(splits):
            self._counted[split, column] = 1.0
        self._counted[self._first, -1] = right[self._first].float()
        rows = len(menu) ** len(self._stages)
        self._truth = Truth(
            np.empty((rows, len(splits)), dtype=np.uint16),
            np.empty(rows, dtype=np.uint16),
            np.empty(rows, dtype=np.float32),
            np.array([int(right[split].sum()) for split in splits], dtype=np.uint16),
        )

    def run(self) -> Truth:
        self._descend(0, self._inputs, 0)
        return self._truth

    def _descend(self, depth: int, state: Any, prefix: int) -> None:
        """All widths of the stages from `depth` on, behind one prefix; `prefix` counts these."""
        if depth == len(self._stages) - 1:
            self._finish(state, prefix)
            return
        stage = self._stages[depth]
        before = stage.layer.weight.data
        for width, weight in enumerate(self._weights[depth]):
            stage.layer.weight.data = weight
            self._descend(depth + 1, stage(state), prefix * len(self._weights[depth]) + width)
        stage.layer.weight.data = before

    def _finish(self, state: torch.Tensor, prefix: int) -> None:
        """The last stage at all its widths at once."""
        widths, classes, features = self._head.shape
        flat = torch.addmm(self._bias, self._head.reshape(-1, features), state.T)
        logits = flat.reshape(widths, classes, len(state))
        largest = logits.amax(dim=1)
        right = (logits.gather(1, self._labels)[:, 0] >= largest).float()
        rows = slice(prefix * widths, (prefix + 1) * widths)
        counts = (right @ self._counted).numpy().astype(np.uint16)
        self._truth.right[rows], self._truth.both[rows] = counts[:, :-1], counts[:, -1]
        # KL(p ‖ q) = −H(p) − Σ p · logits + ln Σ exp(logits); the middle term is linear in the head's weights
        crossed = self._probabilities.T @ state[self._first] / len(self._probabilities)
        biases = self._bias.reshape(widths, classes) * self._probabilities.mean(dim=0)
        inner = (self._head * crossed).sum(dim=(1, 2)) + biases.sum(dim=1)
        top = largest[:, None, self._first]
        logsumexp = (logits[:, :, self._first] - top).exp_().sum(dim=1).log_() + top[:, 0]
        self._truth.divergence[rows] = (logsumexp.mean(dim=1) - inner - self._entropy).clamp(min=0.0).numpy()
