"""The checkpoint: an atomic snapshot that only speeds up resume; the journal is the truth."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.storage import CHECKPOINT
from evoquant.errors import InputError
from evoquant.files import canonical_json, parse_json
from evoquant.search.base import Snapshotting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evoquant.campaign.storage import RunDir
    from evoquant.search.base import Search

VERSION = 3
_STAMP = '"sha256":"'  # begins the last key, of all that stands before it
_DIGITS = 64
DTYPES = ("<f8", "<i8", "|b1")  # of arrays in a checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """State after a whole number of generations, tied to the journal's first lines by a digest.

    Attributes:
        search: gives the search's state: plain data but for arrays. Most checkpoints are never saved.
    """

    generations: int
    search: Callable[[], Mapping[str, Any]]
    estimator: dict[str, Any]
    hall: list[dict[str, Any]]
    since_improvement: int


class JournalDigest:
    """sha256 over the journal's lines so far, grown a line at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, line: str) -> None:
        """One more line."""
        self._hash.update(line.encode() + b"\n")

    def value(self) -> str:
        """Hex digest up to here."""
        return self._hash.copy().hexdigest()


def kept_state(search: Search) -> Callable[[], Mapping[str, Any]]:
    """The search's state of now, written out only when it is called for where the search can hold it otherwise."""
    if isinstance(search, Snapshotting):
        return search.snapshot()
    state = search.state()
    return lambda: state


def save_checkpoint(run: RunDir, config_hash: str, journal_digest: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically."""
    values = {
        "version": VERSION,
        "config_hash": config_hash,
        "journal_digest": journal_digest,
        "generations": checkpoint.generations,
        "estimator": checkpoint.estimator,
        "since_improvement": checkpoint.since_improvement,
    }
    pieces = {key: [canonical_json(value).encode()] for key, value in values.items()}
    # Keys in their order, not sorted: that of a genome's layers is the order in which champion.json lists them.
    hall = json.dumps(checkpoint.hall, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    pieces["hall"] = [hall.encode()]
    search = {key: _packed(value) for key, value in checkpoint.search().items()}
    body = _object(pieces | {"search": _object(search)})
    body[-1] = b"," + _STAMP.encode()
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    run.put(CHECKPOINT, b"".join([*body, digest.hexdigest().encode(), b'"}']))


def load_checkpoint(run: RunDir, config_hash: str, lines: Sequence[str]) -> Checkpoint | None:
    """The checkpoint, or None where there is none, or it is damaged, or does not belong to this journal."""
    if not run.has(CHECKPOINT):
        return None
    try:
        text = run.text(CHECKPOINT)
        body, stamp = text[: -_DIGITS - 2], text[-_DIGITS - 2 : -2]
        if not body.endswith(_STAMP) or hashlib.sha256(body.encode()).hexdigest() != stamp:
            return None
        data = parse_json(text, str(run.path / CHECKPOINT))
        if data["version"] != VERSION or data["config_hash"] != config_hash:
            return None
        generations = data["generations"]
        if not isinstance(generations, int) or not 0 < generations <= len(lines):
            return None
        digest = JournalDigest()
        for line in lines[:generations]:
            digest.add(line)
        if digest.value() != data["journal_digest"]:
            return None
        search = {key: _unpacked(value) for key, value in data["search"].items()}
        return Checkpoint(generations, lambda: search, data["estimator"], data["hall"], int(data["since_improvement"]))
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _packed(value: Any) -> list[bytes]:
    """JSON, in pieces; of an array its bytes: a large one as numbers would take longer than a generation takes."""
    if not isinstance(value, np.ndarray):
        return [canonical_json(value).encode()]
    array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    dtype, shape = canonical_json(array.dtype.str).encode(), canonical_json(list(array.shape)).encode()
    # Nothing in base64 needs escaping, which would be looked for.
    return _object({"dtype": [dtype], "shape": [shape], "base64": [b'"', base64.b64encode(array.data), b'"']})


def _object(values: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """Canonical JSON of an object from that of its values, all in pieces: joined once, large ones are copied once."""
    pieces: list[bytes] = []
    for key in sorted(values):
        pieces += [b"," if pieces else b"{", canonical_json(key).encode(), b":", *values[key]]
    return [*pieces, b"}"] if pieces else [b"{}"]


def _unpacked(value: Any) -> Any:
    """What `_packed` was given.

    Raises:
        ValueError: a damaged array.
    """
    if not (isinstance(value, dict) and value.keys() == {"dtype", "shape", "base64"}):
        return value
    if value["dtype"] not in DTYPES:
        raise ValueError(f"no dtype of a checkpoint: {value['dtype']!r}")
    data = base64.b64decode(value["base64"], validate=True)
    return np.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"])
