"""The example task `llama`: the network is transformers' own, training repeats, what is exported computes the same."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evoquant.errors import MissingExtraError
from evoquant.models import torch_worth
from evoquant.models.arrays import pack_arrays
from evoquant.models.base import SPLITS, Request
from evoquant.models.deployable import deployable
from evoquant.models.hf import require_transformers
from evoquant.models.measurer import start_measurer
from evoquant.models.networks import build_network
from evoquant.models.tasks import char_lm, llama, load_task, training
from evoquant.models.tasks.training import train
from evoquant.quantization.precision import Menu

SHORT = replace(llama.TRAINING, epochs=2)
WINDOWS = 240
WIDTHS = ("INT4-g32", "INT8-g32", "FP32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(cache):
    """As users get it, but trained on few windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama, "TRAINING", SHORT)
        patch.setattr(llama, "TRAINING_WINDOWS", WINDOWS)
        return load_task("llama", 0, cache)


@pytest.fixture(scope="module")
def ready(task):
    """Exported to ONNX once, for every target."""
    return deployable(task)


def state_of(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def logits(network, tokens):
    with torch.inference_mode():
        return network(torch.from_numpy(tokens)).logits


def perplexity(network, data):
    found = logits(network, data["inputs"]).flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(found, torch.from_numpy(data["targets"]).flatten()).exp())


def precision_of(layer):
    """A width that the target of a test takes there: norms stay in FP32, what is tied shares one."""
    if layer.type == "LayerNorm":
        return "FP32"
    return "INT8-g32" if layer.type == "Attention" else "INT4-g32"


def test_the_network_is_that_of_transformers(task):
    from transformers import LlamaForCausalLM

    tokens = task.data["test"]["inputs"][:4]
    own = LlamaForCausalLM(task.network.config).eval()
    own.load_state_dict(task.network.state_dict())
    assert type(task.network) is LlamaForCausalLM
    assert torch.equal(logits(task.network, tokens), logits(own, tokens))
    config = task.network.config
    assert (config.architectures, config._attn_implementation) == (["LlamaForCausalLM"], "eager")
    assert (config.bos_token_id, config.eos_token_id, config.use_cache) == (1, 2, False)
    assert task.network.lm_head.weight is not task.network.model.embed_tokens.weight


