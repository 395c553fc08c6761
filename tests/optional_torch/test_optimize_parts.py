"""`optimize` with parts of one's own: the same call goes on, and the result applies."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from evoquant import api
from evoquant.errors import InputError

sys.path.insert(0, str(Path(__file__).parent.parent / "campaign"))
import own_parts


def test_a_network_in_memory_is_searched_over_genomes_and_by_a_cost_of_ones_own(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.randn(60, 5)
    y = network(x).argmax(1)

    def call(**changed):
        parts = {"space": own_parts.HalvesSpace, "cost": own_parts.Nanoseconds(3), **changed}
        return api.optimize(network, (x, y), floor=0.5, budget=10, run_dir=tmp_path / "run", **parts)

    result = call()
    assert result.scores["test"]["cost"]["name"] == "nanoseconds"
    assert call().champion == result.champion
    assert isinstance(result.apply(), torch.nn.Sequential)
    with pytest.raises(InputError, match="cost"):
        call(cost=own_parts.Nanoseconds(4))
    with pytest.raises(InputError, match="leave search= and space= out"):
        api.optimize(network, (x, y), space=own_parts.HalvesSpace, start_from=result)
