"""What a measured task is: a network with its data, cut into blocks that can be measured anywhere.

The unit of measured work is a `Request` (an allocation and a block of samples); its answer is the outcome of every
sample, or `Failed`. Retention, intervals and comparisons are computed above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.statistics import Metric

Split: TypeAlias = Literal["calibration", "selection", "gate", "test"]
"""calibration: the search's; selection: chooses the champion; gate: its second half, for the gate; test: reported."""

SPLITS: tuple[Split, ...] = ("calibration", "selection", "gate", "test")

Outcome: TypeAlias = NDArray[np.float32]
"""`(samples, 2)` float32: the score of each sample, and how far the output is from the FP32 network's, in nats.

The divergence is KL(FP32 ‖ quantized) of the predicted distributions (for sequences their mean), half the squared
difference over the variance of the targets for regression, and 1 − cosine for embeddings.
"""

SCORE, DIVERGENCE = 0, 1

REFERENCE = "FP32"
"""The width at which a layer is as it is; at `REFERENCE` everywhere the network is its own reference."""

SIGNALS = ("loss", "divergence", "fisher", "hessian", "gradient_sensitivity", "activation_range")
"""What a profile may be asked to measure; statistics and errors of the weights cost no pass and are always there."""


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a split, measured together.

    Attributes:
        split: one of `SPLITS`.
        index: counted from 0 within the split.
        digest: sha256 over the block's inputs and labels: equal blocks of different tasks share outcomes.
        samples: at least 1.
    """

    split: Split
    index: int
    digest: str
    samples: int


@dataclass(frozen=True)
class Request:
    """Measure one allocation on one block.

    Attributes:
        widths: one precision name per layer, in layer order.
        split: one of `SPLITS`.
        block: index of the block within the split.
    """

    widths: tuple[str, ...]
    split: Split
    block: int


@dataclass(frozen=True)
class Failed:
    """A request that gave no outcome.

    Attributes:
        reason: `raised:<exception class>` or `not_finite`; it is journalled, so it depends on the request alone.
        message: for people; it may name machines or paths and is never journalled.
    """

    reason: str
    message: str


Measure: TypeAlias = Callable[[Sequence[Request]], list[Outcome | Failed]]
"""Answers requests in their order."""


class MeasuredTask(Protocol):
    """A network and its data. Everything but `profile` is cheap once the task is loaded."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def metric(self) -> Metric:
        """What the scores of samples mean."""

    @property
    def model_digest(self) -> str:
        """sha256 over the architecture and the bytes of the weights."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that take a width, in order of execution."""

    @property
    def numeric_environment(self) -> str:
        """Whatever besides model, block and widths may change an outcome: versions, CPU features, batch size."""

    def payload(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """Plain data and bytes from which a worker rebuilds network and data; `runtime` says with what: `RUNTIMES`.

        `elsewhere`: for workers that may be where no data is, and of which many on a node read the same arrays.
        """

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """The blocks of a split, in order; together they are the split."""

    def slices(self, split: Split) -> tuple[str, ...] | None:
        """The name of each sample's slice (its class, its source), where the task has slices."""

    def profile(self, menu: Menu, measure: Measure, signals: Sequence[str]) -> ModelProfile:
        """The network's profile for `menu` with these of `SIGNALS`; its `passes` say what each has cost.

        `measure` runs the forward passes of quantized networks.
        """
