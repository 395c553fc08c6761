"""GGUF: the file has the measured weights bit for bit, at the promised size, and llama.cpp gives the network's outputs.

200 allocations: `EVOQUANT_LARGE=1 python -m pytest tests/optional_gguf`.
"""

import dataclasses
import importlib.util
import os
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from evoquant.models.hf import require_transformers

require_transformers("these tests")

import transformers
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from evoquant.errors import InputError
from evoquant.export import as_gguf
from evoquant.export.as_gguf import gguf_files, stored_bytes
from evoquant.export.gguf_blocks import permuted, q4_0, q8_0
from evoquant.export.recipe import build_recipe
from evoquant.models.deployable import deployable
from evoquant.models.torch_task import classification, language_model
from evoquant.profiles.llama_names import gguf_name, hf_name
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for

xllamacpp = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 4
MATRICES = ("INT4-g32", "INT8-g32", "FP16", "BF16", "FP32")
ALL = Menu.parse([*MATRICES, "INT4-g64", "INT8-channel", "INT4-g32-asym", "INT6-g32", "FP8-channel", "INT8-g32-a8"])
SAMPLES, LENGTH = 3, 24

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "use_cache": False,
    "attn_implementation": "eager",
}
KINDS = {
    "llama": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "wide_heads": ("Llama", {"head_dim": 32, "num_key_value_heads": 4, "rope_theta": 50000.0, "rms_norm_eps": 1e-5}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {}),
    "few_tokens": ("Llama", {"vocab_size": 96}),
}


@cache
def task(kind="llama", **changes):
    family, options = KINDS[kind]
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **options, **changes})
    network = getattr(transformers, f"{family}ForCausalLM")(config)
    rng = generator_for(7, 0, kind)
    with torch.no_grad():  # far from uniform probabilities, and vectors that are not all ones
        for parameter in network.parameters():
            draws = rng.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(draws * 0.15 if parameter.ndim > 1 else 1 + 0.2 * draws))
    tokens = rng.integers(0, min(320, config.vocab_size), (3 * SAMPLES, LENGTH))
    tokens[-1, 5:8] = [1, 2, 0]  # what begins and ends texts, in the middle of one
    parts = np.split(tokens, 3)
    return language_model(network, calibration=parts[0], selection=parts[1], test=parts[2], name=kind)


@cache
def opened(kind="llama", **changes):
    """What is deployed, and its profile."""
    found = task(kind, **changes)
    return deployable(found), found.profile(ALL, lambda requests: [], ())


def recipe_of(widths, kind="llama", **changes):
    ready, profile = opened(kind, **changes)
    return build_recipe(profile, widths, ready.weight, "digest", {}, {})


def uniform(precision, kind="llama", **changes):
    """One precision for all matrices."""
    _, profile = opened(kind, **changes)
    return recipe_of(["FP32" if len(layer.shape) == 1 else precision for layer in profile.layers], kind, **changes)


def drawn(number, kind="llama"):
    _, profile = opened(kind)
    rng = generator_for(number, 0, "allocation")
    widths = [MATRICES[rng.integers(len(MATRICES))] for _ in profile.layers]
    return recipe_of(
        ["FP32" if len(layer.shape) == 1 else w for layer, w in zip(profile.layers, widths, strict=True)], kind
    )


def written(recipe, folder, kind="llama", base=None):
    return gguf_files(recipe, opened(kind)[0], folder / "m.gguf", base)


def order_of(name, values, kind="llama"):
    """The values in llama.cpp's order, computed as its converter does."""
    config = task(kind).network.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def check_weights(recipe, path, kind="llama"):
    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    assert len(found) == len(recipe.layers)
    for layer in recipe.layers:
        name = gguf_name(layer.name)
        tensor = found[name]
        values = quants.dequantize(tensor.data, tensor.tensor_type).reshape(layer.shape)
        due = order_of(name, recipe.values(layer), kind)
        assert values.tobytes() == due.tobytes(), name


