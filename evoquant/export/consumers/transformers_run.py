"""transformers in a fresh process: a checkpoint as users load it, in float32 on the CPU, one thread, offline."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.export.consumers import Loaded, serve
from evoquant.export.consumers.torch_network import runner
from evoquant.models.hf import require_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
BROKEN = ("5.23.0",)
"""Releases that decode every layer of a mixed recipe by one scheme once `dequantize=True` is asked for."""


def load(path: Path, job: Mapping[str, Any], _: Path) -> Loaded:
    """The network whose config.json is `path`, of the class that it names; nothing but transformers' own code runs.

    Raises:
        ValueError: transformers has no such class, or a release that reads mixed recipes wrongly.
    """
    import torch
    import transformers

    config = json.loads(path.read_text("utf-8"))
    schemes = (config.get("quantization_config") or {}).get("config_groups") or {}
    if fault := fault_of(str(transformers.__version__), len(schemes)):
        raise ValueError(fault)
    (architecture,) = config["architectures"]
    kind: Any = getattr(transformers, architecture, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"transformers {transformers.__version__} has no network {architecture!r}")
    torch.set_num_threads(1)
    loader: Any = kind
    network = loader.from_pretrained(
        path.parent, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    generate = _generator(network) if network.can_generate() else None
    return Loaded(runner(network), {"schemes": len(schemes)}, generate)


def fault_of(version: str, schemes: int) -> str | None:
    """Why a release of transformers cannot be trusted with so many schemes; None where it can."""
    if version in BROKEN and schemes > 1:
        return f"transformers {version} decodes mixed recipes wrongly with dequantize=True; install another release"
    return None


def _generator(network: Any) -> Any:
    import torch

    def generate(tokens: list[int], count: int) -> list[int]:
        prompt = torch.tensor([tokens])
        with torch.inference_mode():
            found = network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=0,
            )
        return [int(token) for token in found[0, len(tokens) :]]

    return generate


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    os.environ.update(SETTINGS)  # read when transformers is imported
    require_transformers("running a checkpoint")
    import transformers

    return serve(arguments, str(transformers.__version__), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
