"""What a rounding method promises: integer codes for weights whose scales are known.

A campaign on a network names one as `task: {…, rounding: module:function}`; in Python `optimize(..., rounding=f)`.
Whatever quantizes then goes through it: measuring (PyTorch and ONNX), signals, the gate, the recipe and the exports
that take a recipe's codes. Scales and zero points stay evoquant's own, and so do formats whose codes are no integers
(NF4, FP8, FP16, BF16). `evoquant.testing.check_rounding` tries one.

    def toward_zero(rows, scales, zero_points, precision):
        codes = np.trunc(rows / scales[:, None]) + zero_points[:, None]
        low = 0 if precision.asymmetric else -precision.largest_code
        return np.clip(codes, low, precision.largest_code).astype(np.int16)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evoquant.quantization.precision import Precision


@runtime_checkable
class Rounding(Protocol):
    """How the integer codes of a tensor are computed; a module-level function does.

    It is pure: the same tensor gives the same codes, in every process, which is tried by calling it twice. One that
    draws takes its numbers from a generator that is keyed by the tensor (its bytes, say). It is called in workers, on
    the driver and by exports, so all of them have to be able to import it.
    """

    def __call__(
        self,
        rows: NDArray[np.float32],
        scales: NDArray[np.float32],
        zero_points: NDArray[np.float32],
        precision: Precision,
    ) -> NDArray[np.integer[Any]]:
        """`(slices, weights per slice)` codes of any integer type; a code stands for (code − zero point) · scale.

        Args:
            rows: `(slices, weights per slice)` float32 weights of one tensor, read-only; a slice shares a scale.
            scales: `(slices,)` positive, each a float16 number, read-only.
            zero_points: `(slices,)` whole numbers, all 0 where the precision is symmetric, read-only.
            precision: of integers. Codes lie in ±`precision.largest_code`, where it is `asymmetric` in
                0 … `precision.largest_code`; anything else is refused by name.
        """
        ...