def loaded(path, folder):
    from evoquant.export.consumers.llamacpp_run import load

    folder.mkdir()
    return load(path, {"names": ["inputs"], "outputs": ["outputs"]}, folder)


def log_softmax(logits):
    return torch.log_softmax(torch.from_numpy(logits), -1).numpy()


def measured(recipe, kind="llama"):
    ready, _ = opened(kind)
    (logits,) = ready.outputs("test", 0, SAMPLES, tuple(layer.precision for layer in recipe.layers))
    return log_softmax(logits)


def run_by_llamacpp(path, folder, kind="llama"):
    one = loaded(path, folder)
    (found,) = one.run(opened(kind)[0].feeds("test", 0, SAMPLES))
    assert found.shape == (SAMPLES, LENGTH, task(kind).network.config.vocab_size)
    assert found.dtype == np.float32
    return one, found


def difference(found, due):
    return float(np.abs(found - due).max() / np.abs(due).max())


def test_names_go_both_ways():
    assert gguf_name("model.layers.12.self_attn.q_proj") == "blk.12.attn_q.weight"
    assert hf_name("blk.3.ffn_norm.weight") == "model.layers.3.post_attention_layernorm"
    for layer in recipe_of(["FP32"] * len(opened()[1].layers)).layers:
        assert hf_name(gguf_name(layer.name)) == layer.name
    for name in ("model.layers.01.mlp.up_proj", "layers.0.mlp.up_proj", "model.layers.0.mlp", "lm_head.weight", ""):
        assert gguf_name(name) is None
    for name in ("blk.0.attn_q", "blk.0.attn_q.bias", "rope_freqs.weight", "blk.x.attn_q.weight", ""):
        assert hf_name(name) is None


@pytest.mark.parametrize(("kind", "pack", "top"), [("Q8_0", q8_0, 127), ("Q4_0", q4_0, 7)])
def test_blocks_are_what_ggufs_own_decoder_reads(kind, pack, top):
    rng = generator_for(0, 0, kind)
    codes = rng.integers(-top, top + 1, (6, 96), dtype=np.int8)
    codes[0, :4] = [-top, top, 0, -1]
    scales = rng.uniform(1e-7, 3, 6 * 3).astype(np.float16)
    blocks = pack(codes, scales)
    found = quants.dequantize(blocks, GGMLQuantizationType[kind])
    due = codes.astype(np.float32) * np.repeat(scales.astype(np.float32).reshape(6, 3), 32, axis=1)
    assert found.tobytes() == due.tobytes()
    parts = blocks.reshape(6 * 3, -1)
    assert parts[:, :2].tobytes() == scales.astype("<f2").tobytes()
    bits = parts[:, 2:]
    read = bits.view(np.int8) if kind == "Q8_0" else np.concatenate([bits & 15, bits >> 4], axis=1).astype(np.int8) - 8
    assert (read.reshape(codes.shape) == codes).all()


def test_rows_of_a_head_alternate_between_its_halves():
    rows = np.arange(16).reshape(8, 2)
    assert permuted(rows, 2)[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]


@pytest.mark.parametrize("number", range(ALLOCATIONS))
def test_each_weight_is_the_measured_one_at_the_promised_size(number, tmp_path):
    kind = ("llama", "tied", "wide_heads", "mistral")[number % 4]
    recipe = drawn(number, kind)
    path, types = written(recipe, tmp_path, kind)
    check_weights(recipe, path, kind)
    assert stored_bytes(path) == recipe.promise.bytes - recipe.constant_bits / 8  # angles are no weights in GGUF
    names = {"INT8-g32": "q8_0", "INT4-g32": "q4_0", "FP16": "f16", "BF16": "bf16", "FP32": "f32"}
    lines = types.read_text("utf-8").split()
    matrices = [layer for layer in recipe.layers if len(layer.shape) == 2]
    assert len(lines) == len(matrices)
    for line, layer in zip(lines, matrices, strict=True):
        assert line == f"^{gguf_name(layer.name).replace('.', chr(92) + '.')}$={names[layer.precision]}"


