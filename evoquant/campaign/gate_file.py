"""gate.json read back: what an export of one model's allocation has to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.champion import Champion
from evoquant.campaign.storage import GATE
from evoquant.errors import RunDirError

if TYPE_CHECKING:
    from evoquant.campaign.storage import RunDir

SCHEMA = "evoquant.gate"
CHAMPION_NAME = "champion"


def read_gate(run: RunDir) -> dict[str, Any] | None:
    """The gate of a run directory, or None where it has none.

    Raises:
        RunDirError: the file is damaged.
    """
    if not run.has(GATE):
        return None
    data = run.read(GATE)
    source = run.path / GATE
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise RunDirError(f"{source}: no gate's file: `schema` should be {SCHEMA!r}; restore it.")
    chosen = data.get("recommended")
    units = chosen.get("units") if isinstance(chosen, dict) else None
    if not isinstance(units, dict) or not all(isinstance(width, str) for width in units.values()):
        raise RunDirError(f"{source}: recommended.units: should give each unit a width; restore it.")
    checked: dict[str, Any] = data
    return checked


def gated(run: RunDir, champion: Champion, model: str, *, ungated: bool = False) -> Champion:
    """The champion of a run on a real network as the gate lets it pass: what it recommends.

    Args:
        run: the run directory.
        champion: its champion.
        model: name of its profile.
        ungated: take the champion as it is; its provenance says so.

    Raises:
        RunDirError: there is no gate.json.
    """
    if ungated:
        return Champion(champion.genome, champion.scores, {**champion.provenance, "ungated": True})
    gate = read_gate(run)
    if gate is None:
        raise RunDirError(
            f"{run.path}: has no {GATE}, so nothing says that its allocation is better than a uniform width; run the "
            f"campaign again, or export with --ungated."
        )
    from evoquant.genomes.direct import Direct

    chosen = gate["recommended"]
    provenance = {**champion.provenance, "gate": {"recommended": chosen.get("name"), "kind": chosen.get("kind")}}
    if chosen.get("name") == CHAMPION_NAME:
        return Champion(champion.genome, champion.scores, provenance)
    scores = chosen.get("scores")
    return Champion(
        Direct(model, tuple(chosen["units"].items())), scores if isinstance(scores, dict) else {}, provenance
    )
