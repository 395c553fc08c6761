"""Faults are tried a few times by default; the marker `long` tries them as often as results/reliability.md says."""

import json
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--rows", type=Path, help="append what the long tests found to this file, one JSON line each")


@pytest.fixture
def record(request):
    """Notes a row of results/reliability.md: `record(topic, what, tried=…, held=…, **more)`."""

    def note(topic, what, *, tried, held, **more):
        rows = request.config.getoption("--rows")
        if rows is not None:
            row = {"file": request.path.stem, "topic": topic, "what": what, "tried": tried, "held": held, **more}
            with rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")

    return note


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    from .crash import servers_in

    with servers_in(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(servers, tmp_path_factory):
    from .crash import undisturbed_in

    return undisturbed_in(servers, tmp_path_factory)
