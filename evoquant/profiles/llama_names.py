"""Names of a Llama-like network's weights: Hugging Face's modules, and the tensors of GGUF."""

from __future__ import annotations

import re

_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_HF_ENDS = {tensor: layer for layer, tensor in _ENDS.items()}
_HF_PARTS = {tensor: layer for layer, tensor in _PARTS.items()}

_BLOCK = re.compile(r"model\.layers\.(0|[1-9][0-9]*)\.(.+)")
_GGUF_BLOCK = re.compile(r"blk\.(0|[1-9][0-9]*)\.(.+)")
_WEIGHT = ".weight"


def gguf_name(layer: str) -> str | None:
    """Of a module (`model.layers.0.self_attn.q_proj`) the tensor (`blk.0.attn_q.weight`); None where GGUF has none."""
    if layer in _ENDS:
        return f"{_ENDS[layer]}{_WEIGHT}"
    block = _BLOCK.fullmatch(layer)
    part = _PARTS.get(block[2]) if block else None
    return f"blk.{block[1]}.{part}{_WEIGHT}" if block and part else None


def hf_name(tensor: str) -> str | None:
    """Of a tensor (`blk.0.attn_q.weight`) the module (`model.layers.0.self_attn.q_proj`); None where there is none."""
    if not tensor.endswith(_WEIGHT):
        return None
    name = tensor.removesuffix(_WEIGHT)
    if name in _HF_ENDS:
        return _HF_ENDS[name]
    block = _GGUF_BLOCK.fullmatch(name)
    part = _HF_PARTS.get(block[2]) if block else None
    return f"model.layers.{block[1]}.{part}" if block and part else None
