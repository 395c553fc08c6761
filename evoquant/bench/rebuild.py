"""Make a frozen table anew: train the network, measure all of its allocations, profile it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bench.samples import SPLITS, TRAIN, read_digits, read_fashion
from evoquant.bench.shipped import (
    MENU,
    RECIPES,
    known_table,
    network_path,
    profile_path,
    table_path,
    write_arrays,
    write_network,
)
from evoquant.files import write_atomic
from evoquant.models.networks import require_torch
from evoquant.profiles.model import profile_to_json
from evoquant.quantization.precision import Menu

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.bench.samples import Samples
    from evoquant.models.arrays import Arrays
    from evoquant.profiles.model import ModelProfile

SIGNALS = ("loss", "divergence", "fisher", "hessian", "gradient_sensitivity", "activation_range")


def rebuild(name: str, folder: Path, data: Path | None = None) -> float:
    """Write a table's three files into `folder`; the CPU minutes that it took.

    Args:
        name: of the table.
        folder: is made where it is missing.
        data: the folder of Fashion-MNIST, where the table needs it; by default the example tasks'.

    Raises:
        InputError: no such table, no data set, a folder that cannot be written to.
        MissingExtraError: PyTorch or scikit-learn is not installed.
    """
    recipe = RECIPES[known_table(name)]
    require_torch("measuring a frozen table anew")
    from evoquant.bench.networks import train_chain
    from evoquant.models.tasks.fashion import data_folder
    from evoquant.models.torch_threads import one_thread

    start = time.process_time()
    samples = read_digits(recipe.seed) if name == "digits-cnn" else read_fashion(data or data_folder())
    train = samples.where(TRAIN)
    with one_thread():
        weights = train_chain(name, samples.inputs[train], samples.classes[train], recipe.seed, recipe.epochs)
        judged = samples.only(SPLITS)
        write_network(network_path(name, folder), weights, judged)
        write_arrays(table_path(name, folder), measured(name, weights, judged))
        write_atomic(profile_path(name, folder), profile_to_json(profiled(name, weights, judged)))
    return (time.process_time() - start) / 60.0


def measured(name: str, weights: Arrays, samples: Samples) -> Arrays:
    """The arrays of a table's file: what each allocation gets right on each split, and its divergence."""
    from evoquant.bench.networks import build_chain
    from evoquant.bench.truth import measure_all

    splits = [samples.where(split) for split in SPLITS]
    truth = measure_all(build_chain(name, weights), Menu.parse(MENU), samples.inputs, samples.classes, splits)
    arrays: Arrays = {split: truth.right[:, column] for column, split in enumerate(SPLITS)}
    arrays["gained"] = truth.right[:, 0] - truth.both
    arrays["divergence"] = truth.divergence.astype(np.float16)
    arrays["reference"] = truth.reference
    arrays["samples"] = np.array([samples.sizes[split] for split in SPLITS], dtype=np.int64)
    return arrays


def profiled(name: str, weights: Arrays, samples: Samples) -> ModelProfile:
    """The network's profile with every signal that there is."""
    from evoquant.bench.tasks import make_task
    from evoquant.models.measurer import start_measurer

    task = make_task(name, weights, samples)
    return task.profile(Menu.parse(MENU), start_measurer(task.payload()), SIGNALS)
