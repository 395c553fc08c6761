"""Settings and vocabulary of a Llama for llama.cpp, from transformers' configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError
from evoquant.profiles.llama_names import gguf_name

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURES = ("llama", "mistral")
"""Values of `model_type` that llama.cpp computes as its architecture llama."""

_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = 256
LEAST_VOCABULARY = len(_SPECIAL) + _BYTES
BYTE_TOKENS = (
    "Written without a vocabulary: tokens 0 to 2 are <unk>, <s> and </s>, 3 to 258 the bytes 0 to 255. If the network "
    "was trained with other tokens, text is wrong here, and only the numbers of its tokens are right."
)
_UNKNOWN, _CONTROL, _UNUSED, _BYTE = 2, 3, 5, 6  # llama.cpp's types of tokens

_ROTATED = re.compile(r"blk\.([0-9]+)\.attn_([qk])\.weight")
_OTHER = "export it with --base MODEL.gguf, made from the same network by llama.cpp's converter, or choose onnx"


@dataclass(frozen=True)
class Heads:
    """Attention heads: of queries, and of keys and values; one number, or one for each block."""

    queries: int | Sequence[int]
    keys: int | Sequence[int]

    def of(self, tensor: str) -> int | None:
        """Heads of a matrix of queries or keys by its name in GGUF; None for all others."""
        found = _ROTATED.fullmatch(tensor)
        if found is None:
            return None
        count = self.queries if found[2] == "q" else self.keys
        return count if isinstance(count, int) else int(count[int(found[1])])


def llama_heads(config: Any) -> Heads:
    """Of a configuration."""
    return Heads(config.num_attention_heads, config.num_key_value_heads)


def require_llama(config: Any, network: str, tensors: Iterable[str]) -> None:
    """Whether llama.cpp computes a network exactly so.

    Args:
        config: of transformers.
        network: name of its class.
        tensors: names of its state.

    Raises:
        InputError: it does not, or that is not known.
    """
    if config.model_type not in ARCHITECTURES:
        raise InputError(
            f"gguf: without a base file networks of the types {' and '.join(ARCHITECTURES)} can be written, and this "
            f"{network} is of the type {config.model_type!r}; {_OTHER}."
        )
    if fault := _fault(config):
        raise InputError(f"gguf: {network} has {fault}, which cannot be written without a base file; {_OTHER}.")
    for name in tensors:
        if not name.endswith(".weight") or gguf_name(name.removesuffix(".weight")) is None:
            raise InputError(f"gguf: llama.cpp's architecture llama has no {name!r}; choose onnx or openvino.")


def _fault(config: Any) -> str | None:
    rope = dict(config.rope_parameters)
    window = getattr(config, "sliding_window", None)
    if kind := next((key for key in ("attention_bias", "mlp_bias") if getattr(config, key, False)), None):
        return f"{kind} on"
    if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"rope_parameters {rope}"
    if config.hidden_act not in ("silu", "swish"):
        return f"hidden_act {config.hidden_act!r}"
    if window is not None and window < config.max_position_embeddings:
        return f"a sliding_window of {window}"
    return None


def add_llama(writer: GGUFWriter, config: Any) -> None:
    """What llama.cpp needs to know of the architecture."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_byte_vocabulary(writer: GGUFWriter, config: Any) -> None:
    """Tokens 0 to 2 `<unk> <s> </s>`, 3 to 258 the bytes, the rest unused; nothing is added to what is given.

    What begins and ends texts is the configuration's, where it names one token; else 1 and 2. That tokens are bytes
    cannot be seen from a network, so the file's description says it.

    Raises:
        InputError: fewer tokens than that.
    """
    size = config.vocab_size
    if size < LEAST_VOCABULARY:
        raise InputError(
            f"gguf: the network has {size} tokens, and a vocabulary of bytes takes {LEAST_VOCABULARY}; {_OTHER}."
        )
    rest = range(LEAST_VOCABULARY, size)
    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *(f"<unused{token}>" for token in rest)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * size)
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * _BYTES, *[_UNUSED] * len(rest)]
    begin, end = _token(config, "bos_token_id", 1), _token(config, "eos_token_id", 2)
    for token in (begin, end):
        if kinds[token] == _UNUSED:
            kinds[token] = _CONTROL
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_description(BYTE_TOKENS)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _token(config: Any, key: str, otherwise: int) -> int:
    token = getattr(config, key, None)
    if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < config.vocab_size:
        return token
    return otherwise
