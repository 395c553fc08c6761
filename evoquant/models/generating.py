"""Greedy generation with whatever runs a language model on windows of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


def tokens_in(feeds: Mapping[str, NDArray[np.generic]]) -> str | None:
    """Which input holds the tokens: `input_ids` by name, else the one of integers that is no mask; None if unclear."""
    named = [name for name in feeds if name.endswith("input_ids")]
    whole = [name for name, array in feeds.items() if array.dtype.kind == "i" and array.ndim == 2]
    found = named or [name for name in whole if not np.isin(feeds[name], (0, 1)).all()]
    return found[0] if len(found) == 1 else None


def continued(
    run: Callable[[Mapping[str, NDArray[np.generic]]], NDArray[np.generic]],
    feeds: Mapping[str, NDArray[np.generic]],
    name: str,
    prompt: int,
    count: int,
) -> list[int]:
    """The most likely next tokens, one after the other; later places of the window, which a causal model does not see,
    stay as they are.

    Args:
        run: inputs → logits `(samples, T, V)`.
        feeds: input name → one sample.
        name: of the tokens, `(1, T)`.
        prompt: tokens that are given, at least 1.
        count: tokens to generate; at most as many as the window has room for.
    """
    tokens = feeds[name].copy()
    end = min(prompt + count, tokens.shape[1])
    for place in range(prompt, end):
        tokens[0, place] = int(np.argmax(run({**feeds, name: tokens})[0, place - 1]))
    return [int(token) for token in tokens[0, prompt:end]]
