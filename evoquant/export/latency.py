"""Latency of each layer at each width, through the kernels of the target that will run it, as a cost table.

Each layer is exported by itself, as it stands in the network, and called with what the network puts into it. Layers
that differ in their values alone are measured once. All widths take turns, and between two calls as much memory is
read as the network has, so that no layer finds its weights in a cache that would not hold them. Then whole networks are
exported and timed: what they take beyond the sum of their layers, the median of them, is what no width applies to, and
how far each is from that sum then is how far latency is from being additive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, PrecisionError
from evoquant.export.recipe import Recipe, build_recipe, promise_of
from evoquant.export.runners import require_runner, runner
from evoquant.export.timing import CLOCKS, Timing, evicting, interleaved, timing_of
from evoquant.profiles.targets import TARGETS
from evoquant.rng import generator_for
from evoquant.scoring.cost_file import WIDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.export.runners import Feeds, Runner
    from evoquant.models.deployable import Deployable, Graph
    from evoquant.models.onnx_parts import Part
    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu

BYTES_AT_ONCE = 2**31
"""Of models that are held ready together; what is beyond it is measured in turns of its own."""
_COPIES = 3  # that a runtime and its file hold of a weight
Widths = tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How latency is measured.

    Attributes:
        target: a key of `evoquant.export.runners.RUNNERS`.
        threads: that compute.
        batch: samples of a call.
        rounds: in which every model has its turn.
        quantile: of the rounds that counts; 0.5 is the median.
        wholes: networks of random widths that are timed, beside those of one width.
        seed: of these widths.
        clock: `cpu` or `wall`, see `evoquant.export.timing.CLOCKS`; None takes cpu for one thread, else wall.
    """

    target: str
    threads: int = 1
    batch: int = 1
    rounds: int = 15
    quantile: float = 0.5
    wholes: int = 3
    seed: int = 0
    clock: str | None = None

    @property
    def timed_by(self) -> str:
        """The clock."""
        return self.clock or ("cpu" if self.threads == 1 else "wall")


@dataclass(frozen=True)
class Recipes:
    """Makes recipes of one network; each layer is quantized once at each width.

    Attributes:
        profile: of the network.
        ready: the network.
        digest: of it.
    """

    profile: ModelProfile
    ready: Deployable
    digest: str
    _made: dict[tuple[str, str], Recipe] = field(default_factory=dict)

    def of(self, layer: LayerProfile, width: str) -> Recipe:
        """Of one layer.

        Raises:
            PrecisionError: it cannot be held at that width.
        """
        key = (layer.name, width)
        if key not in self._made:
            alone = replace(self.profile, layers=(replace(layer, tie_group=None),))
            self._made[key] = build_recipe(alone, [width], self.ready.weight, self.digest, {}, {})
        return self._made[key]

    def whole(self, widths: Sequence[str]) -> Recipe:
        """Of all layers."""
        parts = [self.of(layer, width) for layer, width in zip(self.profile.layers, widths, strict=True)]
        layers = tuple(part.layers[0] for part in parts)
        tensors = {name: array for part in parts for name, array in part.tensors.items()}
        bits = self.profile.constant_bits
        return Recipe(self.profile.name, self.digest, bits, promise_of(layers, bits, {}), layers, tensors, {})


@dataclass(frozen=True)
class Cell:
    """A layer at a width: its time, and the kernels that took it."""

    timing: Timing
    kernels: str


@dataclass(frozen=True)
class Whole:
    """A whole network.

    Attributes:
        widths: of its layers.
        timing: of a call.
        predicted: the sum of its parts, in nanoseconds.
    """

    widths: Widths
    timing: Timing
    predicted: float

    @property
    def error(self) -> float:
        """Measured over predicted, less 1."""
        return self.timing.value / self.predicted - 1 if self.predicted else math.nan