@xllamacpp
@pytest.mark.parametrize("kind", ["llama", "tied", "wide_heads", "mistral"])
def test_llamacpp_computes_the_network(kind, tmp_path):
    recipe = uniform("FP32", kind)
    one, found = run_by_llamacpp(written(recipe, tmp_path, kind)[0], tmp_path / "own", kind)
    due = measured(recipe, kind)
    assert difference(found, due) < 2e-5
    assert one.facts["types"] == ["F32"]
    assert np.allclose(np.exp(found).sum(-1), 1, atol=1e-4)
    tokens = opened(kind)[0].feeds("test", 0, 1)["inputs"][0]
    made = one.generate(tokens[:8].tolist(), 6)
    with torch.inference_mode():
        for place, token in enumerate(made):
            row = torch.tensor([[*tokens[:8].tolist(), *made[:place]]])
            assert token == int(task(kind).network(row).logits[0, -1].argmax())


@xllamacpp
@pytest.mark.parametrize("precision", ["INT8-g32", "INT4-g32", "FP16", "BF16"])
def test_llamacpp_rounds_activations_and_little_else(precision, tmp_path):
    recipe = uniform(precision)
    one, found = run_by_llamacpp(written(recipe, tmp_path)[0], tmp_path / "own")
    assert difference(found, measured(recipe)) < 0.02
    assert difference(found, measured(uniform("FP32"))) > difference(found, measured(recipe))
    assert one.facts["types"] == [{"INT8-g32": "Q8_0", "INT4-g32": "Q4_0"}.get(precision, precision.replace("P", ""))]


@xllamacpp
def test_samples_may_fill_the_context_and_no_more(tmp_path):
    recipe = uniform("FP32")
    path = written(recipe, tmp_path)[0]
    before = path.read_bytes()
    one = loaded(path, tmp_path / "own")
    rows = generator_for(0, 0, "rows").integers(3, 259, (1, 64))
    short, long = one.run({"inputs": rows[:, :4]})[0], one.run({"inputs": rows})[0]
    with torch.inference_mode():
        due = log_softmax(task().network(torch.from_numpy(rows)).logits.numpy())
    assert difference(long, due) < 2e-5
    assert np.abs(short - long[:, :4]).max() < 1e-3
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="samples of 65 tokens, and the model's context is 64"):
        one.run({"inputs": np.zeros((1, 65), dtype=np.int64)})


@xllamacpp
def test_what_has_no_probability_is_finite(tmp_path):
    from evoquant.export.consumers import LEAST_LOG

    sharp = task("few_tokens", vocab_size=320)
    with torch.no_grad():
        sharp.network.lm_head.weight.mul_(200)
    ready = deployable(sharp)
    profile = sharp.profile(ALL, lambda requests: [], ())
    recipe = build_recipe(profile, ["FP32"] * len(profile.layers), ready.weight, "digest", {}, {})
    (path, _) = gguf_files(recipe, ready, tmp_path / "m.gguf")
    feeds = ready.feeds("test", 0, 1)
    (found,) = loaded(path, tmp_path / "own").run(feeds)
    due = log_softmax(ready.outputs("test", 0, 1, ("FP32",) * len(recipe.layers))[0])
    assert due.min() < LEAST_LOG
    assert found.min() == LEAST_LOG
    assert np.abs(found - np.maximum(due, LEAST_LOG)).max() < 0.05


