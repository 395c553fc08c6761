"""Other tools' recipes as allocations: read as those tools read them, refused where evoquant has nothing like it."""

import contextlib
import dataclasses
import json
import struct
import time

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.config_measured import source_of
from evoquant.campaign.imported import foreign_json
from evoquant.campaign.imported_gguf import _NAMES, TYPES, gguf_types
from evoquant.campaign.imported_layers import Site, sites
from evoquant.campaign.imported_patterns import Patterns
from evoquant.campaign.score import Unresolved, read_allocation
from evoquant.errors import InputError
from evoquant.quantization.precision import Precision
from evoquant.scoring.objective import Cliff
from tests.command import command

SITES = (
    Site("embed", ("Embedding",), (40, 64), 0),
    Site("blocks.0.norm", ("LayerNorm",), (64,), None),
    Site("blocks.0.up", ("Linear",), (96, 64), 0),
    Site("blocks.0.down", ("Linear",), (64, 96), 0),
    Site("blocks.1.up", ("Special", "Linear"), (96, 64), 0),
    Site("blocks.1.down", ("Linear",), (64, 96), 0),
    Site("conv", ("Conv1d", "_ConvNd"), (8, 64, 3), 0),
    Site("head", ("Linear",), (10, 64), 0),
)
INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
OFF = {"quantizer_name": "*", "enable": False}


