"""What a worker keeps for the next allocation, within numbers of bytes: quantized weights, outputs, inputs."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

Value = TypeVar("Value")

SHARE = 1.5  # of the weights' bytes: the allocation at hand and half of another; small networks keep everything
LEAST_BYTES = 256 << 20
MOST_BYTES = 1 << 30


def cache_bytes(weights: int, asked: int | None) -> int:
    """How many bytes of quantized weights a worker keeps.

    Args:
        weights: bytes of all that can be quantized.
        asked: by the campaign's `task.quantized_cache`; None where the network's size decides.
    """
    return min(max(LEAST_BYTES, int(SHARE * weights)), MOST_BYTES) if asked is None else asked


class Bounded(Generic[Value]):
    """Values by key, the least recently used thrown out so that they stay within a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._items: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value of `key`: kept, or made now; one larger than the bound is not kept."""
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key][0]
        value = make()
        needed = size(value)
        if needed <= self.limit_bytes:
            self._items[key] = value, needed
            self.bytes += needed
            while self.bytes > self.limit_bytes:
                _, (_, freed) = self._items.popitem(last=False)
                self.bytes -= freed
        return value


class Kept(Generic[Value]):
    """Values by key. What the request at hand asks for stays; the least recently used of all else makes room for it.

    Where a request's values do not all fit they come one after the other, and the same again with the next request: to
    let the least recently used go then, whatever is asked for, is to let go of each just before it is asked for.

    Attributes:
        limit_bytes: of all values together.
        bytes: that they are now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._items: OrderedDict[Hashable, tuple[Value, int, int]] = OrderedDict()
        self._request = 0

    def begin(self, needed: int, keys: Iterable[Hashable]) -> bool:
        """Begin a request for the values of `keys`, of `needed` bytes; whether all of them can be kept at once."""
        self._request += 1
        for key in keys:
            if key in self._items:
                self._use(key)
        return needed <= self.limit_bytes

    def get(self, key: Hashable, size: int, make: Callable[[], Value]) -> Value:
        """The value of `key`, of `size` bytes: kept, or made now, with room made for it before."""
        if key in self._items:
            return self._use(key)
        while self._items and self.bytes + size > self.limit_bytes:
            oldest = next(iter(self._items))
            _, freed, request = self._items[oldest]
            if request == self._request:
                break
            del self._items[oldest]
            self.bytes -= freed
        value = make()
        if self.bytes + size <= self.limit_bytes:
            self._items[key] = value, size, self._request
            self.bytes += size
        return value

    def _use(self, key: Hashable) -> Value:
        value, size, _ = self._items[key]
        self._items[key] = value, size, self._request
        self._items.move_to_end(key)
        return value
