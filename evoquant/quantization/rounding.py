"""A rounding method of somebody's own in the place of round-half-to-even: called, and held to what it promises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from evoquant.errors import EvoquantError, InputError, quoted, raised_by

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from evoquant.quantization.precision import Precision
    from evoquant.quantization.protocol import Rounding

Given: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]"
"""Rows, scales and zero points."""

SHOWN = 16  # digits of a digest


@dataclass(frozen=True, eq=False)
class Rounder:
    """A rounding method with what tells it from another.

    Attributes:
        function: see `evoquant.quantization.protocol.Rounding`.
        name: `module:function`, or that of an object that a program holds.
        digest: sha256 over its code.
        imported: whether `name` is what other processes import it by.
        twice: whether every tensor is rounded twice, and has to come out the same.
    """

    function: Rounding
    name: str
    digest: str
    imported: bool = True
    twice: bool = False

    @property
    def suffix(self) -> str:
        """What it adds to the quantizer's version in store keys and recipes."""
        return f"+{self.name}@{self.digest[:SHOWN]}"

    def checking(self) -> Rounder:
        """One that rounds every tensor twice."""
        return replace(self, twice=True)

    def codes(
        self,
        rows: NDArray[np.float32],
        scales: NDArray[np.float16],
        zero_points: NDArray[np.float32] | None,
        precision: Precision,
    ) -> NDArray[np.integer[Any]]:
        """Codes of the rows.

        Raises:
            InputError: it raised, gave what are no codes of the precision, or other ones the second time.
        """
        zeros = np.zeros(len(rows), dtype=np.float32) if zero_points is None else zero_points.astype(np.float32)
        given = (rows.view(), scales.astype(np.float32), zeros)
        for array in given:
            array.flags.writeable = False
        codes = self._called(given, precision)
        if self.twice:
            first = codes.copy()
            if not np.array_equal(first, self._called(given, precision)):
                raise self._fault(
                    precision, "gives other codes when it is called again; key what it draws by the tensor"
                )
        return codes

    def _called(self, given: Given, precision: Precision) -> NDArray[np.integer[Any]]:
        rows = given[0]
        try:
            codes: Any = self.function(*given, precision)
        except EvoquantError:
            raise
        except Exception as error:  # whatever it may raise
            raise self._fault(precision, f"raised {raised_by(error)}") from error
        if not isinstance(codes, np.ndarray) or not np.issubdtype(codes.dtype, np.integer):
            kind = f"{codes.dtype} numbers" if isinstance(codes, np.ndarray) else f"a {type(codes).__name__}"
            raise self._fault(precision, f"gives {kind}; return a NumPy array of an integer type")
        if codes.shape != rows.shape:
            raise self._fault(
                precision, f"gives the shape {codes.shape} for rows of {rows.shape}; return a code a weight"
            )
        low, high = 0 if precision.asymmetric else -precision.largest_code, precision.largest_code
        least, most = int(codes.min()), int(codes.max())
        if least < low or most > high:
            raise self._fault(precision, f"gives codes from {least} to {most}; clip them to {low} … {high}")
        return codes

    def _fault(self, precision: Precision, fault: str) -> InputError:
        return InputError(
            f"rounding: {quoted(self.name)}: {precision.name}: {fault}. What it promises says "
            f"evoquant.quantization.protocol.Rounding, and evoquant.testing.check_rounding tries it."
        )
