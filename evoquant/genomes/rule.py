"""Rules: protected layer types, edges, and a ladder of thresholds.

    protected types → their width, else edges → their width, else the first rung whose
    signal > threshold → its width, else the last width.

This is the form of the published heuristics. Populations are arrays, one column per gene.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import GenomeError, PrecisionError, describe_validation, suggestion
from evoquant.genomes.base import ALWAYS, Gene, Linkage, NumericOperators, sample_genes
from evoquant.genomes.rule_compiled import rule_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.quantization.precision import Menu
    from evoquant.scoring.problem import Problem

SMALLEST_THRESHOLD, LARGEST_THRESHOLD = 1e-5, 1.0
LARGEST_SIZE = 1e12
LARGEST_EDGE = 0.5
CHUNK = 4096  # genomes allocated at once, to bound the memory of the vectorised ladder


LAYER_TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")  # of the published rules


def default_signals(menu: Menu) -> list[str]:
    """What the published rules read: gradient sensitivity, and the loss at every width but FP32."""
    return ["gradient_sensitivity", *(f"loss:{p.name}" for p in menu if p.format != "FP32")]


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: where `signal` > `above`, the layer takes `width`."""

    signal: str
    above: float
    width: str


@dataclass(frozen=True)
class Rule:
    """A rule genome.

    Attributes:
        otherwise: the width of whatever nothing else decides.
        rungs: the ladder, first that holds decides.
        edges: fraction f: layers at a relative position < f or > 1 − f (strictly) take `edge_width`; 0 for none.
        edge_width: may be None where `edges` is 0.
        protected: layer types that take `protected_width`, before anything else.
        protected_width: may be None where nothing is protected.
    """

    otherwise: str
    rungs: tuple[Rung, ...] = ()
    edges: float = 0.0
    edge_width: str | None = None
    protected: frozenset[str] = frozenset()
    protected_width: str | None = None

    def __post_init__(self) -> None:
        if not self.protected:
            object.__setattr__(self, "protected_width", None)
        elif self.protected_width is None:
            raise GenomeError(f"rule: protects {', '.join(sorted(self.protected))} but names no width for them.")
        if not self.edges:
            object.__setattr__(self, "edge_width", None)
        elif self.edge_width is None:
            raise GenomeError(f"rule: has edges of {self.edges} but names no width for them.")

    @property
    def parts(self) -> int:
        """Protected types + rungs + 1 where it has edges."""
        return len(self.protected) + len(self.rungs) + (1 if self.edges else 0)

    @property
    def text(self) -> str:
        """One readable line."""
        pieces = []
        if self.protected:
            pieces.append(f"{', '.join(sorted(self.protected))} {self.protected_width}")
        if self.edges:
            pieces.append(f"edges {self.edges:g} {self.edge_width}")
        pieces += [f"{r.signal} > {r.above:g} {r.width}" for r in self.rungs]
        return "; ".join([*pieces, f"else {self.otherwise}" if pieces else f"all {self.otherwise}"])

    def allocate(self, problem: Problem) -> NDArray[np.int8]:
        """`(units,)` menu indices, each allowed.

        Raises:
            PrecisionError: the menu has no such width.
            ProfileError: the profile lacks a signal that the rule reads.
        """
        width = problem.menu.resolve
        allocation = np.full(len(problem.units), width(self.otherwise), dtype=np.int8)
        for rung in reversed(self.rungs):
            allocation[problem.signal(rung.signal) > rung.above] = width(rung.width)
        if self.edge_width is not None:
            at_edge = (problem.position < self.edges) | (problem.position > 1.0 - self.edges)
            allocation[at_edge] = width(self.edge_width)
        if self.protected_width is not None:
            allocation[np.isin(problem.types, sorted(self.protected))] = width(self.protected_width)
        return problem.repair_one(allocation)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `rule_from_dict` rebuilds the rule."""
        return {
            "kind": "rule",
            "protected": {"types": sorted(self.protected), "width": self.protected_width} if self.protected else None,
            "edges": {"fraction": self.edges, "width": self.edge_width} if self.edges else None,
            "rungs": [{"signal": r.signal, "above": r.above, "width": r.width} for r in self.rungs],
            "otherwise": self.otherwise,
        }


def rule_from_dict(data: Any, source: str) -> Rule:
    """Rebuild a rule from plain data.

    Raises:
        GenomeError: not a rule; the message begins with `source` and names the key.
    """
    from pydantic import ValidationError

    from evoquant.genomes.schema import RuleSchema

    try:
        checked = RuleSchema.model_validate(data)
    except ValidationError as error:
        raise GenomeError(describe_validation(error, source, RuleSchema.model_fields)) from None
    return checked.to_rule()


def changes(before: Rule, after: Rule) -> str:
    """What a child does differently from its parent, in one line: `edges 0.1 → 0.075`."""
    found = []
    for kind in sorted(after.protected - before.protected):
        found.append(f"+{kind} protected")
    for kind in sorted(before.protected - after.protected):
        found.append(f"{kind} unprotected")
    for name, label in (
        ("protected_width", "protected width"),
        ("edges", "edges"),
        ("edge_width", "edge width"),
        ("otherwise", "else"),
    ):
        old, new = getattr(before, name), getattr(after, name)
        if old != new and new is not None:
            found.append(f"{label} {new}" if old is None else f"{label} {old} → {new}")
    for rung in before.rungs:
        if rung not in after.rungs:
            found.append(f"−({rung.signal} > {rung.above:g} {rung.width})")
    for rung in after.rungs:
        if rung not in before.rungs:
            found.append(f"+({rung.signal} > {rung.above:g} {rung.width})")
    if not found and before.rungs != after.rungs:
        found.append("rungs reordered")
    return ", ".join(found) or "no change"


class RuleSpace(NumericOperators):
    """Rules over a menu, with given layer types, signals and at most so many rungs, as arrays."""

    kind = "rule"

    def __init__(self, menu: Menu, types: Sequence[str], signals: Sequence[str], rungs: int) -> None:
        self.menu = menu
        self.types = tuple(types)
        self.signals = tuple(signals)
        self.rungs = rungs if signals else 0
        widest = len(menu) - 1
        count = len(self.types)
        # Shares, losses and the prices of bits worth saving lie in [0, 1]; sizes and ranges have no such limit.
        bounded = all(name == "gradient_sensitivity" or name.startswith("loss") for name in self.signals)
        largest = LARGEST_THRESHOLD if bounded else LARGEST_SIZE
        genes = [Gene(f"protect {kind}", "flag", 0, 1, 0) for kind in self.types]
        genes.append(Gene("protected width", "width", 0, widest, 0))
        genes += [Gene("edges", "fraction", 0, LARGEST_EDGE, 1), Gene("edge width", "width", 0, widest, 1)]
        for rung in range(self.rungs):
            genes += [
                Gene(f"rung {rung} signal", "option", 0, len(self.signals), 2 + rung),
                Gene(f"rung {rung} above", "log", SMALLEST_THRESHOLD, largest, 2 + rung),
                Gene(f"rung {rung} width", "width", 0, widest, 2 + rung),
            ]
        genes.append(Gene("otherwise", "width", 0, widest, 2 + self.rungs))
        self.genes = tuple(genes)
        self._protected_width = count
        self._edges = count + 1
        self._rung = [count + 3 + 3 * k for k in range(self.rungs)]
        wakers = [ALWAYS] * len(genes)
        wakers[self._protected_width], wakers[self._edges + 1] = (0, count), (self._edges, self._edges + 1)
        for start in self._rung:
            wakers[start + 1] = wakers[start + 2] = (start, start + 1)
        counted = (*range(count), self._edges, *self._rung)
        self.linkage = Linkage(tuple(wakers), (count + 3, 3, self.rungs), counted)

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """`(n, genes)` random rules."""
        return sample_genes(self.genes, rng, n)

    def dormant(self, genes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n, genes)`: widths of nothing protected, of no edges, and thresholds of absent rungs."""
        mask = np.zeros(genes.shape, dtype=bool)
        mask[:, self._protected_width] = ~(genes[:, : len(self.types)] > 0).any(axis=1)
        mask[:, self._edges + 1] = genes[:, self._edges] == 0
        for start in self._rung:
            mask[:, start + 1 : start + 3] = (genes[:, start] == 0)[:, None]
        return mask

    def canonical(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n, genes)`: dormant genes at their lowest value, present rungs before absent ones."""
        lowest = np.array([gene.low for gene in self.genes])
        result = np.where(self.dormant(genes), lowest, genes)
        if self._rung:
            first = self._rung[0]
            ladder = result[:, first : first + 3 * self.rungs].reshape(len(genes), self.rungs, 3)
            order = np.argsort(ladder[:, :, 0] == 0, axis=1, kind="stable")
            ladder = np.take_along_axis(ladder, order[:, :, None], axis=1)
            result[:, first : first + 3 * self.rungs] = ladder.reshape(len(genes), 3 * self.rungs)
        return result

    def parts(self, genes: NDArray[np.float64]) -> NDArray[np.int64]:
        """`(n,)` protected types + rungs + 1 where there are edges."""
        total = (genes[:, : len(self.types)] > 0).sum(axis=1) + (genes[:, self._edges] > 0)
        for start in self._rung:
            total = total + (genes[:, start] > 0)
        return np.asarray(total, dtype=np.int64)

    def allocate(self, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
        """`(n, units)` menu indices, each allowed."""
        result = np.empty((len(genes), len(problem.units)), dtype=np.int8)
        signals = np.array([np.full(len(problem.units), -np.inf), *(problem.signal(name) for name in self.signals)])
        columns = np.array([self.types.index(t) if t in self.types else -1 for t in problem.types.tolist()])
        for start in range(0, len(genes), CHUNK):
            part = slice(start, start + CHUNK)
            result[part] = self._allocate_chunk(genes[part], problem, signals, columns)
        return problem.repair(result)

    def sums(self, genes: NDArray[np.float64], problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`(n,)` summed integer losses and costs, the constant part included; see `Fused`."""
        return rule_sums(self, self.types, self.signals, genes, problem)

    def _allocate_chunk(
        self,
        genes: NDArray[np.float64],
        problem: Problem,
        signals: NDArray[np.float64],
        type_columns: NDArray[np.intp],
    ) -> NDArray[np.int8]:
        units = len(problem.units)
        allocation = np.repeat(genes[:, -1:].astype(np.int8), units, axis=1)
        for start in reversed(self._rung):
            holds = signals[genes[:, start].astype(np.intp)] > genes[:, start + 1, None]
            np.copyto(allocation, genes[:, start + 2, None].astype(np.int8), where=holds)
        fraction = genes[:, self._edges, None]
        at_edge = (problem.position < fraction) | (problem.position > 1.0 - fraction)
        np.copyto(allocation, genes[:, self._edges + 1, None].astype(np.int8), where=at_edge & (fraction > 0))
        known = type_columns >= 0
        protected = np.zeros(allocation.shape, dtype=bool)
        protected[:, known] = genes[:, type_columns[known]] > 0
        np.copyto(allocation, genes[:, self._protected_width, None].astype(np.int8), where=protected)
        return allocation

    def encode(self, genome: Any) -> NDArray[np.float64]:
        """`(genes,)` row of a rule, dormant genes at their lowest.

        Raises:
            GenomeError: not a rule, or it uses a type, signal or number of rungs that this space lacks.
        """
        if not isinstance(genome, Rule):
            raise GenomeError(f"{genome!r} is no rule and cannot start a search over rules.")
        if len(genome.rungs) > self.rungs:
            raise GenomeError(f"rule {genome.text!r} has {len(genome.rungs)} rungs; genome.rungs allows {self.rungs}.")
        row = np.array([gene.low for gene in self.genes], dtype=np.float64)
        for kind in genome.protected:
            if kind not in self.types:
                raise GenomeError(f"rule {genome.text!r} protects {kind!r}.{suggestion(kind, self.types)}")
            row[self.types.index(kind)] = 1
        if genome.protected_width is not None:
            row[self._protected_width] = self.menu.resolve(genome.protected_width)
        if genome.edge_width is not None:
            row[self._edges] = genome.edges
            row[self._edges + 1] = self.menu.resolve(genome.edge_width)
        for start, rung in zip(self._rung, genome.rungs, strict=False):
            row[start : start + 3] = (self._signal_code(rung.signal), rung.above, self.menu.resolve(rung.width))
        row[-1] = self.menu.resolve(genome.otherwise)
        return row

    def _signal_code(self, name: str) -> int:
        if name in self.signals:
            return 1 + self.signals.index(name)
        kind, colon, width = name.partition(":")  # `loss:INT8` on a menu that holds `INT8-channel`
        if colon:
            try:
                meant = f"{kind}:{self.menu.names[self.menu.resolve(width)]}"
            except PrecisionError:
                meant = name
            if meant in self.signals:
                return 1 + self.signals.index(meant)
        raise GenomeError(
            f"the search has no signal {name!r}; add it to genome.signals.{suggestion(name, self.signals)}"
        )

    def decode(self, row: NDArray[np.float64]) -> Rule:
        """The rule of one row."""
        width = self.menu.names
        rungs = tuple(
            Rung(self.signals[int(row[k]) - 1], float(row[k + 1]), width[int(row[k + 2])])
            for k in self._rung
            if row[k] > 0
        )
        return Rule(
            otherwise=width[int(row[-1])],
            rungs=rungs,
            edges=float(row[self._edges]),
            edge_width=width[int(row[self._edges + 1])],
            protected=frozenset(kind for kind, on in zip(self.types, row, strict=False) if on > 0),
            protected_width=width[int(row[self._protected_width])],
        )


def with_change(
    rule: Rule,
    *,
    edges: float | None = None,
    edge_width: str | None = None,
    threshold: float | None = None,
    protect: Sequence[str] = (),
    unprotect: Sequence[str] = (),
) -> Rule:
    """The rule with edges, edge width, the first rung's threshold, or its protected types changed."""
    if threshold is not None:
        if not rule.rungs:
            raise GenomeError(f"rule {rule.text!r} has no rung whose threshold could change.")
        rule = dataclasses.replace(rule, rungs=(dataclasses.replace(rule.rungs[0], above=threshold), *rule.rungs[1:]))
    return dataclasses.replace(
        rule,
        edges=rule.edges if edges is None else edges,
        edge_width=rule.edge_width if edge_width is None else edge_width,
        protected=(rule.protected | set(protect)) - set(unprotect),
    )
