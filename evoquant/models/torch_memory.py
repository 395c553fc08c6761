"""A PyTorch module in memory as a measured task, and a copy of one with an allocation applied."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import EvoquantError, InputError, quoted, raised_by, suggestion
from evoquant.models.base import REFERENCE
from evoquant.models.networks import require_torch
from evoquant.models.torch_data import TARGETS, call_network, samples_of, with_tokens
from evoquant.models.torch_task import Kind, OwnMetric, TorchTask, make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_layers import Layer
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.rounding import Rounder

METRICS = ("accuracy", "r2", "perplexity", "agreement", "cosine")
_KINDS: dict[str, Kind] = {
    "accuracy": "classification",
    "agreement": "classification",
    "r2": "regression",
    "perplexity": "language",
    "cosine": "embedding",
}
_CLOSE = 1e-3


@dataclass(frozen=True)
class Sizes:
    """Samples that are measured together, and samples a forward pass."""

    block: int = 512
    batch: int = 128


def torch_memory_task(
    network: torch.nn.Module,
    splits: Mapping[str, Arrays],
    metric: str | Callable[..., Any] | OwnMetric | None,
    *,
    name: str,
    seed: int = 0,
    sizes: Sizes | None = None,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
) -> TorchTask:
    """The task of a module; a copy of it is measured, in float32 and eval mode on the CPU, and it stays as it is.

    Args:
        network: takes the inputs of a batch.
        splits: as `evoquant.models.memory_data.split_samples` gives them.
        metric: of `METRICS`; or a function (outputs, targets) → one score a sample, perhaps with attributes
            `lower_is_better` and `retention`; None looks at targets and outputs.
        name: what reports call it.
        seed: of the labels and probes that signals draw.
        sizes: of blocks and batches.
        tie_groups, types: see `make_task`.

    Raises:
        InputError: the module cannot be copied or run, or metric, outputs and targets do not go together.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring a network")
    own = _own(metric)
    ours = _copied(network)
    data = {split: dict(arrays) for split, arrays in splits.items()}
    outputs = _outputs(ours, data["calibration"], slice(0, 2))
    chosen = metric if isinstance(metric, str) else usual_metric(outputs, data["calibration"])
    size = sizes or Sizes()
    _prepare(ours, data, chosen, size)
    task = make_task(
        _KINDS[chosen],
        ours,
        data,
        name=name,
        tie_groups=tie_groups,
        types=types,
        metric=own,
        block=size.block,
        batch=size.batch,
        seed=seed,
    )
    if own is not None:
        _check_own(own, outputs, data["calibration"].get(TARGETS))
    return task


def usual_metric(outputs: NDArray[np.generic], calibration: Arrays) -> str:
    """The metric that outputs and targets suggest, of `METRICS`.

    Whole numbers are classes (or next tokens, where there is one a position); other targets are values. Without
    targets tokens predict the next one; else the FP32 outputs are the truth: their most likely class, their direction
    where their length is 1, or their values where a sample has one number, several positions, or its input's shape.
    """
    targets, inputs = calibration.get(TARGETS), next(iter(calibration.values()))
    shape = outputs.shape
    single = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if targets is None:
        if len(shape) == 3 and inputs.dtype.kind in "iu" and inputs.shape[1:] == shape[1:2]:
            return "perplexity"
        if single or len(shape) > 2 or shape[1:] == inputs.shape[1:]:
            return "r2"
        lengths = np.linalg.norm(outputs.astype(np.float64), axis=-1)
        return "cosine" if np.allclose(lengths, 1.0, atol=_CLOSE) else "agreement"
    if targets.dtype.kind not in "iub":
        return "r2"
    inner = targets.shape[1:]
    if len(shape) == 3 and inner == shape[1:2] and inner != shape[2:]:
        return "perplexity"
    values = targets.astype(np.int64)
    counted = single and bool(((values < 0) | (values > 1)).any())
    return "r2" if counted or (len(shape) > 1 and inner == shape[1:] and not single) else "accuracy"


def applied(
    network: torch.nn.Module, layers: Sequence[Layer], widths: Sequence[str], rounder: Rounder | None = None
) -> torch.nn.Module:
    """A copy of a network with every layer at its width, by fake quantization; float32, eval mode, on the CPU.

    Args:
        network: that has these layers.
        layers: that take a width.
        widths: a precision name for each.
        rounder: a rounding method of somebody's own.

    Raises:
        InputError: the network has other layers; the message names one.
        PrecisionError: a weight that its width cannot hold.
    """
    from evoquant.models.torch_hooks import activation_hook
    from evoquant.models.torch_quantize import fake_quantize_tensor
    from evoquant.quantization.precision import Precision

    made = _copied(network).requires_grad_(False)
    parameters = dict(made.named_parameters(remove_duplicate=False))
    modules = dict(made.named_modules())
    for layer, width in zip(layers, widths, strict=True):
        parameter = parameters.get(layer.parameter)
        if parameter is None:
            close = suggestion(layer.parameter, parameters)
            raise InputError(
                f"the model has no parameter {quoted(layer.parameter)} of layer {quoted(layer.name)}.{close}"
            )
        if tuple(parameter.shape) != layer.shape:
            raise InputError(
                f"the model's layer {quoted(layer.name)} has shape {tuple(parameter.shape)}, the searched one "
                f"{layer.shape}; optimize the model anew, start_from= the earlier result."
            )
        if width == REFERENCE:
            continue
        precision = Precision.parse(width)
        parameter.data = fake_quantize_tensor(parameter.data, precision, layer.channel_axis, rounder)
        if precision.activation_bits is not None:
            modules[layer.module].register_forward_pre_hook(activation_hook(layer), with_kwargs=True)
    return made


