"""The two tiny networks of the frozen tables: chains of stages, one weight that takes a width in each.

Imported only once PyTorch is known to be there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays

BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 0.003, 1e-3


class Stage(nn.Module):
    """One layer that takes a width, and whatever needs none: activation, pooling, residual sums, bare norms."""

    def __init__(self, layer: nn.Conv2d | nn.Linear | nn.LayerNorm) -> None:
        super().__init__()
        self.layer = layer


class Plain(Stage):
    """x → after(layer(x))."""

    def __init__(
        self, layer: nn.Conv2d | nn.Linear | nn.LayerNorm, after: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__(layer)
        self._after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The next stage's input."""
        return self._after(self.layer(x))


class Up(Stage):
    """x → (x, relu(layer(norm(x)))): the first half of a residual block, over features or across tokens."""

    def __init__(self, layer: nn.Linear, *, across: bool = False) -> None:
        super().__init__(layer)
        self._across = across

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream as it was, and the hidden features."""
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return x, torch.relu(self.layer(normal.transpose(1, 2) if self._across else normal))


class Down(Stage):
    """(x, h) → x + layer(h): the second half."""

    def __init__(self, layer: nn.Linear, *, across: bool = False) -> None:
        super().__init__(layer)
        self._across = across

    def forward(self, state: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The residual stream."""
        x, hidden = state
        added: torch.Tensor = self.layer(hidden)
        return x + (added.transpose(1, 2) if self._across else added)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.max_pool2d(torch.relu(x), 2)


def _gathered(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x).mean(dim=(2, 3))


def _tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def _mean_token(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=1)


def _digits_cnn() -> OrderedDict[str, nn.Module]:
    """Five convolutions and three linear layers, without norms, for `(n, 1, 8, 8)`."""
    return OrderedDict(
        conv1=Plain(nn.Conv2d(1, 12, 3, padding=1), torch.relu),
        conv2=Plain(nn.Conv2d(12, 12, 3, padding=1), _pooled),
        conv3=Plain(nn.Conv2d(12, 16, 3, padding=1), torch.relu),
        conv4=Plain(nn.Conv2d(16, 16, 3, padding=1), _pooled),
        conv5=Plain(nn.Conv2d(16, 40, 3, padding=1), _gathered),
        hidden1=Plain(nn.Linear(40, 48), torch.relu),
        hidden2=Plain(nn.Linear(48, 32), torch.relu),
        classifier=Plain(nn.Linear(32, 10), _same),
    )


def _fashion_mixer() -> OrderedDict[str, nn.Module]:
    """Patches, a token mixer, a channel mixer, a norm, one more residual block, for `(n, 1, 14, 14)`.

    After Tolstikhin et al., MLP-Mixer: an all-MLP architecture for vision, 2021.
    """
    return OrderedDict(
        patches=Plain(nn.Conv2d(1, 24, 4, stride=2), _tokens),
        token_up=Up(nn.Linear(36, 24), across=True),
        token_down=Down(nn.Linear(24, 36), across=True),
        channel_up=Up(nn.Linear(24, 40)),
        channel_down=Down(nn.Linear(40, 24)),
        norm=Plain(nn.LayerNorm(24), _mean_token),
        head_up=Up(nn.Linear(24, 48)),
        head_down=Down(nn.Linear(48, 24)),
        classifier=Plain(nn.Linear(24, 10), _same),
    )


NETWORKS: dict[str, Callable[[], OrderedDict[str, nn.Module]]] = {
    "digits-cnn": _digits_cnn,
    "fashion-mixer": _fashion_mixer,
}


def build_chain(name: str, weights: Mapping[str, NDArray[Any]] | None = None) -> nn.Sequential:
    """A network of `NETWORKS` in eval mode, without gradients; without `weights` its values mean nothing.

    Its children are stages; the last is a linear layer that gives logits.
    """
    with torch.device("meta"):  # PyTorch's own initial values would draw from its global generator
        chain = nn.Sequential(NETWORKS[name]())
    chain.to_empty(device="cpu")
    if weights is not None:
        chain.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in weights.items()})
    return chain.eval().requires_grad_(False)


def train_chain(name: str, inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int, epochs: int) -> Arrays:
    """The state of the network after Adam on cross entropy; call it within `one_thread`.

    Args:
        name: of `NETWORKS`.
        inputs: `(n, 1, side, side)`.
        labels: `(n,)` classes.
        seed: of initial weights (He's normal; ones for a norm, zeros for biases) and of the order of samples.
        epochs: passes over the data.
    """
    chain = build_chain(name)
    rng = generator_for(seed, 0, "initial weights")
    for stage in chain.children():
        assert isinstance(stage, Stage)
        shape = tuple(stage.layer.weight.shape)
        first = np.ones(shape, dtype=np.float32)
        if len(shape) > 1:
            first = rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        stage.layer.weight.data = torch.from_numpy(first)
        assert stage.layer.bias is not None
        stage.layer.bias.data.zero_()
    chain.train().requires_grad_(True)
    optimizer = torch.optim.Adam(chain.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        order = generator_for(seed, epoch, "training order").permutation(len(labels))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            optimizer.zero_grad()
            logits = chain(torch.from_numpy(inputs[chosen]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return {key: tensor.detach().numpy().copy() for key, tensor in chain.state_dict().items()}
