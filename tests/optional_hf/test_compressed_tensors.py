"""compressed-tensors: transformers loads the measured weights bit for bit, at the promised size, and continues alike.

200 allocations: `EVOQUANT_LARGE=1 python -m pytest tests/optional_hf/test_compressed_tensors.py`.
"""

import json
import os
import re
import subprocess
import sys
from itertools import cycle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressed_tensors")
pytest.importorskip("transformers")

from evoquant.models.hf import require_transformers

require_transformers("these tests")

import transformers
from compressed_tensors.compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.utils.match import match_named_modules
from safetensors.torch import load_file

from evoquant.errors import InputError
from evoquant.export.as_compressed_tensors import compressed_tensors_files, patterns, stored_bytes
from evoquant.export.consumers import write_arrays
from evoquant.export.consumers.transformers_run import fault_of
from evoquant.export.recipe import build_recipe, read_recipe, write_recipe
from evoquant.models.deployable import deployable
from evoquant.models.torch_task import classification, language_model
from evoquant.quantization.precision import Menu, Precision
from evoquant.rng import generator_for

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 5
MATRICES = (
    *(f"INT{bits}-{part}" for bits in (2, 3, 4, 5, 6, 7, 8) for part in ("tensor", "channel", "g32")),
    *("FP8-tensor", "FP8-channel", "INT4-channel-mse", "INT2-g16-mse", "FP32"),
)
EMBEDDINGS = ("INT8-tensor", "INT8-channel", "INT8-g32", "FP8-tensor", "FP8-channel", "INT8-channel-mse", "FP32")
MIXED = ("INT2-g32", "INT3-channel", "INT4-g32", "INT4-channel", "INT8-tensor", "INT8-channel", "FP8-channel")
LLAMA = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "use_cache": False,
    "attn_implementation": "eager",
}
TOKENS = 3 + np.arange(12 * 64).reshape(12, 64) % 251


