"""An ONNX task, ready to be exported. Imported only once onnx is known to be there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from evoquant.errors import InputError
from evoquant.models.deployable import Graph, View
from evoquant.models.onnx_data import TARGETS
from evoquant.models.onnx_outcomes import outcomes
from evoquant.models.onnx_task import open_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import Outcome, Split
    from evoquant.models.onnx_measurer import Network
    from evoquant.models.onnx_task import OnnxTask


class OnnxDeployable:
    """See `Deployable`; the graph is the user's own."""

    def __init__(self, task: OnnxTask) -> None:
        self._task = task
        self._network: Network | None = None

    def weight(self, layer: str) -> NDArray[np.generic]:
        """As stored."""
        return self._task.opened.weights[layer]

    def graph(self) -> Graph:
        """A copy of the user's graph."""
        opened = replace(self._task.opened, proto=onnx.load_model_from_string(self._task.model))
        return Graph(opened, tuple(View(layer.name) for layer in opened.layers))

    def feeds(self, split: Split, start: int, stop: int) -> Arrays:
        """By the graph's own names of its inputs; shared inputs whole.

        Raises:
            InputError: the graph fixes another number of samples.
        """
        part = self._task.data[split].part(start, stop)
        if self._task.fixed is not None and stop - start != self._task.fixed:
            raise InputError(f"{self._task.source}: takes {self._task.fixed} samples at a time, not {stop - start}.")
        return {spec.name: np.ascontiguousarray(part[f"input{i}"]) for i, spec in enumerate(self._task.specs)}

    def count(self, split: Split) -> int:
        """Samples of a split; whole batches of them where the graph fixes its batch."""
        samples, fixed = self._task.data[split].count, self._task.fixed
        return samples if fixed is None else samples // fixed * fixed

    @property
    def batch(self) -> int:
        """Samples per forward pass."""
        return self._task.batch

    def outputs(self, split: Split, start: int, stop: int, widths: tuple[str, ...]) -> list[NDArray[np.generic]]:
        """By onnxruntime, with the weights as inputs."""
        if self._network is None:
            self._network = open_network(self._task)
        samples = self._task.data[split]
        return self._network.run(widths, samples.part(start, stop), samples.shared, stop - start)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs that are computed."""
        return self._task.outputs

    @property
    def scored(self) -> int:
        """Index of the scored output."""
        return self._task.scoring.output

    def outcome(
        self, split: Split, start: int, stop: int, outputs: list[NDArray[np.generic]], reference: NDArray[np.generic]
    ) -> Outcome:
        """Scores and divergences as the task's measurer makes them.

        Raises:
            InputError: outputs that are not finite.
        """
        part = self._task.data[split].part(start, stop)
        if not np.isfinite(outputs[self.scored]).all():
            raise InputError(f"{self._task.source}: an output of {split} is not finite once it is deployed.")
        mask = self._task.payload()["mask"]
        return outcomes(self._task.scoring, outputs, reference, part.get(TARGETS), None if mask is None else part[mask])
