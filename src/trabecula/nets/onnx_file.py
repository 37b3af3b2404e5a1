"""Networks as ONNX files: images in [0, 1] in, features or probabilities out, the normalisation inside."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.classifier import Classifier
from trabecula.nets.encoder import Encoder

INPUT = "images"
_NEEDED = ("onnx", "onnxscript")
_CHECKED = 3  # images by which the file is held against the network; another number than it was traced with


class Predictor(nn.Module):
    """A classifier whose output are probabilities: classes sum to 1, labels each have their own."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder, self.head = classifier.encoder, classifier.head
        self.single = classifier.card.task.kind != "multilabel"

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> (B, K)."""
        logits: Tensor = self.head(self.encoder(images)).float()
        return logits.softmax(1) if self.single else logits.sigmoid()


def check_installed() -> None:
    """Before any work.

    Raises:
        InputError: a package is missing, with the command that installs it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX files need {' and '.join(missing)}: python -m pip install 'trabecula[export]', or set "
            "onnx = false"
        )


def onnx_bytes(net: Encoder | Predictor, channels: int, size: int, output: str, told: Any) -> bytes:
    """The network in evaluation mode as an ONNX file for any number of images.

    Nothing of this machine is in it: the exporter's notes on source files are taken out.

    Args:
        output: name of the output; the input is called "images".
        told: plain values for the file's metadata, under "trabecula".
    """
    import onnx

    was_training = net.training
    net = net.cpu().eval()
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net, (images,), dynamo=True, input_names=[INPUT], output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
        )  # fmt: skip
    net.train(was_training)
    model: Any = program.model_proto  # type: ignore[union-attr]
    for part in (model, model.graph, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.node, *model.graph.initializer, *model.graph.value_info,
                  *model.graph.input, *model.graph.output):  # fmt: skip
        value.doc_string = ""
        del value.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = "trabecula", json.dumps(told, sort_keys=True)
    model.producer_name = "trabecula"
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own inner parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def difference(net: Encoder | Predictor, file: bytes, channels: int, size: int) -> float | None:
    """Largest difference between ONNX Runtime's output and the network's, of the largest output.

    On random images on the CPU; None where ONNX Runtime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    net = net.cpu().eval()
    images = torch.rand(_CHECKED, channels, size, size, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    got: Any = session.run(None, {INPUT: images.numpy()})[0]
    with torch.inference_mode():
        wanted = net(images).numpy()
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12))
