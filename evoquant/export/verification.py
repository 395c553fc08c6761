"""What verifying a deployed model finds, and what is tolerated."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

BYTES_TOLERANCE, BYTES_SLACK = 0.01, 64
"""Of the promised bytes; and bytes of the few scalars that a format's own operators take."""
OUTPUT_TOLERANCE, OUTPUT_GOAL = 1e-4, 1e-5
"""Of the largest absolute output; for outputs in FP16 at least 4 of their steps."""
RETENTION_TOLERANCE = 1e-3
"""Against the measured network on the same samples.

Of scores of 0 and 1 at least one sample's: outputs that agree to the seventh digit still swap two classes that are
equal to the sixth."""


@dataclass(frozen=True)
class Bytes:
    """Sizes; those of tensors count weights, scales and other numbers, not shapes or the graph.

    Attributes:
        promised, stored: of the tensors.
        due: what the form takes for them, where that is not what was promised.
        most: that may be stored.
        on_disk, fp32_on_disk: of the files.
    """

    promised: float
    most: float
    due: float | None = None
    stored: int | None = None
    on_disk: int | None = None
    fp32_on_disk: int | None = None


@dataclass(frozen=True)
class Outputs:
    """Largest differences of outputs, over the largest absolute output, from the network as it is measured.

    Attributes:
        difference: at the recipe's widths; None where outputs are missing, not finite or of another shape.
        fp32_difference: of the FP32 model.
        tolerance: what `difference` is held against.
        within_goal: whether it is at most `OUTPUT_GOAL`.
        layer: the layer at fault, where there is one.
    """

    difference: float | None = None
    fp32_difference: float | None = None
    tolerance: float = OUTPUT_TOLERANCE
    within_goal: bool = False
    layer: str | None = None


@dataclass(frozen=True)
class Kept:
    """Retention.

    Attributes:
        promised, promised_interval, promised_samples: of the recipe, on the whole split; None where it says nothing.
        simulated: of the network as it is measured, on `samples`.
        actual: of the deployed model's outputs against the FP32 model's, on the same.
        actual_interval: of 95%, by resampling.
        samples: verified.
        tolerance: of `actual` against `simulated`.
    """

    promised: float | None = None
    promised_interval: tuple[float, float] | None = None
    promised_samples: int | None = None
    simulated: float | None = None
    actual: float | None = None
    actual_interval: tuple[float, float] | None = None
    samples: int = 0
    tolerance: float = RETENTION_TOLERANCE


@dataclass(frozen=True)
class Tokens:
    """What a language model continues the split's first sample with, each time with the most likely token.

    Attributes:
        prompt: tokens that were given.
        deployed: by the deployed model.
        measured: by the network as it is measured; once a token differs, so does what follows.
    """

    prompt: int
    deployed: tuple[int, ...]
    measured: tuple[int, ...]

    @property
    def alike(self) -> int:
        """Tokens before the first that differs."""
        pairs = zip(self.deployed, self.measured, strict=False)
        return next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), len(self.deployed))


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch in one thread: quartiles, the median in the middle.

    Attributes:
        deployed, fp32: of passes that took turns.
        ratio: of neighbouring passes, deployed over FP32; below 1 is faster.
        repeats: how many.
    """

    deployed: tuple[float, float, float]
    fp32: tuple[float, float, float]
    ratio: tuple[float, float, float]
    repeats: int


@dataclass(frozen=True)
class Verification:
    """What came of one recipe on one target; plain data.

    Attributes:
        model, target: what was verified.
        consumer, version: what ran it.
        loaded: whether it did.
        split, batch: of the samples.
        promised_bits, actual_bits: effective bits per weight of the layers.
        bytes, outputs, retention, latency: promised and actual; latency is None where nothing ran.
        tokens: of a language model; None of anything else.
        rounding: what rounds activations; None where that cannot be known.
        rounds: why what is rounded is tolerated; empty where it is not.
        defaults: what the consumer would round if it were left to itself; empty for nothing.
        notes: for people.
        faults: what does not hold; empty where all does.
    """

    model: str
    target: str
    consumer: str
    version: str
    loaded: bool
    split: str
    batch: int
    promised_bits: float
    actual_bits: float | None
    bytes: Bytes
    outputs: Outputs
    retention: Kept
    latency: Latency | None
    tokens: Tokens | None
    rounding: tuple[str, ...] | None
    rounds: str
    defaults: str
    notes: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with `passed`; what is not finite is None."""
        data: dict[str, Any] = _plain(asdict(self))
        if self.tokens is not None:
            data["tokens"]["alike"] = self.tokens.alike
        return {**data, "passed": self.passed}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