@xllamacpp
def test_a_fresh_process_runs_it(tmp_path):
    from evoquant.export.consumers import write_arrays
    from evoquant.export.consumers.launch import run_consumer
    from evoquant.export.consumers.table import consumer_of

    recipe = drawn(1)
    path, _ = written(recipe, tmp_path)
    feeds = opened()[0].feeds("test", 0, SAMPLES)
    write_arrays(tmp_path / "inputs.npz", [feeds.values()])
    answer = run_consumer(
        consumer_of("gguf"),
        {"deployed": path},
        tmp_path / "inputs.npz",
        list(feeds),
        1,
        ["outputs"],
        tmp_path / "run",
        generate=(8, 4),
    )
    assert answer.fault == ""
    with np.load(tmp_path / "run" / "deployed.npz") as arrays:
        assert difference(arrays["0.0"], measured(recipe)) < 0.02
    assert len(answer.facts["deployed"]["tokens"]) == 4


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="transformers wants accelerate for GGUF")
def test_transformers_reads_it(tmp_path):
    recipe = drawn(2)
    path, _ = written(recipe, tmp_path)
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    state = network.state_dict()
    for layer in recipe.layers:
        assert (state[f"{layer.name}.weight"].float().numpy() == recipe.values(layer)).all(), layer.name


def test_the_same_bytes_again_and_nothing_else(tmp_path):
    files = [written(drawn(3), tmp_path / part) for part in ("a", "b")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["m.gguf", "m.tensor-types.txt"]
    reader = GGUFReader(files[0][0])
    assert reader.fields["general.name"].contents() == "llama"
    assert "evoquant" in reader.fields["general.quantized_by"].contents()
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(set(tokens)) == 320
    assert tokens[3 + ord("A")] == "<0x41>"


def make_base(path, kind, *, kept=None, extra=None, alter=None, dtype=np.float16, settings=None, dtypes=None):
    """A file as llama.cpp's converter makes of the network: matrices in FP16, vectors and biases in FP32."""
    network = task(kind).network
    config = network.config
    architecture = "qwen2" if kind == "qwen2" else "llama"
    writer = GGUFWriter(path, architecture)
    writer.add_name("the base")
    writer.add_custom_alignment(64)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    values = {"attention.head_count": 4, "attention.head_count_kv": config.num_key_value_heads}
    adders = {int: writer.add_int32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
    for key, value in ({f"{architecture}.{key}": value for key, value in values.items()} | (settings or {})).items():
        add = writer.add_uint32 if isinstance(value, int) and value >= 0 else adders[type(value)]
        add(key, value)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(1)
    writer.add_tokenizer_model("llama")
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    tokens = [*tokens, b"caf\xc3\xa9", b"\xe2\x96\x81a", *(b"word%d" % i for i in range(320))][: config.vocab_size]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.5] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * 400][: len(tokens)])
    writer.add_array("own.numbers", [3, 1, 2])
    for name, value in network.state_dict().items():
        layer, _, last = name.rpartition(".")
        full = f"{gguf_name(layer).removesuffix('.weight')}.{last}"
        array = value.numpy()
        if kind != "qwen2" and last == "weight":
            array = order_of(full, array, kind)
        if alter == full:
            array = np.ascontiguousarray(array[::-1])
        if full != kept:
            writer.add_tensor(full, array.astype((dtypes or {}).get(full, dtype)) if array.ndim > 1 else array)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@xllamacpp