def seeded(kind, config, **options):
    """A network of transformers with random weights, far enough from zero that its outputs differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(config, **options).eval()
    return network


def language(kind, config):
    return language_model(seeded(kind, config), calibration=TOKENS, selection=TOKENS, test=TOKENS, block=4, batch=4)


def llama(tied=False, kind=transformers.LlamaForCausalLM):
    return language(kind, transformers.LlamaConfig(**LLAMA, tie_word_embeddings=tied))


def neox():
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    return language(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(**sizes, num_hidden_layers=2))


def bert():
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    config = transformers.BertConfig(**sizes, num_hidden_layers=2, num_labels=3, pad_token_id=0)
    data = (TOKENS[:, :32], np.arange(12) % 3)
    network = seeded(transformers.BertForSequenceClassification, config)
    return classification(network, calibration=data, selection=data, test=data, block=4, batch=4)


NETWORKS = {"llama": llama, "neox": neox, "bert": bert}


def built(task, widths):
    """The recipe, and the network ready for export; `widths`: layer → precision, or precisions in turn."""
    ready = deployable(task)
    profile = task.profile(Menu.parse(["FP32"]), lambda requests: [], ())
    chosen = [widths(layer) for layer in profile.layers]
    return build_recipe(profile, chosen, ready.weight, task.model_digest, {}, {}), ready


def exported(task, widths, path):
    recipe, ready = built(task, widths)
    return recipe, ready, compressed_tensors_files(recipe, ready, path)


def all_at(precision, embeddings="FP32"):
    """Every matrix at a precision."""

    def width(layer):
        if layer.type == "Embedding":
            return embeddings
        return precision if len(layer.shape) == 2 else "FP32"

    return width


def drawn(rng):
    """A random width for each layer, of those that it can have."""

    def width(layer):
        options = EMBEDDINGS if layer.type == "Embedding" else MATRICES
        fitting = [name for name in options if Precision.parse(name).fits(layer.shape, layer.channel_axis)]
        return fitting[rng.integers(len(fitting))] if len(layer.shape) == 2 else "FP32"

    return width


def mixed():
    """Every precision somewhere."""
    matrices = cycle(MIXED)

    def width(layer):
        if layer.type == "Embedding":
            return "INT8-channel"
        if layer.type == "Classifier":
            return "FP8-tensor"
        if len(layer.shape) == 1 or layer.name.endswith("layers.1.self_attn.o_proj"):
            return "FP32"
        return next(matrices)

    return width


def loaded(files):
    """The network as transformers loads it, expanded by its first pass."""
    config = json.loads(files[0].read_text("utf-8"))
    kind = getattr(transformers, config["architectures"][0])
    network = kind.from_pretrained(files[0].parent, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        network(torch.from_numpy(TOKENS[:1, :4]))
    return network


def run(network):
    with torch.inference_mode():
        return network(torch.from_numpy(TOKENS[:4, : 32 if "Bert" in type(network).__name__ else 64])).logits.numpy()


def expected(recipe, ready):
    return ready.outputs("test", 0, 4, tuple(layer.precision for layer in recipe.layers))[0]


def check_weights(network, recipe):
    """All weights bit for bit."""
    parameters = dict(network.named_parameters())
    for layer in recipe.layers:
        found = parameters[f"{layer.name}.weight"].detach().numpy()
        np.testing.assert_array_equal(found.view(np.uint32), recipe.values(layer).view(np.uint32), layer.name)


def check_codes(files, recipe):
    """The file holds the recipe's codes and scales, in FP16, and nothing else of these layers."""
    state = load_file(files[-1])
    for layer in recipe.layers:
        own = {name.removeprefix(f"{layer.name}."): t for name, t in state.items() if name.startswith(f"{layer.name}.")}
        if not layer.width.has_scales:
            assert own["weight"].dtype == torch.float32
            continue
        own.pop("bias", None)
        quantized = recipe.quantized(layer)
        scale = own.pop("weight_scale")
        assert scale.dtype == torch.float16
        np.testing.assert_array_equal(scale.numpy().reshape(-1), quantized.scales)
        if "weight_packed" in own:
            assert own.pop("weight_shape").tolist() == list(layer.shape)
            codes = unpack_from_int32(own.pop("weight_packed"), layer.width.code_bits, torch.Size(layer.shape))
        else:
            codes = own.pop("weight")
            codes = codes.view(torch.uint8) if codes.dtype == torch.float8_e4m3fn else codes
        assert not own
        np.testing.assert_array_equal(codes.numpy(), quantized.codes)
        assert codes.numpy().dtype == quantized.codes.dtype


