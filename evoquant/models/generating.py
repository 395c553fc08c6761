"""Greedy generation with whatever runs a language model on windows of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


def continued(
    run: Callable[[Mapping[str, NDArray[np.generic]]], NDArray[np.generic]],
    feeds: Mapping[str, NDArray[np.generic]],
    prompt: int,
    count: int,
) -> list[int]:
    """The most likely next tokens, one after the other; later places of the window, which a causal model does not see,
    stay as they are.

    Args:
        run: inputs → logits `(samples, T, V)`.
        feeds: input name → one sample, the tokens `(1, T)` first.
        prompt: tokens that are given, at least 1.
        count: tokens to generate; at most as many as the window has room for.
    """
    name = next(iter(feeds))
    tokens = feeds[name].copy()
    end = min(prompt + count, tokens.shape[1])
    for place in range(prompt, end):
        tokens[0, place] = int(np.argmax(run({**feeds, name: tokens})[0, place - 1]))
    return [int(token) for token in tokens[0, prompt:end]]
