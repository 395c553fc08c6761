"""Write an example task as an ONNX model with its samples, as an engineer would bring them along."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import MissingExtraError
from evoquant.files import write_atomic
from evoquant.models.base import SPLITS
from evoquant.models.torch_data import INPUTS

if TYPE_CHECKING:
    from evoquant.models.torch_task import TorchTask

OPSET = 17
"""The first with LayerNormalization, so that a norm stays one node."""


def export_onnx(task: TorchTask, path: Path) -> Path:
    """Write the task's FP32 network to `path` and its samples beside it, as an .npz; the path of the latter.

    Weights keep the names of the network's parameters and no norm is folded into a neighbour, so that both runtimes
    have the same layers. The samples are arrays `<split>.inputs`, `<split>.targets` and, where the task has slices,
    `<split>.slices`; `inputs` is the graph's only input.

    Args:
        task: an example task.
        path: of the model, ending in .onnx.

    Raises:
        InputError: a file cannot be written.
        MissingExtraError: the package onnx is not installed.
    """
    import torch

    try:
        import onnx  # noqa: F401  (torch.onnx needs it, and says so less clearly)
    except ImportError:
        raise MissingExtraError("exporting an example task to ONNX", "onnx", "onnx") from None
    free = {0: "samples"}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        # PyTorch's newer exporter needs one more package and renames the weights; this one announces its end
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            task.network,
            (torch.from_numpy(task.data["calibration"][INPUTS][:2]),),
            exported,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # its "evaluation" folds norms into convolutions
            do_constant_folding=False,
            input_names=[INPUTS],
            output_names=["outputs"],
            dynamic_axes={INPUTS: free, "outputs": free},
            opset_version=OPSET,
        )
        write_atomic(path, exported.read_bytes())
    samples = io.BytesIO()
    arrays = {f"{split}.{name}": array for split in SPLITS for name, array in task.data[split].items()}
    np.savez(samples, allow_pickle=False, **arrays)
    beside = path.with_suffix(".npz")
    write_atomic(beside, samples.getvalue())
    return beside
