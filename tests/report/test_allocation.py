import json

import pytest

from evoquant.errors import GenomeError, PrecisionError, ProfileError
from evoquant.genomes.strategies import STRATEGIES, strategy
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.allocation import (
    allocate,
    allocation_rows,
    allocation_table,
    load_any_profile,
    load_genome,
)

PLAIN = ModelProfile("plain", (LayerProfile("a|b", "Conv", (4, 8), 0.0), LayerProfile("c", "Linear", (5,), 1.0)))


def test_rows():
    rows = allocation_rows(strategy("position_aware"), seed_profile("test"), SEED_MENU)
    assert rows[0] == {"layer": "stem", "type": "Conv", "parameters": 9408, "precision": "FP16", "bits": 9408 * 16}
    assert [row["layer"] for row in rows] == [layer.name for layer in seed_profile("test").layers]


@pytest.mark.parametrize("name", STRATEGIES)
def test_totals_agree_with_the_rows(name):
    data = allocate(strategy(name), seed_profile("test"))
    assert data == json.loads(json.dumps(data))
    bits = sum(row["bits"] for row in data["layers"])
    parameters = sum(row["parameters"] for row in data["layers"])
    totals = data["totals"]
    assert totals["parameters"] == parameters
    assert totals["compression"] == pytest.approx(32 * parameters / bits)
    assert totals["effective_bits"] == pytest.approx(bits / parameters)
    kept = 1.0
    for layer, row in zip(seed_profile("test").layers, data["layers"], strict=True):
        kept *= 1.0 - layer.loss[row["precision"]]
    assert totals["retention"] == pytest.approx(kept)


def test_published_champion():
    data = allocate(load_genome("wider_fp16_zone"), load_any_profile("seed/test"))
    assert data["model"] == "seed/test"
    assert data["menu"] == list(SEED_MENU.names)
    assert data["heuristic"] == strategy("wider_fp16_zone").text
    assert data["totals"]["fitness"] == pytest.approx(3.827279, abs=5.1e-7)
    assert data["totals"]["retention"] == pytest.approx(0.998451, abs=5.1e-7)


def test_what_is_not_known_is_left_out():
    data = allocate(strategy("all_fp16"), PLAIN)
    assert data["totals"] == {"parameters": 37, "compression": 2.0, "effective_bits": 16.0}
    assert "retention is not known" in allocation_table(data).to_markdown()


def test_menu():
    data = allocate(strategy("uniform_int8"), PLAIN, [" INT8-channel", "FP16"])
    assert data["menu"] == ["INT8-channel", "FP16"]
    assert [row["bits"] for row in data["layers"]] == [4 * 8 * 8 + 4 * 16, 5 * 8 + 5 * 16]
    with pytest.raises(PrecisionError, match="has no INT8"):
        allocate(strategy("uniform_int8"), PLAIN, ["FP16"])


def test_table():
    table = allocation_table(allocate(strategy("wider_fp16_zone"), seed_profile("test")))
    assert len(table.rows) == 27
    assert table.rows[0] == ("stem", "Conv", "9,408", "FP32", "301,056")
    assert "3.827279" in table.notes[1]


def test_load_any_profile(tmp_path):
    path = tmp_path / "plain.json"
    path.write_text(profile_to_json(PLAIN))
    assert load_any_profile(str(path)) == PLAIN
    assert load_any_profile("seed/train").name == "seed/train"
    with pytest.raises(ProfileError, match="Did you mean 'seed/train'"):
        load_any_profile("seed/tran")
    with pytest.raises(ProfileError, match="does not exist"):
        load_any_profile(str(tmp_path / "missing.json"))
    with pytest.raises(GenomeError, match="no champion file and no strategy"):
        load_genome("nothing")
