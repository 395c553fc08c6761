"""A campaign on an ONNX network without labels, from the config to the gate."""

import json
import shutil

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from evoquant import api
from evoquant.campaign.config import load_config
from evoquant.campaign.config_files import file_digest
from evoquant.campaign.config_measured import source_of
from evoquant.cli.commands import app
from evoquant.errors import InputError
from evoquant.report.compare_runs import differing
from evoquant.scoring.objective import Cliff
from tests.optional_onnx.models import cnn

CONFIG = """
task: {kind: onnx, model: net.onnx, data: net.npz, metric: agreement, block: 75}
objective: {kind: cliff, threshold: 0.8}
genome: {kind: KIND}
search: {kind: genetic, population: 20, elites: 1}
stop: {passes: 8, generations: 100}
executor: {kind: local}
"""


@pytest.fixture
def folder(tmp_path):
    model, _ = cnn()
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "net.npz", x=np.random.default_rng(1).standard_normal((1200, 2, 6, 6)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("kind", ["direct", "rule", "tree"])
def test_agreement_is_kept_within_the_budget_and_gated(folder, kind):
    (folder / "net.yaml").write_text(CONFIG.replace("KIND", kind))
    run = api.run(folder / "net.yaml", out=folder / "run", overrides=[f"cache={folder}"]).path
    report = json.loads((run / "report.json").read_text())
    spent = report["budget"]["signal_passes"] + report["budget"]["search_passes"]
    assert 7 < spent <= 8
    assert report["champion"]["scores"]["gate"]["metric"]["name"] == "agreement"
    assert {row["kind"] for row in report["gate"]["rivals"]} >= {"uniform", "greedy", "optimum", "random", "shuffled"}


def test_an_allocation_is_scored(folder):
    layers = api.profile_network(
        source_of(onnx=str(folder / "net.onnx"), data=str(folder / "net.npz")), signals=["divergence"], cache=folder
    )[0].layers
    (folder / "a.json").write_text(json.dumps({layer.name: "INT8-channel" for layer in layers}))
    source = source_of(onnx=str(folder / "net.onnx"), data=str(folder / "net.npz"), metric="agreement")
    scored = api.score(folder / "a.json", source, Cliff(0.8), cache=folder)
    assert scored["gate"]["recommended"]["kind"] == "uniform" or scored["gate"]["recommended"]["name"] == "greedy"
    assert scored["scores"]["test"]["retention"] > 0.9


def test_a_metric_that_is_not_above_0_is_refused_before_the_search(folder):
    data = dict(np.load(folder / "net.npz"))
    targets = np.full((1200, 5), 50.0, np.float32) + np.random.default_rng(0).standard_normal((1200, 5), np.float32)
    np.savez(folder / "net.npz", targets=targets, **data)
    config = CONFIG.replace("metric: agreement", "metric: r2").replace("KIND", "direct")
    (folder / "net.yaml").write_text(config)
    with pytest.raises(InputError, match=r"net\.yaml: metric: r2 of the FP32 network .* is -\d.*above 0.*--agreement"):
        api.run(folder / "net.yaml", out=folder / "run", overrides=[f"cache={folder}", "signals=[divergence]"])
    assert not (folder / "run").exists()


def test_a_network_is_what_its_files_hold_and_is_found_where_they_lie_now(folder, tmp_path_factory, monkeypatch):
    place = folder / "here"
    place.mkdir()
    shutil.move(folder / "net.npz", place / "net.npz")
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, place / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (place / "net.yaml").write_text(CONFIG.replace("KIND", "direct"))
    first, _ = load_config(place / "net.yaml")
    run = api.run(place / "net.yaml", out=place / "run", overrides=[f"cache={folder}/cache"]).path
    whole = (run / "journal.jsonl").read_bytes()
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(place, moved)
    assert load_config(moved / "net.yaml")[0].hash() == first.hash()
    for name in ("champion.json", "report.json", "gate.json"):
        (moved / "run" / name).unlink()
    monkeypatch.chdir(moved)
    assert api.resume("run").fresh
    assert (moved / "run" / "journal.jsonl").read_bytes() == whole
    weights = bytearray((moved / "weights.bin").read_bytes())
    weights[-1] ^= 1  # the file that names it stays as it is
    (moved / "weights.bin").write_bytes(weights)
    changed, _ = load_config(moved / "net.yaml")
    assert changed.hash() != first.hash() and differing([first, changed]) == ["task.model"]
    (moved / "run" / "champion.json").unlink()
    with pytest.raises(InputError, match=r"here/net\.onnx: does not exist"):
        api.resume("run")


@pytest.mark.parametrize("where", ["../secret.bin", "ABSOLUTE"])
def test_weights_out_of_a_models_folder_are_not_read(folder, where):
    place = folder / "here"
    place.mkdir()
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, place / "net.onnx", save_as_external_data=True, location="secret.bin", size_threshold=0)
    shutil.move(place / "secret.bin", folder / "secret.bin")
    model = onnx.load(place / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = where.replace("ABSOLUTE", str(folder / "secret.bin"))
    onnx.save(model, place / "net.onnx")
    with pytest.raises(InputError, match=r"net\.onnx: names '.*secret\.bin' for its weights, out of its folder"):
        file_digest(str(place / "net.onnx"), model=True)
    shutil.move(folder / "net.npz", place / "net.npz")
    (place / "net.yaml").write_text(CONFIG.replace("KIND", "direct"))
    with pytest.raises(InputError, match=r"net\.onnx: its external data cannot be read"):
        api.run(place / "net.yaml", out=folder / "run", overrides=[f"cache={folder}"])


def test_pick_says_where_retention_does_not_tell_entries_apart(folder, capsys):
    (folder / "net.yaml").write_text(CONFIG.replace("KIND", "direct"))
    changes = [f"cache={folder}", "search={kind: nsga2, population: 12, floor: 0.2}", "racing.enabled=false"]
    run = api.run(folder / "net.yaml", out=folder / "run", overrides=changes).path
    archive = json.loads((run / "archive.json").read_text())
    entries = [entry["scores"]["calibration"] for entry in archive["entries"]]
    error = json.loads((run / "champion.json").read_text())["scores"]["calibration"]["standard_error"]
    best = max(entries, key=lambda scores: (scores["retention"], scores["compression"]))
    alike = [one for one in entries if one is not best and best["retention"] - one["retention"] < error]
    assert error > 0 and 0 < len(alike) < len(entries) - 1  # else the test tells nothing
    app(["pick", str(run), "--at-most", "1MB", "-o", str(folder / "mine.json")], standalone_mode=False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "standard error" in line]
    assert line.startswith(f"retention on calibration has a standard error of {error:.2%}: ")
    assert f"{len(alike)} other entr" in line or (len(alike) == 1 and "another entry" in line)
    assert f"{'at' if len(alike) == 1 else 'at up to'} {max(one['compression'] for one in alike):.3f}x" in line
    assert json.loads((folder / "mine.json").read_text())["provenance"]["warnings"] == [line]
    floor = best["retention"] - error / 2
    (said,) = api.pick(run, at_most="1MB", retention=floor).provenance["warnings"]
    assert said.endswith("may be below the limit")
    assert "warnings" not in api.pick(run, at_most="1MB", retention=0.0).provenance
    assert "warnings" not in api.pick(run, bits=32).provenance
