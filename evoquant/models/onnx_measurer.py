"""Measure a quantized ONNX network with onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.models.base import REFERENCE, Failed, Measure, Outcome, Request
from evoquant.models.kept import Bounded
from evoquant.models.onnx_data import TARGETS, Samples
from evoquant.models.onnx_network import Network
from evoquant.models.onnx_outcomes import outcomes
from evoquant.models.onnx_session import require_onnx
from evoquant.models.own_rounding import require_same_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.onnx_outcomes import Scoring

REFERENCE_CACHE_BYTES = 256 * 2**20


def start_measurer(payload: dict[str, Any]) -> Measure:
    """Open the network, once per worker; the function that comes back answers requests.

    Raises:
        InputError: onnxruntime cannot run the model.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    require_onnx("measuring an ONNX network")
    require_same_code(payload.get("rounder"))
    from evoquant.models.onnx_layers import OnnxLayer

    network = Network(
        payload["model"],
        [OnnxLayer(**layer) for layer in payload["layers"]],
        payload["weights"],
        inputs=payload["inputs"],
        outputs=payload["outputs"],
        fixed=payload["fixed"],
        source=payload["source"],
        rounder=payload.get("rounder"),
        quantized_cache=payload["quantized_cache"],
    )
    data = {split: Samples(**samples) for split, samples in payload["data"].items()}
    return OnnxMeasurer(network, data, payload["scoring"], payload["block"], payload["batch"], payload["mask"])


class OnnxMeasurer:
    """Answers requests; keeps the FP32 network's outputs of as many batches as fit `REFERENCE_CACHE_BYTES`.

    Args:
        network: what runs.
        data: split → samples.
        scoring: what outputs mean.
        block: samples per block.
        batch: samples per forward pass; a batch never crosses a block.
        mask: name of the array that says which positions of a sequence count, None where all do.
    """

    def __init__(
        self,
        network: Network,
        data: dict[str, Samples],
        scoring: Scoring,
        block: int,
        batch: int,
        mask: str | None,
    ) -> None:
        self.network = network
        self._data = data
        self._scoring = scoring
        self._block = block
        self._batch = batch
        self._mask = mask
        self._references: Bounded[NDArray[np.generic]] = Bounded(REFERENCE_CACHE_BYTES)

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """Outcomes of the requests, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Outcome | Failed:
        try:
            return self._outcomes(request)
        except Exception as error:  # whatever a network may raise is this candidate's failure, not the campaign's
            return Failed(f"raised:{type(error).__name__}", str(error))

    def _outcomes(self, request: Request) -> Outcome | Failed:
        samples, first, last = self._place(request)
        starts = range(first, last, self._batch)
        batches = [
            (samples.part(start, min(start + self._batch, last)), min(self._batch, last - start)) for start in starts
        ]
        found = []
        outputs = self.network.run_all(request.widths, batches, samples.shared)
        for start, (part, count), output in zip(starts, batches, outputs, strict=True):
            if not np.isfinite(output[self._scoring.output]).all():
                return Failed("not_finite", f"an output of {request.split} block {request.block} is not finite.")

            def reference(part: Arrays = part, count: int = count) -> NDArray[np.generic]:
                plain = self.network.run((REFERENCE,) * len(request.widths), part, samples.shared, count)
                made: NDArray[np.generic] = plain[self._scoring.output]
                return made

            whole = self._references.get((request.split, start), reference, lambda x: x.nbytes)
            mask = None if self._mask is None else part[self._mask]
            found.append(outcomes(self._scoring, output, whole, part.get(TARGETS), mask))
        outcome: Outcome = np.concatenate(found)
        if not np.isfinite(outcome).all():
            return Failed("not_finite", f"a score of {request.split} block {request.block} is not finite.")
        return outcome

    def _place(self, request: Request) -> tuple[Samples, int, int]:
        """The split's samples, and the first and past the last of the block."""
        if request.split not in self._data:
            raise InputError(f"unknown split {request.split!r}; the task has {', '.join(self._data)}.")
        samples = self._data[request.split]
        first = request.block * self._block
        if not 0 <= first < samples.count:
            raise InputError(f"split {request.split!r} has no block {request.block}; it has {samples.count} samples.")
        return samples, first, min(first + self._block, samples.count)