@pytest.mark.parametrize("precision", ["FP32", "INT8-g32"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_base_gives_vocabulary_settings_and_what_is_no_layer(kind, precision, tmp_path):
    base = make_base(tmp_path / "base.gguf", kind)
    recipe = uniform(precision, kind)
    path, _ = written(recipe, tmp_path, kind, base)
    ours, theirs = GGUFReader(path), GGUFReader(base)
    left = {"general.file_type", "GGUF.kv_count", "GGUF.version"}
    for key in theirs.fields.keys() - left:
        assert ours.fields[key].contents() == theirs.fields[key].contents(), key
        assert ours.fields[key].types == theirs.fields[key].types, key
    assert ours.fields.keys() - theirs.fields.keys() == {"general.quantized_by", "general.quantization_version"}
    assert "general.file_type" not in ours.fields
    assert [tensor.name for tensor in ours.tensors] == [tensor.name for tensor in theirs.tensors]
    _, found = run_by_llamacpp(path, tmp_path / "own", kind)
    assert difference(found, measured(recipe, kind)) < (2e-5 if precision == "FP32" else 0.02)


@xllamacpp
def test_a_base_is_how_few_tokens_are_written(tmp_path):
    base = make_base(tmp_path / "base.gguf", "few_tokens", dtype=np.float32)
    recipe = uniform("FP32", "few_tokens")
    _, found = run_by_llamacpp(written(recipe, tmp_path, "few_tokens", base)[0], tmp_path / "own", "few_tokens")
    assert difference(found, measured(recipe, "few_tokens")) < 2e-5


def test_what_a_base_has_besides_is_copied(tmp_path):
    more = {"rope_freqs.weight": np.linspace(1, 8, 8, dtype=np.float32)}
    base = make_base(tmp_path / "base.gguf", "llama", extra=more)
    path, _ = written(uniform("INT4-g32"), tmp_path, base=base)
    (found,) = [tensor for tensor in GGUFReader(path).tensors if tensor.name == "rope_freqs.weight"]
    assert found.data.tolist() == more["rope_freqs.weight"].tolist()


def test_bases_of_other_networks_are_refused(tmp_path):
    def refused(message, recipe=None, **options):
        base = make_base(tmp_path / "base.gguf", "llama", **options)
        with pytest.raises(InputError, match=message):
            written(recipe or uniform("FP16"), tmp_path, base=base)

    refused(r"base\.gguf: has no tensor 'blk\.1\.ffn_up\.weight' for layer 'model", kept="blk.1.ffn_up.weight")
    refused(r"tensor 'blk\.0\.ffn_up\.weight' holds other weights", alter="blk.0.ffn_up.weight")
    refused(r"tensor 'blk\.1\.attn_k\.weight' holds other weights", alter="blk.1.attn_k.weight")
    refused(r"is a part of a model; join the parts", settings={"split.count": 2})
    more = {"blk.2.attn_q.weight": np.zeros((64, 64), np.float32)}
    refused(r"its tensor 'blk\.2\.attn_q\.weight' is no layer of the recipe", extra=more)
    make_base(tmp_path / "base.gguf", "wide_heads")
    with pytest.raises(InputError, match=r"'blk\.0\.attn_q\.weight' is of shape \(128, 64\), layer '.*' of \(64, 64\)"):
        written(uniform("FP16"), tmp_path, base=tmp_path / "base.gguf")
    (tmp_path / "base.gguf").write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(InputError, match=r"base\.gguf: no GGUF file, or a damaged one"):
        written(uniform("FP16"), tmp_path, base=tmp_path / "base.gguf")
    with pytest.raises(InputError, match=r"nothing\.gguf: cannot be read: No such file"):
        written(uniform("FP16"), tmp_path, base=tmp_path / "nothing.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["base.gguf"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.attention.head_count", 0, r"'blk\.0\.attn_q\.weight' is of 0 heads, and it has 64 rows"),
        ("llama.attention.head_count", -4, "is of -4 heads"),
        ("llama.attention.head_count", 5, "is of 5 heads, and it has 64 rows"),
        ("llama.attention.head_count", 4.5, r"'llama\.attention\.head_count' is 4\.5, which is no number of heads"),
        ("llama.attention.head_count", "four", "is 'four', which is no number of heads"),
        ("llama.attention.head_count", ["four", "four"], r"is \['four', 'four'\], which is no number of heads"),
        ("llama.attention.head_count", [4], r"nothing of tensor 'blk\.1\.attn_q\.weight'"),
        ("llama.attention.head_count", [4, 0], r"'blk\.1\.attn_q\.weight' is of 0 heads"),
        ("llama.attention.head_count_kv", 0, r"'blk\.0\.attn_k\.weight' is of 0 heads, and it has 32 rows"),
        ("llama.attention.head_count_kv", "x" * 1000, r"is 'xxx.*…, which is no number of heads"),
        ("split.count", "x", r"its key 'split\.count' is 'x', which is no number of files"),
        ("split.count", 2.5, r"its key 'split\.count' is 2\.5, which is no number of files"),
        ("split.count", [2], r"its key 'split\.count' is \[2\], which is no number of files"),
    ],
)
def test_odd_settings_of_a_base_are_refused(key, value, message, tmp_path):
    base = make_base(tmp_path / "base.gguf", "llama", settings={key: value})
    with pytest.raises(InputError, match=rf"base\.gguf: .*{message}"):
        written(uniform("FP16"), tmp_path, base=base)
    assert [file.name for file in tmp_path.iterdir()] == ["base.gguf"]


