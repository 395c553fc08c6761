"""A network of one's own by the name of its factory, in the driver and in workers."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evoquant.errors import EvoquantError, InputError, raised_by
from evoquant.models.code import imported
from evoquant.models.hf import without_noise
from evoquant.models.networks import require_torch
from evoquant.models.own_rounding import rounded_by
from evoquant.models.torch_data import samples_of
from evoquant.models.torch_task import BATCH, BLOCK, LIVE, TorchTask
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.models.arrays import Arrays


def load_factory(name: str, seed: int = 0, block: int = BLOCK, batch: int = BATCH) -> TorchTask:
    """The task that `module:factory` makes, the samples of each split in an order drawn with `seed`.

    Args:
        name: of a function that returns what a constructor of this module returns; it is imported and called.
        seed: for a factory that takes one, and for the labels and probes that signals draw.
        block: samples that are measured together, at least 1.
        batch: samples per forward pass, at least 1.

    Raises:
        InputError: it cannot be imported, or returns something else.
    """
    require_torch(f"the network {name}")
    with without_noise():  # where it imports transformers, and torchao is installed
        factory = imported(name)
    if not callable(factory):
        raise InputError(f"{name}: is a {type(factory).__name__}; name a function that returns a task.")
    takes_seed = "seed" in inspect.signature(factory).parameters
    try:
        with without_noise():
            task = factory(seed=seed) if takes_seed else factory()
    except EvoquantError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # whatever the factory may raise
        raise InputError(f"{name}: raised {raised_by(error)}") from error
    if not isinstance(task, TorchTask):
        raise InputError(
            f"{name}: returned a {type(task).__name__}; return what classification, regression, language_model or "
            f"embedding of evoquant.models.torch_task makes."
        )
    for what, value in (("block", block), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name}: {what} is {value}; it is at least 1 sample.")
    data = {split: _in_drawn_order(arrays, split, seed) for split, arrays in task.data.items()}
    return replace(task, name=name, factory=name, seed=seed, block=block, batch=batch, data=data)


def _in_drawn_order(arrays: Arrays, split: str, seed: int) -> Arrays:
    """Samples in an order drawn with `seed`: races judge by the first blocks, which have to be like the others."""
    order = generator_for(seed, 0, f"order of {split}").permutation(samples_of(arrays))
    return {name: array[order] for name, array in arrays.items()}


def live_task(payload: Mapping[str, Any]) -> TorchTask:
    """The task of a payload that names a factory: the one that is here, else built anew and compared.

    Raises:
        InputError: it is not here and has no factory, or the factory made something else this time.
    """
    known = LIVE.get(payload["identity"])
    if known is not None:
        return known
    if payload["factory"] is None:
        raise InputError("the network lives in another process; give it a factory `module:function` to measure there.")
    task = load_factory(payload["factory"], payload["seed"], payload["block"], payload["batch"])
    task = rounded_by(task, payload.get("rounder"))
    if task.identity != payload["identity"]:
        raise InputError(
            f"{payload['factory']}: made another network or other data in a worker than here; a factory returns the "
            f"same each time: fix its seeds, load its weights from a file."
        )
    return task
