"""Example tasks: small networks, trained in a minute or less, on data that is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evoquant.models.torch_task import TorchTask

BLOCK, BATCH = 500, 250
OWN_SIZES = {"char_lm": (80, 40), "llama": (80, 40)}
"""Block and batch of tasks whose samples are sequences; of the others they are `BLOCK` and `BATCH`."""


def _digits(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import digits

    return digits.load(seed, cache, block, batch)


def _fashion_cnn(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import fashion

    return fashion.load_cnn(seed, cache, block, batch)


def _fashion_vit(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import fashion

    return fashion.load_vit(seed, cache, block, batch)


def _char_lm(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import char_lm

    return char_lm.load(seed, cache, block, batch)


def _llama(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import llama

    return llama.load(seed, cache, block, batch)


def _tabular(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    from evoquant.models.tasks import tabular

    return tabular.load(seed, cache, block, batch)


TASKS: dict[str, Callable[[int, Path, int, int], TorchTask]] = {
    "digits": _digits,
    "fashion_cnn": _fashion_cnn,
    "fashion_vit": _fashion_vit,
    "char_lm": _char_lm,
    "llama": _llama,
    "tabular": _tabular,
}


def load_task(name: str, seed: int, cache: Path, block: int | None = None, batch: int | None = None) -> TorchTask:
    """The example task of that name; its network comes from `cache` where it lies there, else it is trained.

    Args:
        name: a key of `TASKS`.
        seed: of splits, initial weights and order of training, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: samples that are measured together, at least 1; by default the task's own.
        batch: samples per forward pass, at least 1; by default the task's own.

    Raises:
        InputError: no such task, its data is not there, or a size below 1.
        MissingExtraError: a package that the task needs is not installed.
    """
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}.{suggestion(name, TASKS)}")
    own_block, own_batch = OWN_SIZES.get(name, (BLOCK, BATCH))
    block, batch = own_block if block is None else block, own_batch if batch is None else batch
    for what, value in (("block", block), ("batch", batch)):
        if value < 1:
            raise InputError(f"task {name!r}: {what} is {value}; it is at least 1 sample.")
    return TASKS[name](seed, cache, block, batch)