def test_heads_of_a_base_may_stand_for_each_block(tmp_path):
    heads = {"llama.attention.head_count": [4, 4], "llama.attention.head_count_kv": [2, 2], "split.count": 1}
    base = make_base(tmp_path / "base.gguf", "llama", settings=heads)
    recipe = uniform("FP16")
    check_weights(recipe, written(recipe, tmp_path, base=base)[0])


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_a_base_of_types_that_cannot_be_compared_is_refused(dtype, tmp_path):
    base = make_base(tmp_path / "base.gguf", "llama", dtypes={"blk.0.attn_q.weight": dtype})
    with pytest.raises(InputError, match=r"base\.gguf: tensor 'blk\.0\.attn_q\.weight' is of type [IF]\d+, which"):
        written(uniform("FP16"), tmp_path, base=base)


@pytest.mark.parametrize("name", [5, "", b"\xff"])
def test_a_base_without_a_name_of_its_kind_is_refused(name, tmp_path):
    base = tmp_path / "base.gguf"
    key = struct.pack("<Q", 20) + b"general.architecture"
    if isinstance(name, int):
        key += struct.pack("<II", 4, name)
    else:
        text = name if isinstance(name, bytes) else name.encode()
        key += struct.pack("<IQ", 8, len(text)) + text
    base.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(64))
    with pytest.raises(InputError, match=r"base\.gguf: (does not say what model it is|its key .* is no text)"):
        written(uniform("FP16"), tmp_path, base=base)


