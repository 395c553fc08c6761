"""Whether it pays to look a module's calls up, by the times that this takes and saves.

Outcomes are the same either way, so that times may decide.
"""

from __future__ import annotations

TRIAL = 24  # calls that are looked up before it is decided
PAUSE = (
    8  # times as many that are not, where it did not pay; a search's candidates grow alike, so then it is tried again
)
SECONDS_PER_BYTE = 2e-10  # what is kept alive is memory that the next output cannot take: its pages are new
_SMOOTH = 8


class Worth:
    """What looking up has brought at one place of a network.

    Attributes:
        looks: whether calls are looked up now.
        mean_s: seconds that running it takes.
    """

    __slots__ = ("_calls", "_gain", "_runs", "looks", "mean_s")

    def __init__(self) -> None:
        self.looks = True
        self.mean_s = 0.0
        self._calls = self._runs = 0
        self._gain = 0.0

    def asked(self) -> bool:
        """Count a call; whether to look it up."""
        if self._calls >= (TRIAL if self.looks else PAUSE * TRIAL):
            self.looks = not self.looks or self._gain > 0.0
            self._calls, self._gain = 0, 0.0
        self._calls += 1
        return self.looks

    def gained(self, seconds: float) -> None:
        """By a call that was found, or lost (below 0) by one that was not."""
        self._gain += seconds

    def ran(self, seconds: float) -> None:
        """How long a run took; the mean follows slowly, as first runs are slow."""
        self._runs = min(self._runs + 1, _SMOOTH)
        self.mean_s += (seconds - self.mean_s) / self._runs
