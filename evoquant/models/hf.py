"""Hugging Face's transformers, imported where a network of theirs is at hand."""

from __future__ import annotations

import contextlib

from evoquant.errors import InputError, MissingExtraError
from evoquant.models.networks import require_torch
from evoquant.models.quiet import silenced

NOISY = ("torchao", "torch.utils._pytree")
"""Loggers that warn of CUDA libraries and of each other while transformers loads; nothing follows from it here."""


def require_transformers(what: str) -> None:
    """Check that PyTorch and transformers are installed, and load transformers; `what` names who needs it.

    Raises:
        MissingExtraError: one of them is not.
        InputError: transformers is, and cannot be loaded.
    """
    require_torch(what)
    try:
        with without_noise():
            import transformers.modeling_utils  # noqa: F401  (loads torchao, where that is installed)
    except ImportError as error:
        if error.name != "transformers":
            raise InputError(
                f"{what} needs transformers, which cannot be loaded: {error}. Install it anew: pip install -U "
                f"'evoquant[huggingface]'"
            ) from None
        raise MissingExtraError(what, "transformers", "huggingface") from None


def without_noise() -> contextlib.AbstractContextManager[None]:
    """Without what `NOISY` loggers say, but for what is critical."""
    return silenced(*NOISY)