def test_damaged_and_hostile_files_are_refused(tmp_path):
    path, _ = written(uniform("INT4-g32"), tmp_path)
    content = path.read_bytes()
    header = len(content) - stored_bytes(path)
    damaged = tmp_path / "damaged.gguf"
    for length in (0, 3, 20, 100, 5000, header - 100, header, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"damaged\.gguf: (no GGUF file, or a damaged one|cannot be read)"):
            stored_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged\.gguf: "):
            written(uniform("INT4-g32"), tmp_path / "out", base=damaged)
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 1 << 60)  # an array of 2^60 bytes
    damaged.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)
    with pytest.raises(InputError, match=r"damaged\.gguf: no GGUF file"):
        stored_bytes(damaged)
    damaged.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(InputError, match=r"damaged\.gguf: does not say what model it is"):
        written(uniform("INT4-g32"), tmp_path / "out", base=damaged)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("INT4-g64", r"layer 'model\.embed_tokens' at INT4-g64: GGUF has no INT4 by group; choose INT4-g32"),
        ("INT8-channel", "GGUF has no INT8 by channel; choose INT8-g32"),
        ("INT4-g32-asym", "zero points are not taken; choose INT4-g32"),
        ("INT6-g32", "no exact GGUF type holds INT6; choose INT8-g32"),
        ("FP8-channel", "no exact GGUF type holds FP8; choose INT8-channel"),
    ],
)
def test_precisions_without_a_type_are_refused(precision, message, tmp_path):
    with pytest.raises(InputError, match=message):
        written(uniform(precision), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rounded_inputs_and_vectors_in_16_bits_are_refused(tmp_path):
    layers = opened()[1].layers
    widths = ["INT8-g32-a8" if layer.name.endswith("up_proj") else "FP32" for layer in layers]
    with pytest.raises(InputError, match=r"at INT8-g32-a8: activations stay in floating point.*; choose INT8-g32"):
        written(recipe_of(widths), tmp_path)
    with pytest.raises(InputError, match=r"layer 'model\.norm' at FP16: .*; choose FP32"):
        written(recipe_of(["FP16" if layer.name == "model.norm" else "FP32" for layer in layers]), tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "qwen2",
            {},
            "of the types llama and mistral can be written, and this Qwen2ForCausalLM is of .*'qwen2'; .*--base",
        ),
        ("few_tokens", {}, "the network has 96 tokens, and a vocabulary of bytes takes 259; .*--base"),
        ("llama", {"attention_bias": True}, "LlamaForCausalLM has attention_bias on"),
        ("llama", {"mlp_bias": True}, "LlamaForCausalLM has mlp_bias on"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("mistral", {"sliding_window": 8}, "a sliding_window of 8"),
    ],
)
def test_networks_that_llamacpp_computes_otherwise_are_refused(kind, changes, message, tmp_path):
    recipe = uniform("FP16", kind, **changes)
    with pytest.raises(InputError, match=message):
        gguf_files(recipe, opened(kind, **changes)[0], tmp_path / "m.gguf")


def test_scaled_positions_are_refused(tmp_path):
    network = task("llama", max_position_embeddings=128).network
    ready, _ = opened("llama", max_position_embeddings=128)
    network.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(InputError, match=r"LlamaForCausalLM has rope_parameters .*linear"):
        gguf_files(uniform("FP16", max_position_embeddings=128), ready, tmp_path / "m.gguf")


def test_other_networks_and_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"m\.bin: a GGUF model is a \.gguf file; name it m\.gguf"):
        gguf_files(uniform("FP16"), opened()[0], tmp_path / "m.bin")
    rows = generator_for(0, 0, "rows").standard_normal((8, 32)).astype(np.float32)
    labels = np.arange(8) % 3
    plain = classification(
        torch.nn.Sequential(torch.nn.Linear(32, 3)),
        calibration=(rows, labels),
        selection=(rows, labels),
        test=(rows, labels),
    )
    profile = plain.profile(ALL, lambda requests: [], ())
    ready = deployable(plain)
    recipe = build_recipe(profile, ["FP16"], ready.weight, "digest", {}, {})
    with pytest.raises(InputError, match=r"layer '0' at FP16: llama\.cpp has no architecture with such a layer"):
        gguf_files(recipe, ready, tmp_path / "m.gguf")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        gguf_files(uniform("FP16"), opened()[0], tmp_path / "file" / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"m\.gguf: no GGUF file, or a damaged one"):
        stored_bytes(tmp_path / "m.gguf")


def test_the_linter_says_what_the_exporter_says(tmp_path):
    """A LlamaModel without a head, whose layers lie at its top."""
    model = transformers.LlamaModel(transformers.LlamaConfig(**SMALL))
    names = {name.removesuffix(".weight") for name in model.state_dict()}
    assert {"embed_tokens", "layers.0.mlp.up_proj", "norm"} <= names
    (first, *_) = recipe_of(["FP32"] * len(opened()[1].layers)).layers
    recipe = uniform("FP32")
    for name in (*names, "blk.0.attn_q", "model.layers.0.mlp.up_proj.weight", "text.model.norm", "model.layers.٣.norm"):
        layer = first.model_copy(update={"name": name})
        fault = TARGETS["gguf"].fault(layer, layer.width)
        assert fault is not None and "llama.cpp has no architecture" in fault, name
        with pytest.raises(InputError, match=r"llama\.cpp has no architecture with such a layer"):
            as_gguf.tensor_types(dataclasses.replace(recipe, layers=(layer,)))
    for layer in recipe.layers:
        assert TARGETS["gguf"].fault(layer, layer.width) is None


