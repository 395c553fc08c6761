"""An observer that interrupts a campaign, for tests of resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoquant.campaign.observer import Progress


class StopAfter:
    """Interrupts like Ctrl-C once `generations` new generations are journalled."""

    def __init__(self, generations: int) -> None:
        self._left = generations

    def generation(self, progress: Progress) -> None:
        """Count what is new."""
        self._left -= not progress.replayed
        if self._left == 0:
            raise KeyboardInterrupt

    def message(self, text: str) -> None:
        """Nothing."""
