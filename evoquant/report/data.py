"""A run directory read back, and `report --json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from evoquant.campaign.archive import read_archive
from evoquant.campaign.champion import Champion, load_champion
from evoquant.campaign.config import CampaignConfig, config_from_dict
from evoquant.campaign.gate_file import read_gate
from evoquant.campaign.kept_tables import with_kept_tables
from evoquant.campaign.located import located
from evoquant.campaign.storage import CHAMPION, GATE, JOURNAL, RESOLVED, RunDir
from evoquant.campaign.storage_url import place_of
from evoquant.errors import RunDirError
from evoquant.files import parse_json
from evoquant.report.run_schema import check_champion, check_gate, check_line


class Records(Sequence[dict[str, Any]]):
    """The lines of a journal, each parsed when it is asked for: parsed, all together take ten times their room."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | Records:
        if isinstance(index, slice):
            return Records(self._lines[index])
        record: dict[str, Any] = json.loads(self._lines[index])
        return record


@dataclass(frozen=True)
class RunData:
    """A run directory's contents.

    Attributes:
        path: the folder.
        config: as resolved.
        config_hash: as journalled at the start.
        journal: one record a generation; read it once where that is enough, for each reading parses it anew.
        champion: None while the run is not finished.
        archive: what the search kept beside it, where it keeps any.
        gate: of a real network, once there is a champion.
    """

    path: Path
    config: CampaignConfig
    config_hash: str
    journal: Sequence[dict[str, Any]]
    champion: Champion | None
    archive: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None


def load_run(path: Path) -> RunData:
    """Read a run directory, finished or not; nothing in it is changed.

    Raises:
        RunDirError: it is none, or a file in it is damaged.
    """
    path = place_of(path)
    directory = RunDir.open(path, hold=False)
    resolved = directory.read(RESOLVED)
    if not isinstance(resolved, dict) or not isinstance(resolved.get("hash"), str):
        raise RunDirError(f"{path / RESOLVED}: should hold `hash` and `config`.")
    config = with_kept_tables(located(config_from_dict(resolved.get("config"), str(path / RESOLVED))), directory)
    lines = directory.journal()
    for number, line in enumerate(lines, 1):
        place = f"{path / JOURNAL}: line {number}"
        check_line(parse_json(line, place, error=RunDirError), place)
    champion = load_champion(path / CHAMPION) if directory.has(CHAMPION) else None
    if champion is not None:
        check_champion(champion.scores, champion.provenance, path / CHAMPION)
    gate = read_gate(directory)
    if gate is not None:
        check_gate(gate, path / GATE)
    return RunData(path, config, str(resolved["hash"]), Records(lines), champion, read_archive(directory), gate)


def report_data(run: RunData) -> dict[str, Any]:
    """What `evoquant report --json` prints; a key whose value is not known yet is left out.

    Raises:
        RunDirError: no generation is finished yet.
    """
    if not run.journal:
        raise RunDirError(f"{run.path}: no generation is finished yet; nothing to report.")
    last = run.journal[-1]
    data: dict[str, Any] = {"name": run.config.name, "finished": run.champion is not None}
    if run.champion is not None:
        data["champion"] = {
            "genome": run.champion.genome.to_dict(),
            "text": run.champion.genome.text,
            "scores": {split: dict(figures) for split, figures in run.champion.scores.items()},
        }
        if run.archive is not None:
            data["archive"] = {"of": run.archive["of"], "entries": len(run.archive["entries"])}
        for key in ("stopped", "budget", "finalist_passes", "warnings", "additivity"):
            if key in run.champion.provenance:
                data[key] = run.champion.provenance[key]
    if run.gate is not None:
        data["gate"] = run.gate
    elif run.config.task is not None and "passes" in last:
        data["best"] = last["champion"]
        data["passes"] = last["passes"]
    failures = sum(len(record["failures"]) for record in run.journal)
    return {
        **data,
        "generations": len(run.journal),
        "evaluations": last["evaluations"],
        "failures": failures,
        "seed": run.config.seed,
        "config_hash": run.config_hash,
    }
