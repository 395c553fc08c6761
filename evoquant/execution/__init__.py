"""Executors: where batches of candidates are evaluated."""

from __future__ import annotations

RAY_START_S = 8.0  # with its first workers, beside a search that goes on; 4 to 14 were seen


def auto_choice(
    batch_seconds: float, batches_left: int, cpus: int, ray_start_s: float = RAY_START_S
) -> tuple[str, str]:
    """Pick `local` or `ray` by the measured cost of a batch, and say why.

    Args:
        batch_seconds: how long one batch took in this process.
        batches_left: how many are to come.
        cpus: workers that Ray would have.
        ray_start_s: what starting Ray costs.
    """
    left = batch_seconds * batches_left
    saved = left * (1.0 - 1.0 / max(cpus, 1))
    measured = f"a batch takes {batch_seconds:.3g} s, {left:.3g} s are left"
    if cpus <= 1:
        return "local", f"{measured}; one worker saves nothing"
    if saved > ray_start_s:
        return "ray", f"{measured}; {cpus} workers save about {saved:.0f} s"
    return "local", f"{measured}; starting Ray would cost more than {cpus} workers save"
