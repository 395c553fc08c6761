"""How fast a run goes, how far it is, and how long it still takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoquant.campaign.observer import Progress


class Pace:
    """How fast a run goes, and how long it will: only what this process evaluated counts, no replay."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._seconds = 0.0
        self._before: tuple[int, float] | None = None
        self._began = 0.0
        self._share = 0.0

    def hear(self, step: Progress, now: float) -> None:
        """Note a generation that ended at `now`, in seconds."""
        self._share = done_share(step)
        if step.replayed:
            return
        if self._before is None:
            self._before = (step.asked - len(step.evaluations), max(self._share - 1 / step.generations, 0.0))
            self._began = now - step.seconds
        self._seconds += step.seconds
        self.rate = (step.asked - self._before[0]) / self._seconds if self._seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds until the first limit at this pace; None where that is not known."""
        if self._before is None or self._share <= self._before[1]:
            return None
        return (now - self._began) * (1 - self._share) / (self._share - self._before[1])


def done_share(step: Progress) -> float:
    """How much of a run is done, 0 to 1, by the limit that is nearest."""
    stop = step.campaign.config.stop
    shares = [(step.generation + 1) / step.generations]
    if stop.evaluations is not None:
        shares.append(step.asked / stop.evaluations)
    if stop.passes is not None:
        shares.append(step.passes / stop.passes)
    return min(max(shares), 1.0)


def reused(step: Progress) -> float:
    """Share of the candidates that needed no evaluation of their own."""
    return max(1.0 - step.distinct / step.asked, 0.0) if step.asked else 0.0
