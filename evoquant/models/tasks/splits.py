"""Cut labelled data into the splits of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.models.torch_data import INPUTS, SLICES, TARGETS
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays

TRAIN = "train"


def stratified_order(strata: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """`(samples,)` a shuffled order in which every run of samples has every stratum in proportion.

    Each sample gets its shuffled rank within its stratum as a fraction; sorted by it, the strata alternate evenly.

    Args:
        strata: `(samples,)` each sample's class or group.
        seed: of the shuffle, 0 ≤ seed < 2^63.
    """
    generator = generator_for(seed, 0, "splits")
    fraction = np.empty(len(strata))
    for stratum in np.unique(strata):
        (members,) = np.nonzero(strata == stratum)
        fraction[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(fraction, kind="stable")


def stratified_splits(
    inputs: NDArray[np.generic],
    targets: NDArray[np.generic],
    strata: NDArray[np.int64],
    names: Sequence[str],
    sizes: Mapping[str, int],
    seed: int,
) -> dict[str, Arrays]:
    """Disjoint splits with `inputs`, `targets` and `slices`; every block of a split has every stratum in proportion.

    Args:
        inputs: `(samples, …)`.
        targets: `(samples, …)`.
        strata: `(samples,)` index into `names`.
        names: of the slices.
        sizes: split → samples, in the order in which they are drawn.
        seed: of the draw, 0 ≤ seed < 2^63.
    """
    order = stratified_order(strata, seed)
    labels = np.array(names)
    splits: dict[str, Arrays] = {}
    start = 0
    for split, size in sizes.items():
        chosen = order[start : start + size]
        splits[split] = {INPUTS: inputs[chosen], TARGETS: targets[chosen], SLICES: labels[strata[chosen]]}
        start += size
    return splits
