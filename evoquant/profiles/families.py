"""Random families of models, for heuristics that are to hold on models they never saw.

family_profile("cnn", 17) → ModelProfile called `family/cnn/17`

A model is drawn from its kind and index alone: first a layout (`family_layouts`), then its figures
(`family_figures`), from stated ranges. Nothing of the seed suite enters them.
"""

from __future__ import annotations

import functools

from evoquant.errors import ProfileError, suggestion
from evoquant.profiles.draw import Draw
from evoquant.profiles.family_figures import draw_layers
from evoquant.profiles.family_layouts import LAYOUTS as FAMILIES
from evoquant.profiles.model import ModelProfile
from evoquant.rng import generator_for

__all__ = ["FAMILIES", "LARGEST_INDEX", "family_profile"]

LARGEST_INDEX = 999_999


@functools.cache
def family_profile(kind: str, index: int) -> ModelProfile:
    """Model number `index` of a family, with losses for INT2, INT4, INT8, FP16 and FP32.

    Raises:
        ProfileError: unknown kind, or an index outside 0 … 999999.
    """
    if kind not in FAMILIES:
        raise ProfileError(f"no family of models is called {kind!r}.{suggestion(kind, FAMILIES)}")
    if not 0 <= index <= LARGEST_INDEX:
        raise ProfileError(
            f"family/{kind}/{index}: models are numbered from 0 to {LARGEST_INDEX}; choose one of these."
        )
    draw = Draw(generator_for(index, 0, f"family {kind}"))
    layers = draw_layers(draw, FAMILIES[kind](draw))
    return ModelProfile(f"family/{kind}/{index}", layers, provenance={"family": kind, "index": index})
