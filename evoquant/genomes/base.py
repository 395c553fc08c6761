"""Gene tables that searches can vary without knowing the genome; the protocols of genomes under one name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.files import canonical_json
from evoquant.genomes.protocol import Fused, Gene, GeneKind, Genome, Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


__all__ = [
    "ABSENT_RATE",
    "ALWAYS",
    "DROP_RATE",
    "FLAG_RATE",
    "FRACTION_SIGMA",
    "LOG_SIGMA",
    "RESAMPLE_RATE",
    "TUNE_SIGMA",
    "WIDTH_STEP_RATE",
    "Fused",
    "Gene",
    "GeneKind",
    "Genome",
    "Linkage",
    "NumericOperators",
    "Space",
    "digest_of",
    "mutate_genes",
    "sample_genes",
    "tidy",
]

FLAG_RATE = 0.25
ABSENT_RATE = 0.5
WIDTH_STEP_RATE = 0.5  # share of width mutations that move one step; the rest draw any width
DROP_RATE = 0.5  # share of mutations of a present option that drop it
FRACTION_SIGMA = 0.05
LOG_SIGMA = 0.7  # e^0.7 ≈ 2: a threshold is typically doubled or halved
RESAMPLE_RATE = 0.2  # share of fraction and threshold mutations that draw afresh
TUNE_SIGMA = 0.2  # a tuned number typically moves by a fifth


ALWAYS = (-1, -1)


@dataclass(frozen=True)
class Linkage:
    """How the genes of a space hang together, as data; its operators are `NumericOperators` and `sample_genes`.

    A space that has one as its `linkage` is bred by compiled operators where the population is large.

    Attributes:
        wakers: for each gene the first and the end of the columns of which one must be above 0 for the gene to have an
            effect; `ALWAYS` where it always has one. A gene that others wait for waits for none.
        ladder: first column, size and number of blocks of genes: those whose first gene is 0 are absent and come last.
        counted: columns that are a part of the genome each where they are above 0, if these are all of its parts.
    """

    wakers: tuple[tuple[int, int], ...]
    ladder: tuple[int, int, int] = (0, 0, 0)
    counted: tuple[int, ...] | None = None


class NumericOperators:
    """`cross`, `mutate` and `tune` for spaces whose every row of genes within its limits is a genome."""

    genes: tuple[Gene, ...]

    def cross(
        self, first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """`(n, genes)` children: uniform crossover, where genes of one group are inherited together."""
        groups = np.array([gene.group for gene in self.genes], dtype=np.intp)
        swap = (rng.random((len(first), groups.max() + 1)) < 0.5)[:, groups]
        return np.where(swap, second, first)

    def mutate(self, genes: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` with every gene changed with probability `rate`, by one step of its kind."""
        mutated = rng.random(genes.shape) < rate
        return np.where(mutated, mutate_genes(self.genes, genes, rng), genes)

    def tune(self, genes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """`(n, genes)` with each threshold and fraction changed, a little, with probability ½.

        A fraction may shrink to none.
        """
        result = genes.copy()
        for j, gene in enumerate(self.genes):
            if gene.kind not in ("log", "fraction"):
                continue
            column = genes[:, j]
            if gene.kind == "log":
                moved = column * np.exp(rng.normal(0.0, TUNE_SIGMA, len(genes)))
            else:
                moved = np.where(column > 0, column + rng.normal(0.0, TUNE_SIGMA * FRACTION_SIGMA, len(genes)), 0.0)
            result[:, j] = np.where(rng.random(len(genes)) < 0.5, moved, column)
        return tidy(self.genes, result)


def digest_of(genome: Genome) -> str:
    """sha256 of the genome's canonical JSON: equal heuristics have equal digests."""
    return hashlib.sha256(canonical_json(genome.to_dict()).encode()).hexdigest()


def sample_genes(genes: Sequence[Gene], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """`(n, genes)` random columns: flags on with ¼; options and fractions absent with ½; thresholds log-uniform."""
    columns = np.empty((n, len(genes)))
    for j, gene in enumerate(genes):
        if gene.kind == "flag":
            columns[:, j] = rng.random(n) < FLAG_RATE
        elif gene.kind == "width":
            columns[:, j] = rng.integers(int(gene.low), int(gene.high) + 1, n)
        elif gene.kind == "option":
            codes = rng.integers(1, int(gene.high) + 1, n)
            columns[:, j] = np.where(rng.random(n) < ABSENT_RATE, 0, codes)
        elif gene.kind == "fraction":
            values = rng.uniform(gene.low, gene.high, n)
            columns[:, j] = np.where(rng.random(n) < ABSENT_RATE, 0.0, values)
        else:
            columns[:, j] = np.exp(rng.uniform(np.log(gene.low), np.log(gene.high), n))
    return tidy(genes, columns)


def mutate_genes(genes: Sequence[Gene], columns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """`(n, genes)`: every gene changed by one step of its kind.

    Flags flip; options are dropped or draw a code; widths move one step or draw any; fractions and thresholds take a
    normal step (on a log scale for thresholds) or are drawn afresh; a fraction may also be switched off.
    """
    n = len(columns)
    result = columns.copy()
    for j, gene in enumerate(genes):
        column = columns[:, j]
        if gene.kind == "flag":
            result[:, j] = 1 - column
        elif gene.kind == "option":
            code = rng.integers(1, int(gene.high) + 1, n)
            result[:, j] = np.where((column > 0) & (rng.random(n) < DROP_RATE), 0, code)
        elif gene.kind == "width":
            step = column + rng.choice([-1.0, 1.0], n)
            drawn = rng.integers(int(gene.low), int(gene.high) + 1, n)
            result[:, j] = np.where(rng.random(n) < WIDTH_STEP_RATE, step, drawn)
        elif gene.kind == "fraction":
            step = column + rng.normal(0.0, FRACTION_SIGMA, n)
            drawn = np.where(rng.random(n) < 0.5, 0.0, rng.uniform(gene.low, gene.high, n))
            result[:, j] = np.where(rng.random(n) < RESAMPLE_RATE, drawn, step)
        else:
            step = column * np.exp(rng.normal(0.0, LOG_SIGMA, n))
            drawn = np.exp(rng.uniform(np.log(gene.low), np.log(gene.high), n))
            result[:, j] = np.where(rng.random(n) < RESAMPLE_RATE, drawn, step)
    return tidy(genes, result)


def tidy(genes: Sequence[Gene], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip to the limits and round to figures that people would write: fractions to 0.001, thresholds to 2 digits.

    Dividing a whole number by a power of ten is correctly rounded, so the result equals the written literal.
    """
    result = columns.copy()
    for j, gene in enumerate(genes):
        column = np.clip(result[:, j], gene.low, gene.high)
        if gene.kind == "fraction":
            column = np.rint(column * 1000.0) / 1000.0
        elif gene.kind == "log":
            scale = _POWERS_OF_TEN[np.clip(1 - np.floor(np.log10(column)), 0, 22).astype(np.intp)]
            column = np.rint(column * scale) / scale
        result[:, j] = column
    return result


_POWERS_OF_TEN = np.array([float(10**k) for k in range(23)])
