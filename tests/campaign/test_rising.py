"""A campaign that picks Ray goes on here until Ray is there; nothing but the time shows it."""

import json
import threading
from pathlib import Path

from evoquant import api
from evoquant.campaign import loop
from evoquant.campaign.storage import JOURNAL, TIMINGS
from evoquant.execution import rising
from evoquant.execution.local import LocalExecutor

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
SMALL = ["stop.generations=5", "search.population=20"]


class Later(LocalExecutor):
    """Stands in for Ray."""

    name = "ray"
    go = threading.Event()

    def start(self, factory, payload, limit_s=None):
        assert self.go.wait(20)
        super().start(factory, payload, limit_s)


class Watcher:
    """Lets it be there after the third generation."""

    def __init__(self):
        self.made = []

    def message(self, text):
        pass

    def generation(self, progress):
        if progress.generation == 2:
            Later.go.set()
            assert self.made[0]._started.wait(20)


def test_the_search_goes_on_while_ray_starts_and_moves_there(tmp_path, monkeypatch):
    api.run(CONFIG, out=tmp_path / "local", overrides=[*SMALL, "executor.kind=local"])
    watcher = Watcher()

    class Seen(rising.Rising):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            watcher.made.append(self)

    monkeypatch.setattr(rising, "Rising", Seen)
    monkeypatch.setattr(loop, "auto_choice", lambda *_: ("ray", "asked to"))
    monkeypatch.setattr(loop, "make_executor", lambda *_: Later())
    api.run(CONFIG, out=tmp_path / "auto", overrides=[*SMALL, "executor.kind=auto"], observer=watcher)
    assert (tmp_path / "auto" / JOURNAL).read_bytes() == (tmp_path / "local" / JOURNAL).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "auto" / TIMINGS).read_text().splitlines()]
    assert [line["executor"] for line in lines if "executor" in line] == ["local"] * 3 + ["ray"] * 2
    assert not watcher.made[0]._thread.is_alive(), "the run should close what it started"
