"""The file that `evoquant init --mine` writes runs as it is."""

import pytest

from evoquant import api
from evoquant.campaign.config_measured import source_of
from evoquant.campaign.starter import starter

pytest.importorskip("torch")

MINE = """
import numpy as np
from torch import manual_seed, nn
from evoquant.models.torch_task import classification

def mine(seed=0):
    manual_seed(0)
    draw = np.random.default_rng(0)
    data = lambda n: (draw.normal(size=(n, 6)).astype(np.float32), draw.integers(0, 3, n))
    return classification(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
                          calibration=data(64), selection=data(64), test=data(32))
"""


def test_a_starter_for_a_network_of_ones_own_runs(tmp_path, monkeypatch):
    (tmp_path / "networks_of_init.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "evoquant.yaml"
    file.write_text(starter(file, source_of(torch="networks_of_init:mine")))
    small = ["stop.generations=2", "executor.kind=local", f"cache={tmp_path / 'cache'}"]
    assert api.run(file, out=tmp_path / "run", overrides=small).champion is not None
