"""The number formats that are not integers: NF4, FP8 (E4M3) and BF16, each value by value in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.quantization.precision import LARGEST_E4M3

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_FP16 = 65504.0
LARGEST_BF16 = 2.0**127 * (2 - 2.0**-7)

NF4_LEVELS: NDArray[np.float32] = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    dtype=np.float32,
)
"""`(16,)` ascending levels of the 4-bit NormalFloat: Dettmers et al. 2023 (QLoRA, arXiv:2305.14314), appendix E."""

NF4_MIDPOINTS: NDArray[np.float32] = (NF4_LEVELS[:-1] + NF4_LEVELS[1:]) / np.float32(2)
"""`(15,)` bounds between neighbouring levels; a value on a bound goes to the lower level, as in bitsandbytes."""

_E4M3_MANTISSA, _E4M3_LEAST_EXPONENT = 3, -6


def _e4m3_values() -> NDArray[np.float32]:
    """The 127 numbers from 0 to 448 by their code: sign 0, 4 bits of exponent (bias 7), 3 of mantissa; 0x7F is NaN."""
    code = np.arange(127)
    exponent, mantissa = code >> 3, (code & 7) / 8
    return np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0)).astype(np.float32)


E4M3_VALUES: NDArray[np.float32] = _e4m3_values()
"""`(127,)` what the codes 0x00 to 0x7E stand for: Micikevicius et al. 2022 (FP8, arXiv:2209.05433), table 1."""


def nf4_codes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Index of the nearest of `NF4_LEVELS` for each value."""
    return np.searchsorted(NF4_MIDPOINTS, values, side="left").astype(np.uint8)


def round_e4m3(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each value as the nearest E4M3 number; half steps to the even mantissa, saturating at ±448, signed zeros kept.

    Neighbours of v are 2^(max(⌊log2 |v|⌋, −6) − 3) apart.
    """
    limited = np.clip(values, -LARGEST_E4M3, LARGEST_E4M3)
    exponent = np.maximum(np.frexp(limited)[1] - 1, _E4M3_LEAST_EXPONENT)
    step = np.ldexp(np.float32(1), exponent - _E4M3_MANTISSA)
    return np.asarray(np.rint(limited / step) * step, dtype=np.float32)


def e4m3_codes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The eight bits of each value once it is rounded to E4M3 (the layout that ONNX calls FLOAT8E4M3FN)."""
    rounded = round_e4m3(values)
    magnitude = np.searchsorted(E4M3_VALUES, np.abs(rounded))
    return (magnitude | np.where(np.signbit(rounded), 0x80, 0)).astype(np.uint8)


def e4m3_decoded(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of eight-bit codes that `e4m3_codes` made."""
    magnitude = E4M3_VALUES[codes & 0x7F]
    return np.asarray(np.where(codes & 0x80, -magnitude, magnitude), dtype=np.float32)


def round_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each finite value as the nearest BF16, the upper half of a float32; half steps to the even one.

    Adding 0x7FFF, and one more where the last bit that stays is odd, carries into the upper half exactly where
    rounding goes up.
    """
    return bf16_values(bf16_bits(values))


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The sixteen bits of each finite value once it is rounded to BF16: the upper half of a float32."""
    bits = values.view(np.uint32)
    carried = bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))
    return (carried >> 16).astype(np.uint16)


def bf16_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers of bits that `bf16_bits` made."""
    values: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
    return values
