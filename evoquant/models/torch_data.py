"""Samples as people hand them over (arrays, tensors, tuples, dicts) → named arrays, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.rng import generator_for

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays

INPUTS = "inputs"
TARGETS = "targets"
SLICES = "slices"
IGNORED = -100  # a target of this value is not scored, as in PyTorch's cross entropy


def named_inputs(inputs: Any, split: str) -> Arrays:
    """`inputs`, `inputs.1`, … for one array or a tuple of them, `inputs.NAME` for keywords; equal lengths.

    Floats become float32 and integers int64; everything is on the CPU afterwards.

    Raises:
        InputError: not arrays, no samples, or lengths that differ; the message names the split.
    """
    if isinstance(inputs, Mapping):
        parts = {f"{INPUTS}.{name}": value for name, value in inputs.items()}
    elif isinstance(inputs, (tuple, list)) and not _is_plain(inputs):
        parts = {INPUTS if i == 0 else f"{INPUTS}.{i}": value for i, value in enumerate(inputs)}
    else:
        parts = {INPUTS: inputs}
    arrays = {name: as_array(value, f"{split}: {name}") for name, value in parts.items()}
    check_lengths(arrays, split)
    return arrays


def as_array(value: Any, what: str) -> NDArray[np.generic]:
    """One array of samples, C-ordered float32, int64 or bool.

    Raises:
        InputError: it is none; the message begins with `what`.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{what}: no array of samples: {error}.") from None
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    elif array.dtype.kind in "iu":
        array = array.astype(np.int64, copy=False)
    elif array.dtype.kind != "b":
        raise InputError(f"{what}: is of type {array.dtype}; give numbers: an array or a tensor with one row a sample.")
    if array.ndim == 0:
        raise InputError(f"{what}: is a single number; give an array with one row a sample.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{what}: holds values that are not finite; remove those samples.")
    return np.ascontiguousarray(array)


def check_lengths(arrays: Arrays, split: str) -> int:
    """Samples of a split.

    Raises:
        InputError: none, or arrays of different lengths.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if not lengths or min(lengths.values()) < 1:
        raise InputError(f"{split}: has no samples; give at least one.")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{split}: arrays of one split have one row a sample, and these differ: {counts}.")
    return next(iter(lengths.values()))


def labelled(data: Any, split: str) -> Arrays:
    """Inputs and classes, int64, of a pair.

    Raises:
        InputError: no pair, or labels that are no integers.
    """
    inputs, labels = _pair(data, split)
    arrays = named_inputs(inputs, split)
    classes = as_array(labels, f"{split}: labels")
    if classes.dtype.kind not in "ib":
        raise InputError(f"{split}: labels are classes: integers from 0.")
    arrays[TARGETS] = classes.astype(np.int64)
    return arrays


def valued(data: Any, split: str) -> Arrays:
    """Inputs and values, float32, of a pair.

    Raises:
        InputError: no pair.
    """
    inputs, targets = _pair(data, split)
    arrays = named_inputs(inputs, split)
    arrays[TARGETS] = as_array(targets, f"{split}: targets").astype(np.float32)
    return arrays


def with_tokens(data: Any, split: str) -> Arrays:
    """Inputs and the next token of each position, from tokens, a dict of inputs, or a pair (inputs, targets).

    Raises:
        InputError: tokens or targets that are not `(sequences, T)` integers, T at least 2.
    """
    given = isinstance(data, (tuple, list)) and len(data) == 2 and not _is_plain(data)
    arrays = named_inputs(data[0] if given else data, split)
    tokens = next(iter(arrays.values()))
    targets = as_array(data[1], f"{split}: targets") if given else tokens
    if targets.ndim != 2 or targets.dtype.kind != "i":
        raise InputError(
            f"{split}: tokens and targets are integers (sequences, T), not {targets.dtype}{targets.shape}."
        )
    if not given:
        targets = np.concatenate([tokens[:, 1:], np.full((len(tokens), 1), IGNORED)], axis=1)
    if not (targets != IGNORED).any(axis=1).all():
        raise InputError(f"{split}: a sequence has no position to score; give sequences of at least 2 tokens.")
    arrays[TARGETS] = targets
    return arrays


def _pair(data: Any, split: str) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise InputError(f"{split}: give a pair (inputs, targets); several inputs are a tuple or dict in it.")
    return data[0], data[1]


def with_slices(arrays: Arrays, names: Sequence[str] | None, split: str) -> Arrays:
    """The arrays with the name of each sample's slice.

    Raises:
        InputError: another number of names than samples.
    """
    if names is None:
        return arrays
    named = {**arrays, SLICES: np.array([str(name) for name in names])}
    check_lengths(named, split)
    return named


def halves(arrays: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """Half of the samples, which chooses the champion, and the other half, which the gate alone sees.

    Which sample is where is drawn with `seed`: data sorted by class or by time would give halves that differ.

    Raises:
        InputError: fewer than 2 samples.
    """
    samples = check_lengths(arrays, "selection")
    if samples < 2:
        raise InputError("selection: has 1 sample; its halves choose the champion and gate it, so give at least 2.")
    order = generator_for(seed, 0, "halves of selection").permutation(samples)
    first, second = np.sort(order[: (samples + 1) // 2]), np.sort(order[(samples + 1) // 2 :])
    return {name: a[first] for name, a in arrays.items()}, {name: a[second] for name, a in arrays.items()}


def samples_of(arrays: Mapping[str, NDArray[np.generic]]) -> int:
    """How many samples the arrays of a split hold."""
    return len(next(iter(arrays.values())))


def call_network(
    network: torch.nn.Module, arrays: Mapping[str, NDArray[np.generic]], rows: slice | NDArray[np.intp]
) -> torch.Tensor:
    """The network's output tensor for some samples."""
    return call_on_tensors(network, input_tensors(arrays, rows))


def input_tensors(arrays: Mapping[str, NDArray[np.generic]], rows: slice | NDArray[np.intp]) -> dict[str, torch.Tensor]:
    """The inputs of some samples by name."""
    import torch

    parts = {name: array[rows] for name, array in arrays.items() if name.partition(".")[0] == INPUTS}
    return {name: torch.from_numpy(part if part.flags.writeable else part.copy()) for name, part in parts.items()}


def call_on_tensors(network: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The network's output tensor: positional inputs in order, then those with names.

    Of several outputs `logits` counts, else the first.
    """
    positional: dict[int, torch.Tensor] = {}
    keywords: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        rest = name.partition(".")[2]
        if not rest or rest.isdigit():
            positional[int(rest or 0)] = tensor
        else:
            keywords[rest] = tensor
    return output_tensor(network(*(positional[i] for i in sorted(positional)), **keywords))


def output_tensor(output: Any) -> torch.Tensor:
    """The tensor that counts of what a network returns.

    Raises:
        InputError: there is none.
    """
    import torch

    while not isinstance(output, torch.Tensor):
        if hasattr(output, "logits"):
            output = output.logits
        elif isinstance(output, Mapping) and output:
            output = output["logits"] if "logits" in output else next(iter(output.values()))
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        else:
            raise InputError(f"the network returns a {type(output).__name__}; it has to return a tensor.")
    return output


def _is_plain(values: Sequence[Any]) -> bool:
    """Whether a list or tuple is one array spelled out rather than several inputs."""
    return all(isinstance(value, (int, float, bool)) for value in values) or (
        isinstance(values, list) and all(isinstance(value, list) for value in values)
    )