def compressed(groups, **more):
    """`groups`: a list of (targets, weights) or (targets, weights, inputs)."""
    keys = ("targets", "weights", "input_activations")
    written = {f"group_{i}": dict(zip(keys, group, strict=False)) for i, group in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": written, "ignore": [], **more}


def entries(*pairs, start=(OFF,)):
    listed = [{"quantizer_name": name, "cfg": cfg} for name, cfg in pairs]
    return {"quant_cfg": [*start, *listed], "algorithm": "max"}


def widths_of(data, layers=SITES):
    recipe = foreign_json(json.loads(json.dumps(data)), "file.json")
    assert recipe is not None
    return recipe.resolve(layers)


# ---------------------------------------------------------------- compressed-tensors


@pytest.mark.parametrize(
    ("weights", "inputs", "width"),
    [
        (INT4, None, "INT4-g32"),
        ({**INT4, "symmetric": False}, None, "INT4-g32-asym"),
        ({"num_bits": 4, "group_size": 16}, None, "INT4-g16"),  # an int in groups, where nothing else is said
        ({"num_bits": 3, "group_size": -1}, None, "INT3-channel"),
        ({}, None, "INT8-tensor"),
        (INT8, TOKENS, "INT8-channel-a8"),
        ({**INT4, "symmetric": False}, TOKENS, "INT4-g32-asym-a8"),
        (FP8, None, "FP8-channel"),
        ({**FP8, "strategy": "TENSOR"}, None, "FP8-tensor"),
    ],
)
def test_arguments_of_compressed_tensors_become_our_names(weights, inputs, width):
    found = widths_of({"dtype": "bfloat16", "quantization_config": compressed([(["head"], weights, inputs)])})
    assert found.widths == {**dict.fromkeys((site.name for site in SITES), "BF16"), "head": width}
    assert "own codes and scales" in found.warnings[0]
    assert len(found.warnings) == 1


def test_a_bare_config_says_no_dtype_and_one_without_quantization_quantizes_nothing():
    bare = widths_of(compressed([(["Linear"], INT8)], ignore=["head", "embed", "lm_head"]))
    assert bare.widths["head"] == bare.widths["embed"] == "FP32"
    assert bare.widths["blocks.1.up"] == "INT8-channel", "a class that inherits from Linear is one"
    assert any("no dtype" in text for text in bare.warnings)
    assert "ignore: lm_head: no layer of this network" in bare.warnings, "and nothing is said of what is there"
    plain = widths_of({"architectures": ["X"], "model_type": "x", "text_config": {"dtype": "float16"}})
    assert set(plain.widths.values()) == {"FP16"}


CONFIGS = {
    "exact before regex before class": [(["Linear"], INT8), (["re:.*up$"], INT4), (["blocks.1.up"], FP8)],
    "regexes in alphabetical order": [(["re:blocks.*"], INT8), (["re:.*down"], FP8)],
    "anchored at the start alone": [(["re:up"], INT4), (["re:b"], INT8)],
    "a class of one's own": [(["Special"], INT4), (["Embedding"], FP8)],
    "norms are left alone": [(["re:blocks\\.0.*"], INT8)],
    "a group without weights": [(["blocks.0.up"], None), (["Linear"], INT8)],
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("ignore", [[], ["head", "re:.*1.*"], ["Linear"]])
def test_targets_count_as_in_compressed_tensors(case, ignore):
    torch, quantization = pytest.importorskip("torch"), pytest.importorskip("compressed_tensors.quantization")
    nn = torch.nn

    class Special(nn.Linear):
        pass

    def block(kind):
        return nn.ModuleDict({"norm": nn.LayerNorm(64), "up": kind(64, 96), "down": nn.Linear(96, 64)})

    network = nn.ModuleDict(
        {
            "embed": nn.Embedding(40, 64),
            "blocks": nn.ModuleList([block(nn.Linear), block(Special)]),
            "head": nn.Linear(64, 10),
        }
    )
    unmatched = {"anchored at the start alone": "re:up"}.get(case)
    config = quantization.QuantizationConfig.model_validate(compressed(CONFIGS[case], ignore=ignore))
    written = json.loads(config.model_dump_json())
    layers = [site for site in SITES if site.name != "conv"]
    if unmatched:
        with pytest.raises(InputError, match="'re:up' matches no layer"):
            widths_of(written, layers)
        del written["config_groups"]["group_0"]
        config = quantization.QuantizationConfig.model_validate(written)
    quantization.apply_quantization_config(network, config)
    found = widths_of(written, layers).widths
    for site in layers:
        scheme = getattr(network.get_submodule(site.name), "quantization_scheme", None)
        weights = None if scheme is None else scheme.weights
        width = Precision.parse(found[site.name])
        assert (weights is None) == (width.name == "FP32"), site.name
        if weights is not None:
            assert (weights.num_bits, weights.type) == (width.code_bits, "int" if width.is_integer else "float")
            assert (weights.strategy, weights.group_size or 0) == (width.granularity, width.group_size)


def test_groups_that_disagree_and_convolutions_are_said():
    found = widths_of(compressed([(["re:blocks.*"], INT8), (["re:.*down"], FP8), (["Conv1d"], INT8)]))
    assert found.widths["blocks.0.down"] == "FP8-channel"
    assert found.widths["conv"] == "INT8-channel"
    assert any(text.startswith("blocks.0.down, blocks.1.down: several groups") for text in found.warnings)
    assert any("leaves convolutions alone" in text for text in found.warnings)


DENSE = {"format": "dense", "global_sparsity": 0.001, "sparsity_structure": "unstructured", "ignore": [], "targets": []}


def test_a_dense_network_is_not_pruned_and_the_older_key_is_read():
    config = compressed([(["head"], INT8)])
    expected = widths_of({"dtype": "float16", "quantization_config": config})
    for more in ({}, {"sparsity_config": DENSE}, {"sparsity_config": {"format": "dense"}}, {"sparsity_config": {}}):
        assert widths_of({"dtype": "float16", "compression_config": {**config, **more}}) == expected
    for pruned in ({"format": "sparse-24-bitmask"}, {**DENSE, "sparsity_structure": "2:4"}, ["dense"], "dense"):
        with pytest.raises(InputError, match="sparsity_config: the network is pruned"):
            widths_of({**config, "sparsity_config": pruned})


# ---------------------------------------------------------------- ModelOpt

BLOCKS = {"num_bits": 4, "block_sizes": {"-1": 32}}
MODELOPT = {
    "later entries win": entries(("*weight_quantizer", BLOCKS), ("*.up.weight_quantizer", {"num_bits": 8, "axis": 0})),
    "whole replacement": entries(("*weight_quantizer", {"num_bits": 3, "axis": 0}), ("head.weight*", {"axis": None})),
    "floats": entries(("blocks.?.down.weight_quantizer", {"num_bits": [4, 3]}), ("head.w*", BLOCKS)),
    "only switched": {"quant_cfg": [OFF, {"quantizer_name": "[bh]*weight_quantizer", "enable": True}]},
    "by class": {
        "quant_cfg": [OFF, {"quantizer_name": "*weight_quantizer", "parent_class": "nn.Embedding", "cfg": BLOCKS}]
    },
    "older": {"quant_cfg": {"*": {"enable": False}, "nn.Linear": {"*weight_quantizer": {**BLOCKS, "enable": True}}}},
    "older default": {"quant_cfg": {"default": {"enable": False}, "*weight_quantizer": {"num_bits": 8, "axis": 0}}},
    "inputs": entries(
        ("blocks*weight_quantizer", {"num_bits": 8, "axis": 0}),
        ("blocks*input_quantizer", {"num_bits": 8, "block_sizes": {"-1": None, "type": "dynamic"}}),
    ),
}


@pytest.mark.parametrize("case", MODELOPT)
def test_quantizers_are_set_as_modelopt_sets_them(case):
    torch = pytest.importorskip("torch")
    quantize = quiet_modelopt()
    nn = torch.nn

    def block():
        return nn.ModuleDict({"norm": nn.LayerNorm(64), "up": nn.Linear(64, 96), "down": nn.Linear(96, 64)})

    blocks = nn.ModuleList([block(), block()])
    network = nn.ModuleDict({"embed": nn.Embedding(40, 64), "blocks": blocks, "head": nn.Linear(64, 10)})
    layers = [dataclasses.replace(site, classes=site.classes[-1:]) for site in SITES if site.name != "conv"]
    found = widths_of(MODELOPT[case], layers).widths
    quantize(network, MODELOPT[case])
    assert len(set(found.values())) > 1
    for site in layers:
        width, module = Precision.parse(found[site.name]), network.get_submodule(site.name)
        quantizer = getattr(module, "weight_quantizer", None)
        on = quantizer is not None and quantizer.is_enabled
        assert on == width.has_scales, site.name
        if on:
            assert quantizer.num_bits == (width.code_bits if width.is_integer else (4, 3)), site.name
            grouped = width.granularity == "group"
            assert quantizer.block_sizes == ({-1: width.group_size} if grouped else None)
            assert grouped or quantizer.axis == (0 if width.granularity == "channel" else None)
            assert module.input_quantizer.is_enabled == (width.activation_bits is not None)


def quiet_modelopt():
    """`mtq.quantize` of a config as JSON has it."""
    pytest.importorskip("modelopt")
    pytest.importorskip("requests")
    import contextlib
    import io
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import modelopt.torch.quantization as mtq

    def numbered(value):
        if isinstance(value, list):
            return tuple(value) if value and all(isinstance(item, int) for item in value) else [*map(numbered, value)]
        if isinstance(value, dict):
            return {int(key) if key == "-1" else key: numbered(item) for key, item in value.items()}
        return value

    def quantize(network, config):
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            mtq.quantize(network, numbered(config), forward_loop=None)

    return quantize


def test_static_inputs_and_algorithms_of_modelopt_are_said():
    both = {"num_bits": 8, "axis": 0}
    found = widths_of(
        {**entries(("*up.weight_quantizer", both), ("*up.input_quantizer", {"num_bits": 8})), "algorithm": "awq"}
    )
    assert found.widths["blocks.0.up"] == "INT8-channel-a8"
    assert any("one scale for all" in text for text in found.warnings)
    assert any("'awq'" in text for text in found.warnings)


STOCK_SITES = (
    Site("embed", ("Embedding",), (64, 128), 0),
    Site("blocks.0.norm", ("LayerNorm",), (128,), None),
    Site("blocks.0.up", ("Linear",), (256, 128), 0),
    Site("blocks.0.down", ("Linear",), (128, 256), 0),
    Site("lm_head", ("Linear",), (64, 128), 0),
)
STOCK_REASONS = ("quantizes them to INT8 alone", "of floats evoquant has", "scale_bits", "block_sizes: -1, -2", "twice")
STOCK = {
    "INT8_DEFAULT_CFG": "INT8-channel-a8",
    "INT8_SMOOTHQUANT_CFG": "INT8-channel-a8",
    "INT8_WEIGHT_ONLY_CFG": "INT8-channel",
    "INT4_AWQ_CFG": "INT4-g128",
    "INT4_BLOCKWISE_WEIGHT_ONLY_CFG": "INT4-g128",
}


def test_stock_configs_of_modelopt_are_read_or_refused_for_what_they_quantize():
    quiet_modelopt()
    import modelopt.torch.quantization as mtq

    read = {}
    for name in (name for name in dir(mtq) if name.endswith("_CFG")):
        try:
            read[name] = widths_of(getattr(mtq, name), STOCK_SITES)
        except InputError as error:
            nowhere = [part for part in ("experts", "moe", "mixer", "mlp", "o_proj") if f"{part}" in str(error)]
            assert any(reason in str(error) for reason in STOCK_REASONS) or (nowhere and "matches no" in str(error))
    for name, width in STOCK.items():
        linear = dict.fromkeys(("blocks.0.up", "blocks.0.down"), width)
        assert read.pop(name).widths == {**dict.fromkeys((site.name for site in STOCK_SITES), "FP32"), **linear}
    for name, found in read.items():
        assert "_KV_" in name, name
        assert any("attention's own products" in text for text in found.warnings), "and no other quantizer is named"


@pytest.mark.parametrize("name", [*STOCK, "FP8_KV_CFG"])
def test_stock_configs_set_the_quantizers_that_are_read(name):
    torch, quantize = pytest.importorskip("torch"), quiet_modelopt()
    import modelopt.torch.quantization as mtq

    nn = torch.nn
    block = nn.ModuleDict({"norm": nn.LayerNorm(128), "up": nn.Linear(128, 256), "down": nn.Linear(256, 128)})
    parts = {"embed": nn.Embedding(64, 128), "blocks": nn.ModuleList([block]), "lm_head": nn.Linear(128, 64)}
    network = nn.ModuleDict(parts)
    config = json.loads(json.dumps(getattr(mtq, name)))
    found = widths_of(config, STOCK_SITES).widths
    quantize(network, {**config, "algorithm": "max"})
    for site in STOCK_SITES:
        width, module = Precision.parse(found[site.name]), network.get_submodule(site.name)
        quantizer = getattr(module, "weight_quantizer", None)
        assert (quantizer is not None and quantizer.is_enabled) == width.has_scales, site.name
        if width.has_scales:
            assert quantizer.num_bits == width.code_bits
            assert module.input_quantizer.is_enabled == (width.activation_bits is not None)


def test_classes_that_are_switched_off_concern_no_layer_and_others_are_refused():
    off = [{"quantizer_name": "*", "parent_class": name, "enable": False} for name in ("nn.BatchNorm1d", "nn.LSTM")]
    lost = {"quantizer_name": "*", "parent_class": "nn.Lineer", "enable": False}
    head = {"quantizer_name": "head.weight_quantizer", "cfg": BLOCKS}
    plain, quiet, said = (widths_of({"quant_cfg": [OFF, *more, head]}) for more in ([], off, [lost]))
    assert plain == quiet
    assert plain.widths == said.widths
    assert "quant_cfg entry 2: parent_class 'nn.Lineer': not known, left out" in said.warnings
    older = {"*": {"enable": False}, "nn.BatchNorm2d": {"*": {"enable": False}}, "head.weight_quantizer": BLOCKS}
    assert widths_of({"quant_cfg": older}) == plain
    for more in ({"enable": True}, {"cfg": BLOCKS}):
        with pytest.raises(InputError, match=r"entry 2: parent_class 'nn\.BatchNorm1d' is not known"):
            widths_of({"quant_cfg": [OFF, {"quantizer_name": "*", "parent_class": "nn.BatchNorm1d", **more}]})


def test_what_names_nothing_is_refused_or_said():
    with pytest.raises(InputError, match=r"entry 2: '\*experts\*weight_quantizer' switches on, but matches no"):
        widths_of(entries(("*experts*weight_quantizer", BLOCKS)))
    off = [{"quantizer_name": name, "enable": False} for name in ("*lm_head*", "*router*", "output.*")]
    assert len(widths_of({"quant_cfg": [OFF, *off]}).warnings) == 2, "what is switched off need not be there"
    scoped = {"quantizer_name": "blocks*", "parent_class": "nn.Conv2d", "cfg": BLOCKS}
    assert (
        "quant_cfg entry 2: 'blocks*': no nn.Conv2d of this network" in widths_of({"quant_cfg": [OFF, scoped]}).warnings
    )
    attention = widths_of(entries(("*[kv]_bmm_quantizer", {"num_bits": [4, 3]})))
    assert any(text.startswith("'*[kv]_bmm_quantizer': attention's") for text in attention.warnings)
    stated_ = {"quant_algo": "FP8", "exclude_modules": ["head", "*.up", "lm_hed", "*router*"]}
    found = widths_of({"quantization": stated_})
    assert found.widths["head"] == found.widths["blocks.0.up"] == "FP32"
    assert "exclude_modules: lm_hed, *router*: no layer of this network" in found.warnings


def stated(**layers):
    algorithms = {"int4_awq": 32, "int8_wo": 0, "fp8": 0, "fp8_pc_pt": 0}
    return {
        f"{name}.{part}": value
        for name, kind in layers.items()
        for part, value in (("quantization", kind), ("awq_block_size", algorithms[kind]))
    }


def test_what_modelopt_checkpoints_state_is_read(tmp_path):
    pytest.importorskip("torch")
    quiet_modelopt()
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.export.quant_utils import process_layer_quant_config

    layers = {"blocks.0.up": "int4_awq", "blocks.0.down": "int8_wo", "head": "fp8", "blocks.1.up": "fp8_pc_pt"}
    expected = {
        "blocks.0.up": "INT4-g32",
        "blocks.0.down": "INT8-channel",
        "head": "FP8-tensor",
        "blocks.1.up": "FP8-channel",
    }
    mixed = {"producer": {"name": "modelopt"}, "quantization": process_layer_quant_config(stated(**layers))}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(mixed))
    config = {"torch_dtype": "bfloat16", "quantization_config": convert_hf_quant_config_format(mixed)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "config.json"):
        found = read_allocation(path).recipe.resolve(SITES)
        assert {name: width for name, width in found.widths.items() if width != "BF16"} == expected
    alone = read_allocation(tmp_path / "hf_quant_config.json").recipe.resolve(SITES)
    assert alone.widths["embed"] == "FP32"
    assert any("pre_quant_scale" in text for text in alone.warnings)
    uniform = process_layer_quant_config({**stated(**{"blocks.0.up": "int4_awq"}), "head.quantization": None})
    found = widths_of({"quantization": uniform})
    assert found.widths["blocks.1.down"] == "INT4-g32"
    assert found.widths["head"] == "FP32"


# ---------------------------------------------------------------- GGUF

LLAMA = {
    "model.embed_tokens": ("Embedding", (40, 256), "Q8_0"),
    "model.layers.0.input_layernorm": ("LlamaRMSNorm", (256,), "F32"),
    "model.layers.0.self_attn.q_proj": ("Linear", (256, 256), "Q4_0"),
    "model.layers.0.self_attn.k_proj": ("Linear", (128, 256), "Q4_1"),
    "model.layers.0.self_attn.v_proj": ("Linear", (128, 256), "Q6_K"),
    "model.layers.0.self_attn.o_proj": ("Linear", (256, 256), "Q5_0"),
    "model.layers.0.mlp.gate_proj": ("Linear", (512, 256), "Q5_1"),
    "model.layers.0.mlp.up_proj": ("Linear", (512, 256), "BF16"),
    "model.layers.0.mlp.down_proj": ("Linear", (256, 512), "F16"),
    "lm_head": ("Linear", (40, 256), "IQ4_NL"),
}
LLAMA_SITES = tuple(
    Site(name, (kind,), shape, 0 if len(shape) > 1 else None) for name, (kind, shape, _) in LLAMA.items()
)


def write_gguf(path, tensors, extra=()):
    """With gguf's own writer; `tensors`: name → (type, array), blocks of types that Python cannot make are zeros."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(50)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 50)
    writer.add_bool("a flag", True)
    for name, kind, values in [*tensors, *extra]:
        number = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        try:
            data = gguf.quants.quantize(values, number)
        except NotImplementedError:
            data = np.zeros((*values.shape[:-1], values.shape[-1] // block * size), np.uint8)
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_tensors(**types):
    from evoquant.profiles.llama_names import gguf_name

    rng = np.ones
    return [
        (gguf_name(name), types.get(name.rpartition(".")[2], kind), rng(shape, np.float32))
        for name, (_, shape, kind) in LLAMA.items()
    ]


def test_types_of_gguf_become_our_names(tmp_path):
    bias = [
        ("blk.0.attn_q.bias", "F32", np.ones(256, np.float32)),
        ("rope_freqs.weight", "F32", np.ones(8, np.float32)),
    ]
    path = write_gguf(tmp_path / "any.name", llama_tensors(), bias)
    found = read_allocation(path).recipe.resolve(LLAMA_SITES)
    assert found.widths == {
        "model.embed_tokens": "INT8-g32",
        "model.layers.0.input_layernorm": "FP32",
        "model.layers.0.self_attn.q_proj": "INT4-g32",
        "model.layers.0.self_attn.k_proj": "INT4-g32-asym",
        "model.layers.0.self_attn.v_proj": "INT6-g16",
        "model.layers.0.self_attn.o_proj": "INT5-g32",
        "model.layers.0.mlp.gate_proj": "INT5-g32-asym",
        "model.layers.0.mlp.up_proj": "BF16",
        "model.layers.0.mlp.down_proj": "FP16",
        "lm_head": "NF4-g32",
    }
    assert (
        "Q6_K (6.5625 bits) is measured as INT6-g16 (7 bits), the nearest: model.layers.0.self_attn.v_proj"
        in found.warnings
    )
    assert sum("is measured as" in text for text in found.warnings) == 2, "what is exact is not said to be near"


def test_the_table_of_types_is_that_of_gguf():
    gguf = pytest.importorskip("gguf")
    assert {name: i for i, name in enumerate(_NAMES) if not name.isdigit()} == {
        kind.name: int(kind) for kind in gguf.GGMLQuantizationType if int(kind) < len(_NAMES)
    }
    for name, kind in TYPES.items():
        assert (kind.block, kind.size) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        width = Precision.parse(kind.width)
        if kind.exact:
            assert width.effective_bits((256, 256), 0) == pytest.approx(kind.bits, abs=0.4), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_proj": "Q2_K"}, None),
        ({"q_proj": "TQ2_0"}, "'blk.0.attn_q.weight' is of type TQ2_0"),
        ({"q_proj": "NVFP4"}, "is of type NVFP4"),
    ],
)
def test_types_that_evoquant_has_nothing_like_are_refused(tmp_path, change, message):
    path = write_gguf(tmp_path / "m.gguf", llama_tensors(**change))
    if message is None:
        assert (
            read_allocation(path).recipe.resolve(LLAMA_SITES).widths["model.layers.0.self_attn.q_proj"]
            == "INT2-g16-asym"
        )
    else:
        with pytest.raises(InputError, match=message):
            read_allocation(path)


def test_a_gguf_file_of_another_network_is_refused(tmp_path):
    tensors = llama_tensors()
    cases = [
        ([*tensors, ("blk.1.attn_q.weight", "F32", np.ones((4, 4), np.float32))], r"no layer 'model\.layers\.1\.self"),
        ([*tensors, ("blk.0.ssm_in.weight", "F32", np.ones((4, 4), np.float32))], "ssm_in.*none of a Llama-like"),
        (tensors[:-1], "has no output.weight"),
        ([*tensors[:-1], ("output.weight", "F32", np.ones((40, 64), np.float32))], r"has the shape \(40, 64\)"),
    ]
    for i, (changed, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            gguf_types(write_gguf(tmp_path / f"{i}.gguf", changed)).resolve(LLAMA_SITES)
    tied = gguf_types(write_gguf(tmp_path / "tied.gguf", tensors[:-1])).resolve(LLAMA_SITES[:-1])
    assert "lm_head" not in tied.widths


def test_a_gguf_file_that_is_cut_anywhere_is_said_to_be_damaged(tmp_path):
    whole = write_gguf(tmp_path / "m.gguf", llama_tensors()).read_bytes()
    for length in [*range(4, 200), *range(200, len(whole), len(whole) // 60), len(whole) - 40]:
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged GGUF"):
            read_allocation(tmp_path / "cut.gguf")


def text(data):
    return struct.pack("<Q", len(data)) + data


HEAD = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
VALUE = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"a")
ONE = text(b"output.weight") + struct.pack("<IQQIQ", 2, 32, 1, 0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            VALUE + struct.pack("<IIQ", 9, 0, 2**60),
            "ends within its head",
        ),
        (VALUE + struct.pack("<IIQ", 9, 8, 2**60), "announces"),
        (VALUE + struct.pack("<IIQ", 9, 9, 1), "unknown kind 9"),
        (VALUE + struct.pack("<I", 77), "unknown kind 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no tensors"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<III", 1, 0, 0), "version 1"),
        (HEAD + text(b"\xff\xfe") + bytes(40), "not UTF-8"),
        (HEAD + struct.pack("<Q", 2**62) + bytes(40), "a name of"),
        (HEAD + text(b"w") + struct.pack("<I", 2**31) + bytes(40), "axes"),
        (HEAD + text(b"w") + struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0) + bytes(40), "tensors end at byte"),
        (HEAD + text(b"w") + struct.pack("<IQQIQ", 2, 33, 2, 8, 0) + bytes(99), "no whole blocks"),
        (HEAD + text(b"w") + struct.pack("<IQQIQ", 1, 32, 2**32 - 1, 0, 0) + bytes(99), "type"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + ONE + ONE + bytes(400), "stands twice"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(b"general.alignment") + struct.pack("<II", 4, 0) + ONE,
            "power of two",
        ),
    ],
)
def test_hostile_gguf_files_end_in_one_message_at_once(tmp_path, content, message):
    (tmp_path / "m.gguf").write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(InputError, match=message):
        read_allocation(tmp_path / "m.gguf")
    assert time.perf_counter() - start < 20


# ---------------------------------------------------------------- faults and hostile JSON

TARGETS = compressed([(["head"], INT8)])


def group(**changes):
    return compressed([(["head"], {**INT8, **changes})])


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (compressed([(["heat"], INT8)]), ["no layer 'heat'", "'head'"]),
        (compressed([(["re:.*experts.*"], INT8)]), ["'re:.*experts.*' matches no layer"]),
        (compressed([(["head"], {**INT4, "group_size": 48})]), ["'head'", "groups of 48", "64"]),
        (compressed([(["conv"], INT4)]), ["'conv' is a Conv1d"]),
        (group(num_bits=9), ["config_groups.group_0.weights", "of 9 bits"]),
        (group(num_bits=True), ["num_bits", "True"]),
        (group(num_bits="4"), ["num_bits", "'4'"]),
        (group(num_bits=4.0), ["num_bits", "4.0"]),
        (group(symmetric="no"), ["symmetric", "'no'"]),
        (group(type="float", num_bits=4), ["floats of 4 bits"]),
        (group(type="complex"), ["complex"]),
        (group(strategy="block", block_structure=[128, 128]), ["strategy", "'block'"]),
        (group(strategy="group", group_size=None), ["group_size"]),
        (group(strategy="group", group_size=10**9), ["group_size", "999999"]),
        (group(strategy="group", group_size=0), ["group_size"]),
        (compressed([(["head"], INT8, {**TOKENS, "dynamic": False})]), ["input_activations", "static"]),
        (compressed([(["head"], INT8, {**TOKENS, "num_bits": 4})]), ["INT8 alone"]),
        (compressed([(["head"], INT8, {**TOKENS, "type": "float"})]), ["INT8 alone"]),
        (compressed([(["head"], INT8, {**TOKENS, "symmetric": False})]), ["asymmetric"]),
        (compressed([(["head"], FP8, TOKENS)]), ["not beside FP8-channel"]),
        (compressed([(["head"], None, TOKENS)]), ["inputs alone"]),
        (compressed([(["head"], INT8), (["head"], INT4)]), ["'head' stands in another group"]),
        (compressed([("head", INT8)]), ["targets", "array of names"]),
        (compressed([([["head"]], INT8)]), ["targets", "array of names"]),
        (compressed([(["head"], [INT8])]), ["weights", "JSON object"]),
        ({**TARGETS, "config_groups": {"W4A16": ["Linear"]}}, ["W4A16", "preset"]),
        ({**TARGETS, "config_groups": {"a": {"targets": ["head"], "weights": INT8, "wights": 1}}}, ["'wights'"]),
        ({**TARGETS, "ignore": "head"}, ["ignore", "array of names"]),
        ({**TARGETS, "transform_config": {"a": 1}}, ["transform_config"]),
        ({**TARGETS, "quant_method": "gptq"}, ["'gptq' is not read", "compressed-tensors"]),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ["'awq' is not read"]),
        ({"dtype": "float8", "quantization_config": TARGETS}, ["'float8'"]),
        (compressed([(["re:(a+)+$"], INT8)]), ["repeats something that repeats"]),
        (compressed([(["re:(x|xx)*y"], INT8)]), ["repeats something that repeats"]),
        (compressed([(["re:(?x)(a+) +$"], INT8)]), ["'(?x)', which is not read"]),
        (compressed([(["re:([a-z_.0-9]+(?#(())+!"], INT8)]), ["'(?#(', which is not read"]),
        (compressed([(["re:" + ".*a" * 40], INT8)]), ["could take too long"]),
        (compressed([(["re:" + "(a|a)" * 60], INT8)]), ["could take too long"]),
        (compressed([(["re:" + "x" * 5000], INT8)]), ["5000 characters"]),
        (compressed([([f"re:{i}" for i in range(2000)], INT8)]), ["more than 1000 patterns"]),
        (compressed([(["re:(unclosed"], INT8)]), ["no regular expression"]),
        (compressed([(["re:a{99999999999}"], INT8)]), ["no regular expression"]),
        (compressed([(["re:*"], INT8)]), ["no regular expression"]),
        (entries(("heat.weight_quantizer", BLOCKS)), ["no layer 'heat'", "'head'"]),
        (entries(("blocks.0.norm.weight_quantizer", BLOCKS)), ["no quantizer 'blocks.0.norm"]),
        (entries(("head.weight_quantizer", {"num_bits": 4, "block_sizes": {"-1": 48}})), ["'head'", "groups of 48"]),
        (entries(("head.weight_quantizer", {"num_bits": [5, 2]})), ["entry 2", "[5, 2]"]),
        (entries(("head.weight_quantizer", {"num_bits": 1})), ["num_bits"]),
        (entries(("head.weight_quantizer", {"axis": 1})), ["axis 1"]),
        (entries(("head.weight_quantizer", {"axis": 10**6})), ["axis"]),
        (entries(("head.weight_quantizer", {"axis": 0, "block_sizes": {"-1": 32}})), ["both axis and block_sizes"]),
        (
            entries(("head.weight_quantizer", {"block_sizes": {"-1": 32, "scale_bits": [4, 3]}})),
            ["block_sizes", "scale_bits"],
        ),
        (entries(("head.weight_quantizer", {"bias": {"-1": None}})), ["bias"]),
        (entries(("head.weight_quantizer", {"rotate": True})), ["rotate"]),
        (entries(("head.weight_quantizer", {"num_bitz": 4})), ["'num_bitz'", "'num_bits'"]),
        (entries(("head.weight_quantizer", [{}, {}])), ["twice"]),
        (entries(("head.input_quantizer", {"num_bits": 8})), ["'head'", "its inputs"]),
        (entries(("head.output_quantizer", {"num_bits": 8})), ["'head'", "its outputs"]),
        (entries(("head.*t_quantizer", {"num_bits": [4, 3]}), ("head.output_quantizer", {})), ["outputs"]),
        (entries(("head.[wi]*_quantizer", {"num_bits": [4, 3]})), ["[4, 3]", "INT8 alone"]),
        (entries(("conv.weight_quantizer", BLOCKS)), ["'conv' is a Conv1d"]),
        (entries(("*" * 5000, BLOCKS)), ["5000 characters"]),
        ({"quant_cfg": [OFF] * 1001}, ["more than 1000 patterns"]),
        ({"quant_cfg": [1]}, ["entry 1", "JSON object"]),
        ({"quant_cfg": [{}]}, ["entry 1", "empty"]),
        ({"quant_cfg": [{"quantizer_name": "*"}]}, ["neither cfg nor enable"]),
        ({"quant_cfg": [{"quantizer_name": 3, "enable": True}]}, ["quantizer_name"]),
        ({"quant_cfg": [{"quantizer_name": "*", "enable": 1}]}, ["enable", "true or false"]),
        (
            {"quant_cfg": [{"quantizer_name": "*", "enable": True, "parent_class": "os.system"}]},
            ["'os.system' is not known"],
        ),
        ({"quant_cfg": {"*": 8}}, ["entry 1", "JSON object"]),
        ({"quantization": {"quant_algo": "NVFP4", "group_size": 16}}, ["'NVFP4'", "W4A16_AWQ"]),
        ({"quantization": {"quant_algo": ["FP8"]}}, ["quant_algo"]),
        ({"quantization": {"quant_algo": "W4A16_AWQ"}}, ["no group_size"]),
        ({"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": []}}, ["quantized_layers"]),
        (
            {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"heat": {"quant_algo": "FP8"}}}},
            ["no layer 'heat'"],
        ),
    ],
)
def test_faults_of_recipes_are_named(data, parts):
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        widths_of(data)
    assert time.perf_counter() - start < 20
    for part in ("file.json", *parts):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"config_groups": {"a": {"weights": {"num_bits": NaN}}}}', "NaN is not"),
        (b'{"config_groups": ' + b'{"a":' * 500 + b"1" + b"}" * 501, "nested more than"),
        (b'{"config_groups": ' + b"[" * 200_000, "nested more than"),
        (b'{"config_groups": {"\xff": 1}}', "not UTF-8"),
        (b'{"quant_cfg": [], "quant_cfg": []}', "stands twice"),
        (b'{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": 1e999}}]}', "too large"),
        (b'{"quant_cfg": [{"quantizer_name": "*", "cfg": {"axis": ' + b"9" * 5000 + b"}}]}", "digits"),
        (b"[]", "another tool: compressed-tensors"),
        (b'{"config_groups": []}', "another tool"),
        (b'{"quantization_config": 3}', "another tool"),
        (b"GGU", "not JSON"),
    ],
)
def test_hostile_files_end_in_one_message(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_allocation(tmp_path / "a.json")
    assert "a.json" in str(caught.value)


def test_files_that_are_too_large_or_are_folders_of_nothing_are_refused(tmp_path):
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(2**27)
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(InputError, match="134217728 bytes"):
            read_allocation(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no run, and no checkpoint with config\.json, quant_cfg\.json or hf_quant_"):
        read_allocation(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        read_allocation(tmp_path / "nowhere.gguf")


HOSTILE = "\x1b[2J\x07\u202e\ud800" + "x" * 9000


def hostile_at_every_name():
    """Recipes with a name that no terminal should see, at each place that holds one."""
    target, weights = ["head"], {"num_bits": 8}
    yield compressed([([HOSTILE], INT8)])
    yield compressed([(["re:" + HOSTILE[:40]], INT8)])
    yield compressed([(["re:[b-" + HOSTILE[:9] + "]"], INT8)])
    yield compressed([(target, INT8), (target, {"type": HOSTILE})])
    yield compressed([(target, {**INT8, HOSTILE: 1})], ignore=[HOSTILE])
    yield compressed([(target, {**INT8, "strategy": HOSTILE})])
    yield compressed([(target, INT8, {**TOKENS, "strategy": HOSTILE})])
    yield compressed([(target, INT8, {**TOKENS, "type": HOSTILE})])
    yield {"config_groups": {HOSTILE: {"targets": target, "weights": 3}}}
    yield {"config_groups": {"a": {HOSTILE: 1}}}
    yield {"quantization_config": {"quant_method": HOSTILE}}
    yield {"dtype": HOSTILE, "quantization_config": {}}
    yield {"quant_cfg": {HOSTILE: 8}}
    yield {"quant_cfg": {"nn." + HOSTILE: {HOSTILE: 8}}}
    yield {"quant_cfg": [OFF], "algorithm": HOSTILE}
    yield {"quant_cfg": [OFF, {"quantizer_name": "*", "parent_class": HOSTILE, "enable": False}]}
    yield {"quant_cfg": [OFF, {"quantizer_name": "*", "parent_class": HOSTILE, "enable": True}]}
    yield entries((HOSTILE, weights))
    yield entries((HOSTILE[:9] + "_bmm_quantizer", weights))
    yield entries((HOSTILE[:9] + "*", weights))
    yield entries(("head.weight_quantizer", {HOSTILE: 1}))
    yield entries(("head.weight_quantizer", {"num_bits": HOSTILE}))
    yield entries(("head.weight_quantizer", {"num_bits": [HOSTILE]}))
    yield entries(("head.weight_quantizer", {"block_sizes": {HOSTILE: 1, "a": 2}}))
    yield entries(("head.[wi]*", {"num_bits": HOSTILE}))
    yield entries(("head.w*", weights), ("head.input_quantizer", {"num_bits": HOSTILE}))
    yield {"quantization": {"quant_algo": HOSTILE}}
    yield {"quantization": {"quant_algo": "FP8", "exclude_modules": [HOSTILE, HOSTILE[:9]]}}
    yield {"quantization": {"quant_algo": None, "quantized_layers": {HOSTILE: {"quant_algo": "FP8"}}}}
    yield {"quantization": {"quant_algo": None, "quantized_layers": {HOSTILE: 8}}}


def test_names_from_files_reach_no_terminal_as_they_are(tmp_path):
    for data in hostile_at_every_name():
        try:
            texts = widths_of(data).warnings
        except InputError as error:
            texts = (str(error),)
        for said in texts:
            assert said.encode().decode().isprintable(), (data, said)
            assert len(said) < 800, data
    (tmp_path / "a.csv").write_text(f"{HOSTILE[:6]},b\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: has the columns") as caught:
        read_allocation(tmp_path / "a.csv")
    assert str(caught.value).isprintable()


TEMPLATES = (
    compressed([(["head"], INT8, TOKENS)], sparsity_config=DENSE, kv_cache_scheme={"num_bits": 8}),
    {"dtype": "float16", "text_config": {"dtype": "float16"}, "quantization_config": compressed([(["head"], INT4)])},
    {
        "quant_cfg": [
            {**OFF, "parent_class": "nn.Linear"},
            {"quantizer_name": "head.w*", "cfg": {**BLOCKS, "type": "a"}},
        ]
    },
    {
        "quant_cfg": {"*": {"enable": False}, "nn.Linear": {"*": {"num_bits": 8, "axis": 0}}},
        "algorithm": {"method": "a"},
    },
    entries(("head.i*", {"num_bits": 8, "axis": None, "block_sizes": {"-1": None, "type": "dynamic"}})),
    {"quantization": {"quant_algo": "W4A16_AWQ", "group_size": 32, "exclude_modules": ["a"], "pre_quant_scale": True}},
    {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"head": {"quant_algo": "FP8"}}}},
    {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["head"]}},
)
WRONG = (None, True, 0, -1, 7, 1.5, 10**30, "", "x", [], ["x"], [[]], {}, {"x": 1}, {"x": {}}, [4, 3], [{"x": []}])


def with_each_value_replaced(data, value):
    for key in data if isinstance(data, dict) else range(len(data)):

        def put(item, key=key):
            changed = data.copy()
            changed[key] = item
            return changed

        yield put(value)
        if isinstance(data[key], (dict, list)):
            yield from map(put, with_each_value_replaced(data[key], value))


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_of_another_kind_ends_in_a_traceback(template):
    for value in WRONG:
        for data in with_each_value_replaced(template, value):
            with contextlib.suppress(InputError):
                recipe = foreign_json(json.loads(json.dumps(data)), "file.json")
                if recipe is not None:
                    recipe.resolve(SITES)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "([a-z_.0-9]+(?#(())+!",
            "(a+(?#x))+b",
            "(?x)(a+) +b",
            "(?i:a)",
            "(?P<n>a+)(?P=n)",
            "(a)\\1",
            "(?<=a)b",
            "(?<!a)b",
        ),
        *(
            "(?>a+)b",
            "(a)(?(1)b|c)",
            "a*+b",
            "a**",
            "a{,3}",
            "a{,}",
            "a{x}",
            "\\Z",
            "\\x61",
            "\\u0061",
            "\\N{DIGIT ONE}",
        ),
        *("[\\x61]", "(?", "(?a)b", "[a", "a\\"),
    ],
)
def test_syntax_that_the_check_does_not_see_through_is_refused(pattern):
    with pytest.raises(InputError, match="which is not read"):
        Patterns("f", ["a" * 40]).add(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+!", "(?:a|aa)+!", "((a*)){3}!", "(?:(?=a+)a)*!", "(?:a{1,9}){2,}?!", "([a]+?)*!"]
)
def test_what_repeats_in_what_repeats_is_refused(pattern):
    with pytest.raises(InputError, match="repeats something that repeats"):
        Patterns("f", ["a" * 40]).add(pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"^model\.layers\.\d{1,2}\.(?:up|down)_proj$", "model.layers.31.up_proj"),
        (r".*?[^\]\.a-z]\b\w+\s?", "model.-x"),
        (r"(?!.*head)(?=m)[]m][\w]*}", "mod}"),
    ],
)
def test_the_usual_syntax_is_read_as_python_reads_it(pattern, name):
    assert Patterns("f", [name]).add(pattern).match(name)


def test_patterns_that_are_let_through_are_quick():
    names = [f"model.layers.{i}.mlp.experts.{i}.down_proj" for i in range(300)]
    worst = "(?:.*a)(?:.*d)?x|" + "(a|b|c)" * 4
    compiled = Patterns("f", names)
    usual = (
        r".*layers\.[0-9]+\.mlp.*proj$",
        r"model\.layers\.(0|1|[23][0-9])\.self_attn\.(q|k|v|o)_proj$",
        "(?!.*head).*",
    )
    patterns = [compiled.add(pattern) for pattern in (worst, *usual)]
    start = time.perf_counter()
    matched = [sum(pattern.match(name) is not None for name in names) for pattern in patterns]
    assert time.perf_counter() - start < 20
    assert matched == [0, 300, 0, 300]


# ---------------------------------------------------------------- end to end


def test_recipes_are_scored_and_gated_like_ours(tiny, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "dtype": "float32",
                "quantization_config": compressed([(["first"], {**INT8, "symmetric": False}), (["re:th"], FP8)]),
            }
        )
    )
    (tmp_path / "q.json").write_text(
        json.dumps(entries(("s*.weight_quantizer", {"num_bits": 4, "block_sizes": {"-1": 4}})))
    )
    expected = {
        ".": {"first": "INT8-channel-asym", "second": "FP32", "third": "FP8-channel"},
        "q.json": {"first": "FP32", "second": "INT4-g4", "third": "FP32"},
    }
    for name, widths in expected.items():
        scored = api.score(tmp_path / name, source_of(task="tiny"), Cliff(0.9), cache=tmp_path)
        assert scored["allocation"] == widths
        assert scored["warnings"][0].startswith("read as")
        (tmp_path / "ours.json").write_text(json.dumps(widths))
        ours = api.score(tmp_path / "ours.json", source_of(task="tiny"), Cliff(0.9), cache=tmp_path)
        assert scored["scores"] == ours["scores"]
        assert scored["gate"] == ours["gate"]
    (tmp_path / "q.json").write_text(json.dumps(entries(("fourth.weight_quantizer", BLOCKS))))
    with pytest.raises(InputError, match="no layer 'fourth'"):
        api.score(tmp_path / "q.json", source_of(task="tiny"), Cliff(0.9), cache=tmp_path)


FACTORY = """
import numpy as np
import torch
from torch import nn
from evoquant.models.torch_task import language_model

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        names = ("gate_proj", "up_proj", "down_proj")
        self.mlp = nn.ModuleDict({name: nn.Linear(32, 32, bias=False) for name in names})
        self.post_attention_layernorm = nn.RMSNorm(32)

    def forward(self, x):
        mlp, y = self.mlp, self.post_attention_layernorm(x)
        return x + mlp["down_proj"](torch.relu(mlp["gate_proj"](y)) * mlp["up_proj"](y))

class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(40, 32), "layers": nn.ModuleList([Block(), Block()])})
        self.lm_head = nn.Linear(32, 40, bias=False)

    def forward(self, tokens):
        x = self.model["embed_tokens"](tokens)
        for block in self.model["layers"]:
            x = block(x)
        return self.lm_head(x)