def check(files, recipe, ready):
    network = loaded(files)
    check_codes(files, recipe)
    check_weights(network, recipe)
    outputs = expected(recipe, ready)
    assert np.abs(run(network) - outputs).max() < 1e-6 * np.abs(outputs).max()
    assert stored_bytes(files[0]) == pytest.approx(recipe.promise.bytes, rel=0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_allocations(name, tmp_path):
    task = NETWORKS[name]()
    rng = generator_for(0, 0, "allocations")
    for index in range(ALLOCATIONS):
        recipe, ready, files = exported(task, drawn(rng), tmp_path / str(index))
        check(files, recipe, ready)


@pytest.mark.parametrize("precision", [name for name in MATRICES if name != "FP32"])
def test_every_precision_alone(precision, tmp_path):
    recipe, ready, files = exported(llama(), all_at(precision), tmp_path / "m")
    check(files, recipe, ready)
    config = json.loads(files[0].read_text("utf-8"))["quantization_config"]
    assert config["format"] == ("float-quantized" if "FP8" in precision else "pack-quantized")
    assert len(config["config_groups"]) == 1
    assert config["ignore"] == ["model.embed_tokens"]


@pytest.mark.parametrize("precision", EMBEDDINGS)
def test_every_precision_of_embeddings(precision, tmp_path):
    recipe, ready, files = exported(llama(), all_at("INT8-channel", precision), tmp_path / "m")
    check(files, recipe, ready)
    assert (
        json.loads(files[0].read_text("utf-8"))["quantization_config"]["format"]
        == {
            "INT": "mixed-precision",  # matrices are packed, embeddings are not
            "FP8": "mixed-precision",
            "FP3": "pack-quantized",
        }[precision[:3]]
    )


def test_without_scales_it_is_an_ordinary_checkpoint(tmp_path):
    recipe, ready, files = exported(llama(), all_at("FP32"), tmp_path / "m")
    assert "quantization_config" not in json.loads(files[0].read_text("utf-8"))
    check(files, recipe, ready)


@pytest.mark.long  # `evoquant verify` does the same in a process of its own
def test_a_fresh_process_gives_the_outputs_and_goes_on_as_measured(tmp_path):
    task = llama()
    recipe, ready = built(task, mixed())
    widths = tuple(layer.precision for layer in recipe.layers)
    assert set(widths) == {*MIXED, "FP8-tensor", "FP32"}
    tokens = ready.generated("test", 8, 40, widths)
    ready.network("x").generation_config.eos_token_id = tokens[5]  # generation has to go on past it
    files = compressed_tensors_files(recipe, ready, tmp_path / "m")
    assert [file.name for file in files] == ["config.json", "generation_config.json", "model.safetensors"]
    assert sorted(file.name for file in files) == sorted(file.name for file in (tmp_path / "m").iterdir())

    write_arrays(tmp_path / "inputs.npz", [list(ready.feeds("test", 0, 4).values())])
    job = {"models": [["m", str(files[0])]], "inputs": str(tmp_path / "inputs.npz"), "folder": str(tmp_path / "run")}
    job |= {"names": list(ready.feeds("test", 0, 1)), "batches": 1, "outputs": ["logits"], "repeats": 0}
    job |= {"network": None, "generate": [8, 40]}
    (tmp_path / "run").mkdir()
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-P", "-m", "evoquant.export.consumers.transformers_run", str(tmp_path / "job.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "run" / "answer.json").read_text("utf-8"))
    with np.load(tmp_path / "run" / "m.npz") as outputs:
        found = outputs["0.0"]
    reference = expected(recipe, ready)
    assert found.dtype == np.float32
    assert np.abs(found - reference).max() < 1e-6 * np.abs(reference).max()
    assert answer["version"] == transformers.__version__
    assert answer["facts"]["m"] == {"schemes": 9, "tokens": tokens}
    assert len(tokens) == 40


def test_every_layer_is_targeted_or_ignored_once(tmp_path):
    task = llama()
    recipe, ready, files = exported(task, mixed(), tmp_path / "m")
    config = QuantizationConfig.model_validate(
        {k: v for k, v in json.loads(files[0].read_text("utf-8"))["quantization_config"].items() if k != "version"}
    )
    network = ready.network("x")
    held = {n for n, m in network.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))}
    named = [
        (name, group.weights)
        for group in config.config_groups.values()
        for name, _ in match_named_modules(network, group.targets)
    ]
    assert sorted([*(name for name, _ in named), *config.ignore]) == sorted(held)
    widths = {layer.name: layer.width for layer in recipe.layers}
    for name, weights in named:
        width = widths[name]
        assert (weights.num_bits, weights.strategy) == (width.code_bits, width.granularity), name
        assert (weights.group_size or 0) == width.group_size
        assert weights.type == ("float" if width.format == "FP8" else "int")
    assert config.ignore == [name for name in held if not widths[name].has_scales]
    assert len(config.config_groups) == 9  # INT8-channel twice: matrices are packed, the embedding is not


def test_patterns_match_their_names_alone():
    names = [f"model.layers.{i}.{part}" for i in range(12) for part in ("attn.q", "attn.k", "mlp.up")]
    names += ["lm_head", "lm+head", "head.0", "0.up", "experts.1.2.w", "model.layers.1.attn.q.0"]
    rng = generator_for(0, 0, "names")
    for _ in range(50):
        chosen = [name for name in names if rng.random() < 0.5]
        found = [name for name in names for p in patterns(chosen) if re.match(p.removeprefix("re:"), name)]
        assert sorted(found) == sorted(chosen)
    q_and_k = [name for name in names[:9] if "attn" in name]
    assert patterns(q_and_k) == [r"re:^model\.layers\.(0|1|2)\.attn\.(q|k)$"]
    assert patterns(["lm_head"]) == ["re:^lm_head$"]


