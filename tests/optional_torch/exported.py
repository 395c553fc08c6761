"""Random allocations of a network, really exported: what is counted of their files beside what their readers count."""

from evoquant.campaign.build_measured import bare_profile
from evoquant.export.consumers.table import CONSUMERS
from evoquant.export.recipe import build_recipe
from evoquant.export.writers import SUFFIXES, WRITERS
from evoquant.models.deployable import deployable
from evoquant.profiles.targets import TARGETS
from evoquant.rng import generator_for
from evoquant.scoring.packed_bytes import PackedBytes


def counted_and_stored(task, menu, target, folder, number):
    """Widths, predicted and stored bytes of so many allocations; every layer has a width that the target takes."""
    ready, profile = deployable(task), bare_profile(task, menu)
    cost = PackedBytes(target)(profile, menu, [(i,) for i in range(len(profile.layers))])
    rng = generator_for(0, 0, f"bytes {target}")
    for index in range(number):
        fitting = [
            [p.name for p in menu if TARGETS[target].fault(layer, p) is None and layer.allows(p)]
            for layer in profile.layers
        ]
        widths = [names[rng.integers(len(names))] for names in fitting]
        recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
        files = WRITERS[target](recipe, ready, folder / f"{index}{SUFFIXES[target]}")
        counted = cost.constant + sum(int(cost.table[i, menu.names.index(w)]) for i, w in enumerate(widths))
        yield widths, counted, CONSUMERS[target].stored(files[0])
