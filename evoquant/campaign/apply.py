"""Apply a heuristic to a model: what `apply` and the exporters share.

load_genome(name or file) → Genome      load_any_profile(name or file) → ModelProfile
allocation_rows(genome, profile, menu) → one row a layer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.champion import Champion, champion_from_dict, load_champion
from evoquant.campaign.storage import CHAMPION
from evoquant.campaign.storage_url import is_run, place_of
from evoquant.campaign.yaml_file import MAX_YAML_BYTES, parse_yaml
from evoquant.errors import GenomeError, quoted, suggestion
from evoquant.files import is_file, read_text
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.builtin import any_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import WIDTH_SIGNALS, compile_problem

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.genomes.base import Genome
    from evoquant.profiles.model import ModelProfile

__all__ = ["allocation_rows", "load_any_champion", "load_any_profile", "load_genome", "profile_menu"]

_SUFFIXES = (".json", ".yaml", ".yml")


def load_genome(name_or_path: str) -> Genome:
    """The heuristic of a run directory, a champion file (JSON or YAML), or the strategy of that name.

    Raises:
        InputError: there is none, or the file is no champion.
    """
    path = place_of(name_or_path)
    if is_run(path) or is_file(path) or path.suffix in _SUFFIXES:
        return load_any_champion(path).genome
    if name_or_path not in STRATEGIES:
        raise GenomeError(
            f"no champion file and no strategy is called {quoted(name_or_path)}.{suggestion(name_or_path, STRATEGIES)}"
        )
    return STRATEGIES[name_or_path]


def load_any_champion(path: Path) -> Champion:
    """The champion of a run directory, or of a JSON or YAML file.

    Raises:
        GenomeError: there is none, or the file is no champion.
    """
    if path.suffix in (".yaml", ".yml"):
        text = read_text(path, limit=MAX_YAML_BYTES, error=GenomeError)
        return champion_from_dict(parse_yaml(text, str(path), error=GenomeError), str(path))
    return load_champion(path / CHAMPION if is_run(path) else path)


def load_any_profile(name_or_path: str) -> ModelProfile:
    """The built-in profile of that name (`seed/train`), or that of a JSON file.

    Raises:
        ProfileError: neither.
    """
    return any_profile(name_or_path)


def profile_menu(profile: ModelProfile) -> Menu:
    """The widths that every layer of a profile knows something about, or the nominal ones where it knows none."""
    for kind in WIDTH_SIGNALS:
        common = set.intersection(*(set(getattr(layer, kind)) for layer in profile.layers))
        if common:
            return Menu.parse(sorted(common))
    return SEED_MENU


def allocation_rows(genome: Genome, profile: ModelProfile, menu: Menu) -> list[dict[str, Any]]:
    """One row a layer, in order: `layer`, `type`, `parameters`, `precision`, and `bits` with scales counted.

    Raises:
        InputError: the genome cannot be applied to this model, or not with this menu.
    """
    problem = compile_problem(profile, menu)
    widths = problem.unfold(genome.allocate(problem))
    precisions = {precision.name: precision for precision in menu}
    return [
        {
            "layer": layer.name,
            "type": layer.type,
            "parameters": layer.parameters,
            "precision": width,
            "bits": precisions[width].bits(layer.shape, layer.channel_axis),
        }
        for layer, width in zip(profile.layers, widths, strict=True)
    ]