def test_the_same_bytes_again_also_from_the_recipe_file(tmp_path):
    task = llama()
    recipe, ready, first = exported(task, all_at("INT4-g32"), tmp_path / "a")
    write_recipe(recipe, tmp_path / "recipe.json")
    second = compressed_tensors_files(read_recipe(tmp_path / "recipe.json"), ready, tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").write_text("x")
    with pytest.raises(InputError, match="m: is there already"):
        exported(llama(), all_at("INT8-channel"), tmp_path / "m")
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert [file.name for file in (tmp_path / "m").iterdir()] == ["mine"]


class Own(transformers.LlamaForCausalLM):
    """Somebody's own class."""


def test_networks_of_somebodys_own_are_refused(tmp_path):
    with pytest.raises(InputError, match="transformers has no Own of its own"):
        exported(llama(kind=Own), all_at("INT8-channel"), tmp_path / "m")
    plain = torch.nn.Sequential(torch.nn.Embedding(300, 8), torch.nn.Linear(8, 300))
    task = language_model(plain, calibration=TOKENS, selection=TOKENS, test=TOKENS, block=4, batch=4)
    with pytest.raises(InputError, match="compressed-tensors takes networks of transformers"):
        exported(task, all_at("INT8-channel"), tmp_path / "m")


def test_onnx_networks_are_refused(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from evoquant.models.onnx_task import load_onnx_task
    from tests.optional_onnx.models import MODELS

    model, data = MODELS["cnn"]()
    task = load_onnx_task(model.SerializeToString(), data, name="cnn", block=8, batch=4)
    with pytest.raises(InputError, match="compressed-tensors takes PyTorch networks"):
        exported(task, lambda layer: "FP32", tmp_path / "m")


@pytest.mark.parametrize("precision", ["INT8-channel", "FP8-channel"])
def test_quantized_tied_embeddings_are_refused_and_others_load(precision, tmp_path):
    task = llama(tied=True)
    with pytest.raises(InputError, match=r"several modules hold \(tied\) .* choose FP32, or untie them"):
        exported(task, all_at("INT4-g32", precision), tmp_path / "m")
    assert not list(tmp_path.iterdir())
    recipe, ready, files = exported(task, all_at("INT4-g32"), tmp_path / "m")
    check(files, recipe, ready)


@pytest.mark.parametrize(
    ("matrices", "embeddings", "message"),
    [
        ("INT8-channel", "INT4-channel", "layer 'model.embed_tokens' at INT4-channel: .*; choose INT8-channel"),
        ("INT4-g32-asym", "FP32", "zero points are not taken; choose INT4-g32"),
        ("FP16", "FP32", "unquantized layers share the model's one type; choose FP32"),
        ("FP8-g32", "FP32", "has no FP8 by group; choose FP8-tensor or FP8-channel"),
        ("NF4-channel", "FP32", "compressed-tensors has no NF4"),
    ],
)
def test_precisions_that_it_lacks_are_refused(matrices, embeddings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        exported(llama(), all_at(matrices, embeddings), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_layers_that_are_no_modules_of_their_own_are_refused(tmp_path):
    sizes = {"vocab_size": 300, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64}
    task = language(transformers.GPT2LMHeadModel, transformers.GPT2Config(**sizes, tie_word_embeddings=False))
    with pytest.raises(InputError, match=r"layer 'transformer\.h\.0\.\S+'"):  # of Conv1D, whose weight is transposed
        exported(task, all_at("INT8-channel"), tmp_path / "m")


def test_releases_that_read_mixed_recipes_wrongly_are_refused():
    assert fault_of("5.22.0", 3) is None
    assert fault_of("5.23.0", 1) is None
    assert "decodes mixed recipes wrongly" in fault_of("5.23.0", 2)


def test_damaged_checkpoints_are_said(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(InputError, match=r"model\.safetensors: no weights of a checkpoint"):
        stored_bytes(tmp_path / "config.json")