def layers_by_name(network: torch.nn.Module, profile: ModelProfile, widths: Sequence[str]) -> list[Layer]:
    """The layers of a profile in a network that nobody has run yet, found by their names.

    Raises:
        InputError: the network is none, lacks one, or a width quantizes activations, which a name does not tell.
    """
    import torch

    from evoquant.models.torch_layers import Layer
    from evoquant.quantization.precision import Precision

    if not isinstance(network, torch.nn.Module):
        raise InputError(f"model: is a {type(network).__name__}; give a torch.nn.Module.")
    known = dict(network.named_parameters(remove_duplicate=False))
    found = []
    for layer, width in zip(profile.layers, widths, strict=True):
        if width != REFERENCE and Precision.parse(width).activation_bits is not None:
            raise InputError(
                f"apply: {quoted(layer.name)} is {width}, whose activations are quantized, too, and that takes the "
                f"data; call evoquant.optimize again, with the same arguments and run_dir=."
            )
        called = (f"{layer.name}.weight", f"{layer.name}_weight")  # as layers are named, else as the parameter
        parameter = next((name for name in called if name in known), layer.name)
        found.append(
            Layer(layer.name, layer.type, layer.name, parameter, layer.shape, layer.channel_axis, layer.fan_in or 1)
        )
    return found


def _copied(network: torch.nn.Module) -> torch.nn.Module:
    """A float32 copy in eval mode on the CPU.

    Raises:
        InputError: it is no module, or cannot be copied.
    """
    import torch

    if not isinstance(network, torch.nn.Module):
        raise InputError(f"model: is a {type(network).__name__}; give a torch.nn.Module or the path of an ONNX file.")
    try:
        return copy.deepcopy(network).cpu().float().eval()
    except Exception as error:  # whatever a module may hold
        raise InputError(f"model: cannot be copied, which keeps yours as it is: {raised_by(error)}") from error


def _outputs(network: torch.nn.Module, arrays: Arrays, rows: slice) -> NDArray[np.generic]:
    import torch

    from evoquant.models.torch_threads import one_thread

    try:
        with one_thread(), torch.no_grad():
            found: NDArray[np.generic] = call_network(network, arrays, rows).numpy()
    except EvoquantError:
        raise
    except Exception as error:  # whatever the network may raise
        raise InputError(f"the model does not take the calibration inputs: {raised_by(error)}") from error
    if found.ndim == 0 or len(found) != len(range(*rows.indices(samples_of(arrays)))):
        raise InputError(f"the model's output has shape {found.shape}; return one row a sample.")
    return found


def _prepare(network: torch.nn.Module, data: dict[str, Arrays], metric: str, sizes: Sizes) -> None:
    """Give every split the targets that a metric takes.

    Raises:
        InputError: there are none that it could take.
    """
    if metric not in METRICS:
        raise InputError(f"metric: unknown metric {quoted(metric)}.{suggestion(metric, METRICS)}")
    for split, arrays in data.items():
        targets = arrays.get(TARGETS)
        if metric in ("agreement", "cosine"):
            arrays.pop(TARGETS, None)
        elif metric == "accuracy":
            if targets is None:
                raise InputError("metric: accuracy needs targets; give (inputs, targets), or metric='agreement'.")
            if (targets != targets.astype(np.int64)).any():
                raise InputError(f"{split}: accuracy needs classes, whole numbers from 0; these are {targets.dtype}.")
            arrays[TARGETS] = targets.astype(np.int64)
        elif metric == "perplexity" and targets is None:
            arrays[TARGETS] = with_tokens(next(iter(arrays.values())), split)[TARGETS]
        elif metric == "r2":
            if targets is None:
                count, step = samples_of(arrays), sizes.batch
                parts = [_outputs(network, arrays, slice(i, min(i + step, count))) for i in range(0, count, step)]
                targets = np.concatenate(parts)
            arrays[TARGETS] = targets.astype(np.float32)


def _own(metric: str | Callable[..., Any] | OwnMetric | None) -> OwnMetric | None:
    if metric is None or isinstance(metric, (str, OwnMetric)):
        return metric if isinstance(metric, OwnMetric) else None
    if not callable(metric):
        raise InputError(f"metric: is a {type(metric).__name__}; give a name ({', '.join(METRICS)}) or a function.")
    name = str(getattr(metric, "__qualname__", type(metric).__name__))
    lower = bool(getattr(metric, "lower_is_better", False))
    return OwnMetric(metric, name, lower, getattr(metric, "retention", None))


def _check_own(own: OwnMetric, outputs: NDArray[np.generic], targets: NDArray[np.generic] | None) -> None:
    """Whether a metric of somebody's own gives a score a sample: said once, not as the failure of every candidate.

    Raises:
        InputError: it does not.
    """
    rows = len(outputs)
    try:
        scores = np.asarray(
            own.function(outputs.astype(np.float32), None if targets is None else targets[:rows].copy()),
            dtype=np.float64,
        )
    except Exception as error:  # whatever somebody's own code may raise
        raise InputError(f"metric {quoted(own.name)} raised {raised_by(error)}") from error
    if scores.shape != (rows,):
        raise InputError(
            f"metric {quoted(own.name)}: gave {scores.shape} for {rows} samples; return one score a sample, an array "
            f"of shape ({rows},): it is their mean that counts."
        )
    if not np.isfinite(scores).all():
        raise InputError(f"metric {quoted(own.name)}: gave a score that is not finite on the FP32 outputs.")