@dataclass(frozen=True)
class Latency:
    """What was measured.

    Attributes:
        profile: of the network.
        settings: how.
        cells: layer → width → cell; a layer that nothing reads has none.
        constant: nanoseconds that no width applies to.
        overhead: nanoseconds of a call that computes next to nothing, taken off every cell.
        overlap: nanoseconds that layers measured by themselves have in common, taken off them.
        wholes: the first is FP32 throughout.
        distinct: cells that were really measured.
    """

    profile: ModelProfile
    settings: Settings
    cells: Mapping[str, Mapping[str, Cell]]
    constant: float
    overhead: float
    overlap: float
    wholes: tuple[Whole, ...]
    distinct: int

    def value(self, layer: str, width: str) -> float:
        """Nanoseconds of a layer at a width, what layers have in common taken off."""
        own = self.cells.get(layer)
        if own is None:
            return 0.0
        least = {name: min(cell.timing.value for cell in row.values()) for name, row in self.cells.items()}
        share = least[layer] / max(sum(least.values()), 1e-9)
        return max(own[width].timing.value - min(self.overlap * share, least[layer]), 0.0)

    @property
    def noise(self) -> float:
        """Nanoseconds: the median of the whole networks' interquartile ranges."""
        return float(np.median([whole.timing.spread for whole in self.wholes]))

    @property
    def span(self) -> float:
        """Nanoseconds between the fastest and the slowest of the whole networks."""
        return float(np.ptp([whole.timing.value for whole in self.wholes]))


def measure_latency(ready: Deployable, profile: ModelProfile, menu: Menu, digest: str, settings: Settings) -> Latency:
    """Measure every layer of a network at every width that the target takes, then whole networks.

    Args:
        ready: the network.
        profile: of it.
        menu: the widths; FP32 is measured besides.
        digest: of the network.
        settings: how.

    Raises:
        InputError: the target's latency is not measured here, the network cannot be exported, or a layer stands in a
            branch or a loop.
        MissingExtraError: packages are missing.
    """
    require_runner(settings.target)
    from evoquant.models.onnx_parts import parts_of

    names = list(dict.fromkeys((*menu.names, WIDEST)))
    recipes = Recipes(profile, ready, digest)
    feeds = first_feeds(ready, settings.batch)
    parts = parts_of(ready.graph(), feeds, profile.name)
    possible = {layer.name: possible_widths(layer, names, recipes, settings.target) for layer in profile.layers}
    cells, overhead, distinct = _cells(recipes, parts, possible, settings)
    allocations = _allocations(profile, names, possible, settings)
    timings = [timing_of(row, settings.quantile) for row in time_wholes(recipes, allocations, feeds, settings)[0]]
    bare = Latency(profile, settings, cells, 0.0, overhead, 0.0, (), distinct)
    sums = [predicted(bare, widths) for widths in allocations]
    rest = float(np.median([timing.value - one for timing, one in zip(timings, sums, strict=True)]))
    shared = min(max(-rest, 0.0), sum(min(c.timing.value for c in row.values()) for row in cells.values()))
    bare = replace(bare, constant=max(rest, 0.0), overlap=shared)
    wholes = tuple(
        Whole(widths, timing, predicted(bare, widths)) for widths, timing in zip(allocations, timings, strict=True)
    )
    return replace(bare, wholes=wholes)


def predicted(latency: Latency, widths: Sequence[str]) -> float:
    """Nanoseconds of a network: the sum of its parts."""
    layers = latency.profile.layers
    parts = (latency.value(layer.name, width) for layer, width in zip(layers, widths, strict=True))
    return latency.constant + sum(parts)


def first_feeds(ready: Deployable, batch: int) -> Feeds:
    """The first samples; as many as a graph takes that fixes their number."""
    try:
        return ready.feeds("calibration", 0, batch)
    except InputError:
        return ready.feeds("calibration", 0, ready.batch)


def possible_widths(layer: LayerProfile, names: Sequence[str], recipes: Recipes, target: str) -> list[str]:
    """Widths that the layer fits, the target takes, and that hold its weights."""
    from evoquant.quantization.precision import Precision

    found = []
    for name in names:
        precision = Precision.parse(name)
        if not layer.allows(precision) and name != WIDEST:
            continue
        if TARGETS[target].fault(layer, precision) is not None:
            continue
        try:
            recipes.of(layer, name)
        except PrecisionError:
            continue
        found.append(name)
    if WIDEST not in found:
        raise InputError(f"layer {layer.name!r}: {target} does not take it in FP32, from which all is counted.")
    return found