def test_building_gives_the_same_outputs_and_draws_nothing(task):
    tokens, before = task.data["test"]["inputs"][:4], torch.get_rng_state()
    networks = [build_network(llama.ARCHITECTURE, state_of(task.network)) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    for network in networks:
        assert not network.training
        assert torch.equal(logits(network, tokens), logits(task.network, tokens))


SCRIPT = """
import json, sys
import numpy as np
from pathlib import Path
from evoquant.models.arrays import unpack_arrays
from evoquant.models.networks import build_network
import torch
architecture, weights, tokens, outputs = sys.argv[1:]
torch.set_num_threads(1)
network = build_network(json.loads(architecture), unpack_arrays(Path(weights).read_bytes(), weights))
assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))
with torch.inference_mode():
    np.save(outputs, network(torch.from_numpy(np.load(tokens))).logits.numpy())
"""


def test_another_process_builds_the_same_network_in_silence(task, tmp_path):
    tokens = task.data["test"]["inputs"][:4]
    (tmp_path / "weights.npz").write_bytes(pack_arrays(state_of(task.network)))
    np.save(tmp_path / "tokens.npy", tokens)
    paths = [tmp_path / "weights.npz", tmp_path / "tokens.npy", tmp_path / "logits.npy"]
    command = [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(llama.ARCHITECTURE), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.testing.assert_allclose(np.load(paths[-1]), logits(task.network, tokens).numpy(), rtol=0, atol=1e-5)


def test_the_layers_that_take_a_width(task):
    blocks = range(llama.ARCHITECTURE["depth"])
    assert len(task.layers) == 3 + 9 * len(blocks)
    assert {layer.parameter for layer in task.found} == {name for name, _ in task.network.named_parameters()}
    types = {layer.name: layer.type for layer in task.found}
    assert (types["model.embed_tokens"], types["lm_head"], types["model.norm"]) == (
        "Embedding",
        "Classifier",
        "LayerNorm",
    )
    tied = {}
    for layer in task.found:
        if layer.tie_group:
            tied.setdefault(layer.tie_group, []).append(layer.name)
    for block in blocks:
        attention, mlp = f"model.layers.{block}.self_attn", f"model.layers.{block}.mlp"
        assert tied.pop(f"{attention}.q_proj+k_proj+v_proj") == [f"{attention}.{one}_proj" for one in "qkv"]
        assert tied.pop(f"{mlp}.gate_proj+up_proj") == [f"{mlp}.gate_proj", f"{mlp}.up_proj"]
        assert types[f"{attention}.o_proj"] == "Attention"
        assert types[f"{mlp}.down_proj"] == "Linear"
    assert not tied


def test_tokens_are_the_bytes_of_the_windows_of_char_lm(task):
    theirs = char_lm.cut_windows(char_lm.read_text(), 0)
    codes = np.array([ord(character) for character in char_lm.ALPHABET])
    for split in SPLITS:
        for part in ("inputs", "targets"):
            tokens = task.data[split][part]
            assert tokens.dtype == np.int64
            assert np.array_equal(tokens - llama.SPECIALS, codes[theirs[split][part]])
    assert (task.block, task.batch) == (80, 40)
    assert len(task.blocks("test")) == len(task.data["test"]["inputs"]) // 80 == 8


def test_training_learns_repeats_to_the_byte_and_is_kept(task, cache, monkeypatch):
    splits = char_lm.cut_windows(char_lm.read_bytes().astype(np.int64) + llama.SPECIALS, 0, WINDOWS)
    data = splits["train"]
    assert len(data["inputs"]) == WINDOWS
    again = train(llama.ARCHITECTURE, "language", SHORT, data["inputs"], data["targets"], 0)
    first = state_of(task.network)
    assert list(again) == list(first)
    assert all(again[name].tobytes() == first[name].tobytes() for name in first)
    untrained = build_network(llama.ARCHITECTURE, training._initial_weights(task.network, 0))
    assert perplexity(task.network, task.data["selection"]) < 0.1 * perplexity(untrained, task.data["selection"])
    monkeypatch.setattr(llama, "TRAINING", SHORT)
    monkeypatch.setattr(llama, "TRAINING_WINDOWS", WINDOWS)
    monkeypatch.setattr(training, "train", None)
    assert load_task("llama", 0, cache).model_digest == task.model_digest


def test_what_comes_after_is_not_seen(task):
    tokens = task.data["test"]["inputs"][:4]
    changed = tokens.copy()
    changed[:, 40:] = 0
    before, after = logits(task.network, tokens), logits(task.network, changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40:], after[:, 40:])


def test_a_worker_measures_what_is_exported(task, ready):
    """The measurer of plain data and the live network, each layer at its width."""
    widths = tuple(precision_of(layer) for layer in task.found)
    (measured,) = start_measurer(task.payload())([Request(widths, "test", 0)])
    (outputs,) = ready.outputs("test", 0, 80, widths)
    (reference,) = ready.outputs("test", 0, 80, ("FP32",) * len(widths))
    ours = ready.outcome("test", 0, 80, [outputs], reference)
    np.testing.assert_allclose(np.asarray(measured), np.asarray(ours), rtol=1e-5, atol=1e-6)
    assert np.abs(outputs - reference).max() > 0


def test_remembered_calls_give_every_bit(task, monkeypatch):
    monkeypatch.setattr(torch_worth, "TRIAL", 10**9)  # whatever it saves
    count = len(task.layers)
    starts = [("INT4-channel",) * k + ("INT8-channel",) * (count - k) for k in range(count, 0, -5)]
    ends = [("FP16",) * (count - k) + ("INT8-channel",) * k for k in range(0, count, 5)]
    requests = [Request(widths, "calibration", 0) for widths in (*starts, *ends, *starts[:2])]
    ours, plain = start_measurer(task.payload()), start_measurer(task.payload())
    plain._reuses = False
    for one, other in zip(ours(requests), plain(requests), strict=True):
        assert one.tobytes() == other.tobytes()
    assert ours._reuses and ours._reuse.hits > 20


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_exported_it_keeps_its_promise(task, ready, target):
    pytest.importorskip("onnx")
    pytest.importorskip("openvino" if target == "openvino" else "onnxruntime")
    from evoquant.export.recipe import build_recipe
    from evoquant.export.verify import verify_recipe
    from evoquant.export.writers import WRITERS

    profile = task.profile(Menu.parse(WIDTHS), lambda requests: [], ())
    widths = [precision_of(layer) for layer in task.found]
    recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
    found = verify_recipe(recipe, ready, target, WRITERS[target], task.metric, samples=40, repeats=0)
    assert found.faults == ()
    assert found.outputs.within_goal
    assert found.outputs.difference < 1e-5
    assert found.retention.samples == 40
    assert found.tokens.alike == len(found.tokens.measured)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"the task 'llama' needs transformers.*evoquant\[huggingface\]"):
        require_transformers("the task 'llama'")


def test_what_the_config_leaves_to_the_search(task):
    from evoquant.campaign.config import load_config
    from evoquant.profiles.targets import TARGETS

    config, _ = load_config(Path(__file__).parents[2] / "configs" / "llama.yaml")
    profile = task.profile(config.resolved_menu, lambda requests: [], ())
    for layer in profile.layers:
        left = {
            p.name for p in config.resolved_menu if not any(TARGETS[t].excludes(layer, p) for t in config.deploy_to)
        }
        expected = {"LayerNorm": {"FP32"}, "Embedding": {"INT8-g32", "FP32"}}.get(layer.type, set(WIDTHS))
        assert left == expected, layer.name
