"""Samples as a Python program holds them (pairs, arrays, dicts, loaders) → the four splits, the same for one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, raised_by
from evoquant.models.arrays import digest_arrays
from evoquant.models.base import SPLITS
from evoquant.models.torch_data import TARGETS, as_array, check_lengths, halves, named_inputs, samples_of
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from evoquant.models.arrays import Arrays

SHARES = {"selection": 0.3, "test": 0.2}
"""Of the calibration data, where these are not given; half of `selection` is for the gate."""
FEWEST = 8
MOST = 10_000_000
_TARGET_KEYS = ("targets", "labels")


def read_samples(data: Any, what: str) -> Arrays:
    """`inputs`, `inputs.1`, … or `inputs.NAME`, and `targets` where there are any, one row a sample.

    Args:
        data: `(inputs, targets)`; inputs alone; a dict of inputs by name, perhaps with `targets` or `labels`; or an
            iterable of batches of these, such as a DataLoader. Several inputs of a pair are a tuple or dict in it;
            targets may be None.
        what: the split, for messages.

    Raises:
        InputError: no samples, no numbers, values that are not finite, or lengths that differ.
    """
    if _is_loader(data):
        return _joined(data, what)
    return _of_one(data, what)


def split_samples(calibration: Any, selection: Any, test: Any, seed: int) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """The four splits, and which of them were drawn from the calibration data because they were not given.

    Samples stand in an order drawn with `seed`, whatever order they came in: a loader that shuffles gives the same
    splits each time, and races, which judge by the first blocks, are not misled by sorted data.

    Raises:
        InputError: as `read_samples`, or there are too few to draw from.
    """
    given = {"calibration": calibration, "selection": selection, "test": test}
    found = {name: read_samples(data, name) for name, data in given.items() if data is not None}
    if "calibration" not in found:
        raise InputError("calibration: has no samples; give (inputs, targets), inputs alone, or a loader of batches.")
    for name, arrays in found.items():
        if set(arrays) != set(found["calibration"]):
            raise InputError(
                f"{name}: holds {', '.join(sorted(arrays))}, calibration {', '.join(sorted(found['calibration']))}; "
                f"give every split the same inputs, and all of them targets or none."
            )
    found = {name: in_drawn_order(arrays, seed, name) for name, arrays in found.items()}
    drawn = tuple(name for name in SHARES if name not in found)
    whole = found["calibration"]
    count = samples_of(whole)
    if drawn and count < FEWEST:
        raise InputError(
            f"calibration: has {count} samples, and {' and '.join(drawn)} would be drawn from them; give at least "
            f"{FEWEST}, and hundreds to mean much, or give {' and '.join(f'{name}=' for name in drawn)}."
        )
    end = count
    for name in drawn:
        size = max(2, int(SHARES[name] * count))
        found[name] = {key: array[end - size : end] for key, array in whole.items()}
        end -= size
    found["calibration"] = {key: array[:end] for key, array in whole.items()}
    first, second = halves(found["selection"], seed)
    splits = {**found, "selection": first, "gate": second}
    return {name: splits[name] for name in SPLITS}, drawn


def in_drawn_order(arrays: Arrays, seed: int, split: str) -> Arrays:
    """The samples in an order that depends on their contents and the seed alone."""
    keys = _row_digests(arrays)
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    order = order[generator_for(seed, 0, f"order of {split} in memory").permutation(len(order))]
    return {name: array[order] for name, array in arrays.items()}


def data_digest(splits: Mapping[str, Arrays]) -> str:
    """sha256 over all splits."""
    return digest_arrays(
        {f"{split}.{name}": array for split, arrays in splits.items() for name, array in arrays.items()}
    )


def samples_digest(splits: Mapping[str, Arrays], drawn: Sequence[str]) -> str:
    """sha256 over the samples as they were given: the same whatever splits and order a seed draws from them.

    Args:
        splits: from `split_samples`.
        drawn: those that were drawn from the calibration data.
    """
    given: dict[str, list[bytes]] = {}
    for split, arrays in splits.items():
        whole = "selection" if split == "gate" else split  # its other half
        given.setdefault("calibration" if whole in drawn else whole, []).extend(_row_digests(arrays))
    made = hashlib.sha256()
    for split, rows in sorted(given.items()):
        made.update(b"".join([f"{split} {len(rows)} ".encode(), *sorted(rows)]))
    return made.hexdigest()


def _row_digests(arrays: Arrays) -> list[bytes]:
    """sha256 of each sample: all its inputs and its target."""
    rows = [np.ascontiguousarray(arrays[name]) for name in sorted(arrays)]
    return [hashlib.sha256(b"".join(array[i].tobytes() for array in rows)).digest() for i in range(len(rows[0]))]


def _of_one(data: Any, what: str) -> Arrays:
    """Of what is one batch, or all there is."""
    inputs, targets = data, None
    if isinstance(data, (tuple, list)) and not _is_numbers(data):
        if len(data) == 1:
            inputs = data[0]
        elif len(data) == 2:
            inputs, targets = data
        else:
            raise InputError(
                f"{what}: holds {len(data)} parts; give (inputs, targets), several inputs as a tuple or dict in it."
            )
    elif isinstance(data, Mapping):
        key = next((key for key in _TARGET_KEYS if key in data), None)
        inputs = {name: value for name, value in data.items() if name != key}
        targets = None if key is None else data[key]
    arrays = named_inputs(inputs, what)
    if targets is not None:
        arrays[TARGETS] = as_array(targets, f"{what}: targets")
        check_lengths(arrays, what)
    return arrays


def _joined(batches: Iterable[Any], what: str) -> Arrays:
    parts: list[Arrays] = []
    count = 0
    for batch in _drained(batches, what):
        part = _of_one(batch, f"{what}: batch {len(parts)}")
        count += samples_of(part)
        if count > MOST:
            raise InputError(f"{what}: gives more than {MOST:,} samples; give a part of them.")
        if parts and _shapes(part) != _shapes(parts[0]):
            raise InputError(
                f"{what}: batch {len(parts)} holds {_told(part)}, the first {_told(parts[0])}; make samples equal in "
                f"shape: pad them, or crop."
            )
        parts.append(part)
    if not parts:
        raise InputError(f"{what}: has no samples; give at least one.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _drained(batches: Iterable[Any], what: str) -> Iterator[Any]:
    try:
        yield from batches
    except InputError:
        raise
    except Exception as error:  # whatever a loader may raise
        raise InputError(f"{what}: its loader raised {raised_by(error)}") from error


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in arrays.items()}


def _told(arrays: Arrays) -> str:
    return ", ".join(f"{name} {('n', *array.shape[1:])}".replace("'", "") for name, array in arrays.items())


def _is_loader(data: Any) -> bool:
    """Whether something gives batches: an iterable that is no array, no dict and no pair.

    Raises:
        InputError: it gives samples one by one.
    """
    if isinstance(data, (Mapping, str, bytes, tuple)) or hasattr(data, "__array__") or hasattr(data, "detach"):
        return False
    if isinstance(data, list):
        return bool(data) and all(isinstance(item, (tuple, Mapping)) for item in data)
    if not hasattr(data, "__iter__") and hasattr(data, "__getitem__"):
        raise InputError(f"calibration: a {type(data).__name__} gives samples one by one; put it in a DataLoader.")
    return isinstance(data, Iterable)


def _is_numbers(values: Sequence[Any]) -> bool:
    """Whether a list or tuple is one array spelled out."""
    return all(isinstance(value, (int, float, bool)) for value in values) or (
        isinstance(values, list) and all(isinstance(value, list) for value in values)
    )