def _cells(
    recipes: Recipes, parts: Mapping[str, Part], possible: Mapping[str, Sequence[str]], settings: Settings
) -> tuple[dict[str, dict[str, Cell]], float, int]:
    """Layer → width → cell, what a call costs that does nothing, and how many cells were distinct."""
    layers = {layer.name: layer for layer in recipes.profile.layers}
    jobs: dict[tuple[str, str], tuple[LayerProfile, Part]] = {}
    for name, part in parts.items():
        for width in possible[name]:
            jobs.setdefault((part.key, width), (layers[name], part))
    idle, between = _idle(settings), evicting(4 * recipes.profile.parameters)
    found: dict[tuple[str, str], Cell] = {}
    overheads = []
    for chunk in _chunks(list(jobs), lambda job: 4 * _COPIES * jobs[job][0].parameters):
        runners = [idle]
        for key, width in chunk:
            layer, part = jobs[key, width]
            made = runner(settings.target, recipes.of(layer, width), _copied(part.graph), part.feeds, settings.threads)
            runners.append(made)
        clock = CLOCKS[settings.timed_by]
        times = interleaved([one.call for one in runners], settings.rounds, clock, between)
        overhead = timing_of(times[0], settings.quantile).value
        overheads.append(overhead)
        for job, made, row in zip(chunk, runners[1:], times[1:], strict=True):
            timing = timing_of(row, settings.quantile)
            found[job] = Cell(Timing(max(timing.value - overhead, 0.0), timing.spread), made.kernels)
    rows = {name: {width: found[part.key, width] for width in possible[name]} for name, part in parts.items()}
    return rows, float(np.median(overheads)), len(found)


def _chunks(jobs: Sequence[Any], size: Callable[[Any], int]) -> list[list[Any]]:
    """Jobs in order, as many together as fit."""
    found: list[list[Any]] = []
    held = 0
    for job in jobs:
        own = size(job)
        if not found or held + own > BYTES_AT_ONCE:
            found.append([])
            held = 0
        found[-1].append(job)
        held += own
    return found


def _copied(graph: Graph) -> Graph:
    proto = type(graph.opened.proto)()
    proto.CopyFrom(graph.opened.proto)
    return replace(graph, opened=replace(graph.opened, proto=proto))


def _idle(settings: Settings) -> Runner:
    """A network that adds two numbers: what is left of its call is the call."""
    from evoquant.models.onnx_parts import adding

    graph, profile = adding()
    weight = np.ones(1, dtype=np.float32)
    recipe = build_recipe(profile, [WIDEST], lambda _: weight, "", {}, {})
    return runner(settings.target, recipe, graph, {"x": weight}, settings.threads)


def _allocations(
    profile: ModelProfile, names: Sequence[str], possible: Mapping[str, Sequence[str]], settings: Settings
) -> list[Widths]:
    """FP32; the other widths each throughout, FP32 where a layer cannot have them; and random ones."""
    uniform = [
        tuple(name if name in possible[layer.name] else WIDEST for layer in profile.layers)
        for name in (WIDEST, *(name for name in names if name != WIDEST))
    ]
    rng = generator_for(settings.seed, 0, "latency allocations")
    drawn = [
        tuple(possible[layer.name][int(rng.integers(len(possible[layer.name])))] for layer in profile.layers)
        for _ in range(settings.wholes)
    ]
    return list(dict.fromkeys((*uniform, *drawn)))


def time_wholes(
    recipes: Recipes, allocations: Sequence[Widths], feeds: Feeds, settings: Settings
) -> tuple[NDArray[np.float64], list[int]]:
    """`(allocations, rounds)` nanoseconds of a call of the whole network at these widths; and bytes of their files.

    As many as memory allows take turns.
    """
    size = 4 * _COPIES * recipes.profile.parameters
    rows, stored = [], []
    for chunk in _chunks(list(allocations), lambda _: size):
        made = [
            runner(settings.target, recipes.whole(widths), recipes.ready.graph(), feeds, settings.threads)
            for widths in chunk
        ]
        stored += [one.stored for one in made]
        rows.append(interleaved([one.call for one in made], settings.rounds, CLOCKS[settings.timed_by]))
    return np.concatenate(rows), stored
