"""How the kernels are compiled: numba, with the machine code kept between runs.

Imported only by kernels, which are themselves imported lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code of `function`, kept beside the source or in the user's cache folder where there is room.

    Division is that of IEEE 754, and there is no fast-math: every language gives the same bits. Other threads run
    meanwhile, so what a kernel reads must not change under it.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # nowhere to keep the machine code: a read-only installation and no home
        return numba.njit(nogil=True, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """`function` for use inside other compiled ones: written out there, which spares the innermost loops a call."""
    return numba.njit(inline="always", error_model="numpy")(function)
