"""NVIDIA ModelOpt's simulation in a fresh process: weights fake-quantized by its quantizers, float32, one thread."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evoquant.errors import InputError, describe_validation
from evoquant.export.as_modelopt import CONFIG, QUANTIZER, STATE, quantize, require_modelopt
from evoquant.export.consumers import Loaded, serve
from evoquant.export.consumers.torch_network import runner
from evoquant.export.hf import network_state
from evoquant.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Attributes(_Closed):
    """Of a quantizer: what this module writes. ModelOpt's own fields may name code to run, and are refused."""

    num_bits: Literal[4, 8] | tuple[Literal[4], Literal[3]]
    axis: Literal[0] | None = None
    block_sizes: dict[Literal["-1"], Annotated[int, Field(ge=1)]] | None = None


class _Entry(_Closed):
    quantizer_name: Annotated[str, Field(min_length=1)]
    cfg: _Attributes | None = None
    enable: bool


class _Config(_Closed):
    quant_cfg: list[_Entry]
    algorithm: Literal["max"]


def load(path: Path, job: Mapping[str, Any], _: Path) -> Loaded:
    """The job's network with the quantizers and the state that lie beside `path`, quant_cfg.json."""
    from evoquant.models.recreate import recreate

    network = load_modelopt(recreate(job["network"]), path.parent)
    return Loaded(runner(network), {"rounding": activation_quantizers(network)})


def load_modelopt(network: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The network with the folder's quantizers and state in it, as ModelOpt simulates them; it is changed in place.

    Args:
        network: of the same architecture; its weights do not matter.
        folder: of `modelopt_files`.

    Raises:
        InputError: a file is missing or damaged, or they are another network's.
        MissingExtraError: ModelOpt is not installed.
    """
    require_modelopt("ModelOpt's simulation")
    from safetensors.torch import load_file

    source = folder / CONFIG
    try:
        config = _Config.model_validate(read_json(source))
    except ValidationError as error:
        raise InputError(
            describe_validation(error, str(source), (*_Config.model_fields, *_Entry.model_fields))
        ) from None
    try:
        state = load_file(folder / STATE)
    except Exception as error:  # the library's own class, a missing file
        raise InputError(f"{folder / STATE}: cannot be read ({type(error).__name__}: {error}).") from None
    try:
        network.load_state_dict(state, strict=False)  # calibrated anew, a network that holds no numbers yet is refused
        quantize(network, config.model_dump(exclude_unset=True))
        missing, strange = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:500]
        raise InputError(f"{folder}: does not fit the network: {text}") from None
    lacking = sorted(set(missing) & network_state(network).keys())  # what is shared stands in the file once
    for names, fault in ((lacking, "lacks"), (sorted(strange), "has")):
        if names:
            raise InputError(f"{folder / STATE}: {fault} {names[0]}, unlike the network; it is another one's.")
    return network.eval()


def activation_quantizers(network: torch.nn.Module) -> list[str]:
    """Names of quantizers that are on and round something other than weights."""
    return [
        name
        for name, module in network.named_modules()
        if name.endswith("_quantizer") and not name.endswith(QUANTIZER) and bool(getattr(module, "is_enabled", False))
    ]


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    return serve(arguments, metadata.version("nvidia-modelopt"), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
