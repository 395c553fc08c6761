"""Genes as numbers in [0, 1], as optimisers of numbers vary them, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Gene

ABSENT = 0.25  # share of a fraction's scale that means 0, so that it can be switched off


def is_number(gene: Gene) -> bool:
    """Whether a gene is a number between two others; flags, options and widths are whole."""
    return gene.kind in ("fraction", "log")


def from_unit(genes: Sequence[Gene], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n, genes)` from values in [0, 1]: thresholds on a log scale, the first quarter of a fraction is none."""
    result = np.empty_like(columns)
    for j, gene in enumerate(genes):
        share = columns[:, j]
        if gene.kind == "log":
            result[:, j] = np.exp(np.log(gene.low) + share * (np.log(gene.high) - np.log(gene.low)))
        elif gene.kind == "fraction":
            result[:, j] = gene.low + np.maximum(share - ABSENT, 0.0) / (1.0 - ABSENT) * (gene.high - gene.low)
        else:
            result[:, j] = np.rint(gene.low + share * (gene.high - gene.low))
    return result


def to_unit(genes: Sequence[Gene], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n, genes)` in [0, 1], which `from_unit` makes into these columns."""
    result = np.empty_like(columns)
    for j, gene in enumerate(genes):
        if gene.kind == "log":
            result[:, j] = np.log(columns[:, j] / gene.low) / np.log(gene.high / gene.low)
        else:
            share = (columns[:, j] - gene.low) / (gene.high - gene.low)
            fraction = np.where(share > 0, ABSENT + (1.0 - ABSENT) * share, ABSENT / 2)
            result[:, j] = fraction if gene.kind == "fraction" else share
    return np.clip(result, 0.0, 1.0)


def snapped(genes: Sequence[Gene], units: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n, genes)` in [0, 1] with whole numbers where genes are: what is told is then what was asked."""
    whole = np.array([not is_number(gene) for gene in genes])
    return np.where(whole, to_unit(genes, from_unit(genes, units)), units)


def from_mixed(genes: Sequence[Gene], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n, genes)` from rows where numbers are in [0, 1] and all else is itself."""
    numbers = np.array([is_number(gene) for gene in genes])
    result = values.copy()
    result[:, numbers] = from_unit([gene for gene in genes if is_number(gene)], values[:, numbers])
    return result


def to_mixed(genes: Sequence[Gene], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(n, genes)` with numbers in [0, 1], which `from_mixed` makes into these columns."""
    numbers = np.array([is_number(gene) for gene in genes])
    result = columns.copy()
    result[:, numbers] = to_unit([gene for gene in genes if is_number(gene)], columns[:, numbers])
    return result
