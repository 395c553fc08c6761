"""What a campaign says that ends because every candidate failed."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from evoquant.campaign.storage import JOURNAL, TIMINGS
from evoquant.errors import CampaignError

if TYPE_CHECKING:
    from evoquant.campaign.storage import RunDir


def all_failed(run: RunDir) -> CampaignError:
    """The error, with every reason and how often it was; the same when the run is resumed."""
    lines = [json.loads(line) for line in run.journal()]
    reasons = Counter(str(reason) for line in lines for reason in line.get("failures", {}).values())
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]))
    last = _last_message(run)
    said = f"; the last one said {last!r}, see `messages` in {TIMINGS}" if last else ""
    return CampaignError(
        f"{run.path}: no candidate of {len(lines)} generations could be evaluated: {counts or 'none was ok'} (see "
        f"`failures` in {JOURNAL}{said}). Mend the network or the objective, or raise the limit, and start a new run."
    )


def _last_message(run: RunDir) -> str | None:
    """First line of what the last evaluation that failed said; None where none said anything."""
    if not run.has(TIMINGS):
        return None
    for line in reversed(run.text(TIMINGS).splitlines()):
        try:
            messages = json.loads(line).get("messages") or ()
        except (ValueError, AttributeError):  # torn, or not ours: it is only for people
            continue
        for message in reversed(messages):
            if isinstance(message, str) and message.strip():
                return message.strip().splitlines()[0]
    return None
