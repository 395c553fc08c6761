"""Dynamic INT8 activations: what a layer's inputs become where its precision ends in -a8.

Scales are made anew for each input and never stored, so they are float32 and cost no bits (Yao et al. 2022,
ZeroQuant, arXiv:2206.01861, section 4.1: token-wise, symmetric):

    scale = max(absmax / 127, 2^−126)         code = round_half_even(x / scale)

2^−126 is the smallest normal float32: an all-zero slice needs no case of its own, and |x / scale| never rounds to more
than 127.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ActivationSlice: TypeAlias = Literal["token", "sample"]
"""What shares a scale: `token`, a vector along the last axis (linears); `sample`, an entry of axis 0 (convolutions)."""

LARGEST_ACTIVATION = 127
SMALLEST_ACTIVATION_SCALE = 2.0**-126


def fake_quantize_activations(values: ArrayLike, per: ActivationSlice) -> NDArray[np.float32]:
    """The float32 activations that the INT8 codes stand for, in a new array of the shape of `values`.

    A slice that holds anything but finite numbers comes back as NaN throughout.

    Args:
        values: at least one axis; taken as float32.
        per: what shares a scale.
    """
    inputs = np.asarray(values, dtype=np.float32)
    axes = activation_axes(inputs.ndim, per)
    with np.errstate(invalid="ignore", over="ignore"):
        absmax = np.abs(inputs).max(axis=axes, keepdims=True, initial=0)
        scales = np.maximum(absmax / np.float32(LARGEST_ACTIVATION), np.float32(SMALLEST_ACTIVATION_SCALE))
        return np.asarray((np.rint(inputs / scales) + np.float32(0)) * scales, dtype=np.float32)  # + 0: no −0


def activation_axes(ndim: int, per: ActivationSlice) -> tuple[int, ...]:
    """The axes along which activations of `ndim` axes share a scale."""
    return (ndim - 1,) if per == "token" else tuple(range(1, ndim))