def network():
    draw = torch.Generator().manual_seed(0)
    net = Llama()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draw)
    tokens = np.arange(16 * 8).reshape(16, 8) % 40
    return language_model(net, calibration=tokens, selection=tokens[::-1].copy(), test=tokens)
"""


def test_score_reads_gguf_on_the_command_line(tmp_path, mine):
    pytest.importorskip("torch")
    from evoquant.models.torch_factory import load_factory
    from evoquant.profiles.llama_names import gguf_name
    from evoquant.quantization.precision import Menu

    mine(FACTORY)
    task = load_factory("mine:network")
    found = sites(task, task.profile(Menu.parse(["FP32"]), lambda requests: [], ()))
    kinds = {"Linear": "Q4_0", "Embedding": "Q8_0"}
    tensors = [
        (gguf_name(site.name), kinds.get(site.classes[0], "F32"), np.ones(site.shape, np.float32)) for site in found
    ]
    path = write_gguf(tmp_path / "m.gguf", tensors)
    assert isinstance(read_allocation(path), Unresolved)
    words = ["score", "m.gguf", "--task", "mine:network", "--menu", "INT4-g32,INT8-g32,FP32", "--json"]
    done = command(tmp_path, *words, EVOQUANT_CACHE=str(tmp_path / "cache"))
    scored = json.loads(done.stdout)
    assert scored["allocation"]["lm_head"] == scored["allocation"]["model.layers.0.mlp.up_proj"] == "INT4-g32"
    assert scored["allocation"]["model.embed_tokens"] == "INT8-g32"
    assert scored["allocation"]["model.layers.1.post_attention_layernorm"] == "FP32"
    assert "warning: read as GGUF" in done.stderr
    assert scored["scores"]["test"]["retention"] > 0
    assert scored["scores"]["test"]["effective_bits"] < 8


def test_classes_are_those_of_the_modules(tmp_path):
    torch = pytest.importorskip("torch")
    from evoquant.models.torch_task import classification
    from evoquant.quantization.precision import Menu

    class Own(torch.nn.Linear):
        pass

    network = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten(), Own(24, 3))
    data = (np.ones((4, 2, 8), np.float32), np.zeros(4, np.int64))
    task = classification(network, calibration=data, selection=data, test=data)
    found = sites(task, task.profile(Menu.parse(["FP32"]), lambda requests: [], ()))
    assert [(site.name, site.kind) for site in found] == [("0", "Conv1d"), ("2", "Linear")]
    assert found[1].classes[:2] == ("Own", "Linear")
