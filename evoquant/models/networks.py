"""Networks described as plain data, so that a worker can rebuild one without loading anybody's code."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from evoquant.errors import InputError, MissingExtraError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays

    Build: TypeAlias = Callable[[Mapping[str, Any]], torch.nn.Module]


def require_torch(what: str) -> None:
    """Check that PyTorch is installed; `what` names who needs it.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(what, "torch", "torch") from None


def build_network(
    architecture: Mapping[str, Any], weights: Arrays | None = None, *, shared: bool = False
) -> torch.nn.Module:
    """The network of an architecture, in eval mode; without `weights` its parameters hold no meaningful values.

    Args:
        architecture: `kind` (a key of `NETWORKS`) and that kind's sizes.
        weights: every entry of the network's state, by name.
        shared: parameters are these very arrays, which may be read-only: nothing may write into them. Else, and of
            buffers always, they are copied.

    Raises:
        InputError: no such kind.
        MissingExtraError: PyTorch is not installed, or transformers, for a network of theirs.
    """
    require_torch("building a network")
    import torch

    kind = architecture["kind"]
    if kind not in NETWORKS:
        raise InputError(f"unknown kind of network {kind!r}.{suggestion(str(kind), NETWORKS)}")
    build = NETWORKS[kind]()
    with torch.device("meta"):  # PyTorch's own initial values would draw from its global generator
        network = build(architecture)
    for module in network.modules():  # what was made on the CPU has its values already
        if any(tensor.is_meta for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            module.to_empty(device="cpu", recurse=False)
    if weights is not None and shared:
        _lay(network, weights)
    elif weights is not None:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return network.eval()


def _lay(network: torch.nn.Module, weights: Arrays) -> None:
    """Give each parameter its array as it is; one that has several names stays one."""
    import torch

    for name, parameter in network.named_parameters():
        parameter.data = tensor_on(weights[name])
    named = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    others = {name: torch.from_numpy(array.copy()) for name, array in weights.items() if name not in named}
    network.load_state_dict(others, strict=False)


def tensor_on(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on an array's memory. Who writes into that of a read-only one dies: PyTorch knows no such tensors."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which says so
        return torch.from_numpy(array)


def _small_cnn(architecture: Mapping[str, Any]) -> torch.nn.Module:
    """3×3 convolutions with batch normalisation, pooled by 2 after every second one, then two linear layers.

    Sizes: `inputs` channels of `side` × `side` pixels, `channels` of each convolution, `hidden`, `classes`.
    """
    from torch import nn

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    before, side = architecture["inputs"], architecture["side"]
    for number, channels in enumerate(architecture["channels"], start=1):
        parts[f"conv{number}"] = nn.Conv2d(before, channels, 3, padding=1, bias=False)
        parts[f"norm{number}"] = nn.BatchNorm2d(channels)
        parts[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            parts[f"pool{number}"] = nn.MaxPool2d(2)
            side //= 2
        before = channels
    parts["flatten"] = nn.Flatten()
    parts["hidden"] = nn.Linear(before * side * side, architecture["hidden"])
    parts["relu_hidden"] = nn.ReLU()
    parts["classifier"] = nn.Linear(architecture["hidden"], architecture["classes"])
    return nn.Sequential(parts)


def _other(name: str) -> Callable[[], Build]:
    def load() -> Build:
        from evoquant.models import architectures

        build: Build = getattr(architectures, name)
        return build

    return load


def _llama() -> Build:
    """Llama of transformers (Touvron et al. 2023), its output layer apart from its embedding.

    Sizes: `vocabulary`, `length` of the longest context, `width`, `heads`, `key_value_heads`, `hidden`, `depth`; the
    tokens `begin` and `end` of a text.
    """
    from evoquant.models.hf import require_transformers

    require_transformers("a network of kind 'llama'")
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama

    modeling: Any = modeling_llama  # whose types do not say what it takes

    def build(architecture: Mapping[str, Any]) -> torch.nn.Module:
        sizes = {theirs: architecture[ours] for theirs, ours in _LLAMA_SIZES.items()}
        config = LlamaConfig(**sizes, **_LLAMA_SETTINGS)
        network: Any = modeling.LlamaForCausalLM(config)
        with torch.device("cpu"):  # its frequencies are computed, and are in no state that could be loaded
            network.model.rotary_emb = modeling.LlamaRotaryEmbedding(config)
        return cast("torch.nn.Module", network)

    return build


_LLAMA_SIZES = {
    "vocab_size": "vocabulary",
    "max_position_embeddings": "length",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "num_key_value_heads": "key_value_heads",
    "intermediate_size": "hidden",
    "num_hidden_layers": "depth",
    "bos_token_id": "begin",
    "eos_token_id": "end",
}
_LLAMA_SETTINGS: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "tie_word_embeddings": False,
    "use_cache": False,  # an ONNX graph has no place for a cache, and scoring has no use for one
    "attn_implementation": "eager",  # matrix products that ONNX, too, has
}

NETWORKS: dict[str, Callable[[], Build]] = {
    "small_cnn": lambda: _small_cnn,
    "cnn": _other("cnn"),
    "vision_transformer": _other("VisionTransformer"),
    "language_model": _other("LanguageModel"),
    "mlp": _other("mlp"),
    "llama": _llama,
}
"""Kind → what loads its code and returns what builds it: libraries make tensors while they load, and not on "meta"."""