def test_a_layer_of_three_axes_is_refused():
    recipe = uniform("FP32")
    layer = recipe.layers[0].model_copy(update={"shape": (4, 8, 32)})
    with pytest.raises(InputError, match=r"of shape \(4, 8, 32\): a Llama has matrices and vectors alone"):
        as_gguf.tensor_types(dataclasses.replace(recipe, layers=(layer,)))


@pytest.mark.parametrize(
    ("tokens", "due"),
    [
        ({}, (1, 2)),
        ({"bos_token_id": 300, "eos_token_id": 301}, (300, 301)),
        ({"bos_token_id": None, "eos_token_id": [5, 6]}, (1, 2)),
        ({"bos_token_id": 2, "eos_token_id": 1}, (2, 1)),
    ],
)
def test_the_file_says_that_its_tokens_are_bytes_and_what_ends_texts(tokens, due, tmp_path):
    ready, _ = opened(**({"max_position_embeddings": 32} if tokens else {}))
    config = ready.network("gguf").config
    before = config.bos_token_id, config.eos_token_id
    try:
        for key, value in tokens.items():
            setattr(config, key, value)
        path, _ = gguf_files(uniform("FP32"), ready, tmp_path / "m.gguf")
    finally:
        config.bos_token_id, config.eos_token_id = before
    fields = GGUFReader(path).fields
    assert "3 to 258 the bytes" in fields["general.description"].contents()
    found = tuple(fields[f"tokenizer.ggml.{key}_token_id"].contents() for key in ("bos", "eos"))
    assert found == due
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [kinds[token] for token in due] == [3, 3]
    assert kinds[319] == 5


def test_tokens_outside_the_vocabulary_end_no_texts(tmp_path):
    ready, _ = opened("mistral")
    config = ready.network("gguf").config
    before = config.bos_token_id, config.eos_token_id
    try:
        config.bos_token_id, config.eos_token_id = 320, -1
        path, _ = gguf_files(uniform("FP32", "mistral"), ready, tmp_path / "m.gguf")
    finally:
        config.bos_token_id, config.eos_token_id = before
    fields = GGUFReader(path).fields
    assert [fields[f"tokenizer.ggml.{key}_token_id"].contents() for key in ("bos", "eos")] == [1, 2]


def test_a_name_that_is_no_text_is_escaped(tmp_path):
    recipe = dataclasses.replace(uniform("FP32"), model="\ud800x\n")
    path, _ = gguf_files(recipe, opened()[0], tmp_path / "m.gguf")
    assert GGUFReader(path).fields["general.name"].contents() == "\\ud800x\\n"


def test_where_writing_fails_nothing_new_is_left(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    recipe = uniform("FP16")
    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(InputError, match=r"m\.gguf: cannot be written: No space left"):
        written(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    before = [file.read_bytes() for file in written(recipe, tmp_path)]
    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(InputError, match="No space left"):
        written(uniform("INT8-g32"), tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("m.gguf", "m.tensor-types.txt")] == before


def test_where_one_file_cannot_take_its_place_no_mixed_pair_is_left(tmp_path, monkeypatch):
    place = os.replace

    def refuse(source, target):
        if Path(target).name == "m.gguf":
            raise OSError(5, "Input/output error")
        place(source, target)

    recipe = uniform("FP16")
    for old in (False, True):
        if old:
            written(recipe, tmp_path)
        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(InputError, match="Input/output error"):
            written(uniform("INT8-g32"), tmp_path)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()
    (tmp_path / "m.tensor-types.txt").mkdir()
    with pytest.raises(InputError, match=r"m\.gguf: cannot be written"):
        written(recipe, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.tensor-types.txt"]
