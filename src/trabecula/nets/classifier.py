"""Classifiers: an encoder and a head that give the probabilities of a task's classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trabecula.artifacts.classifier import ClassifierCard, read_classifier, write_classifier
from trabecula.artifacts.store import Store, check_prepared
from trabecula.data.batches import images_in_order
from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder
from trabecula.nets.heads import TaskHead, make_head


class Classifier(nn.Module):
    """Images in [0, 1] to class probabilities."""

    def __init__(self, card: ClassifierCard, encoder: Encoder, head: TaskHead) -> None:
        super().__init__()
        self.card, self.encoder, self.head = card, encoder, head

    def check_fit(self, store: Store, path: Path) -> None:
        """Refuse a store that was prepared otherwise than the classifier's own images."""
        known = self.card.prepared or {"size": self.card.size}
        check_prepared(store, path, f"classifier '{self.card.origin.arm}'", self.card.preprocessing, known)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> (B, K) probabilities: classes sum to 1, labels each have their own."""
        logits: Tensor = self.head(self.encoder(images)).float()
        return logits.softmax(1) if self.card.task.kind != "multilabel" else logits.sigmoid()

    def probabilities(
        self, store: Store, rows: NDArray[np.int64], device: torch.device, batch_size: int = 256
    ) -> NDArray[np.float64]:
        """(n, K) of these rows of a store."""
        self.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        parts = [torch.empty(0, len(self.card.class_names), dtype=torch.float64)]
        with torch.inference_mode(), exact():
            for images in images_in_order(store, rows, device, batch_size, self.card.centre_crop):
                parts.append(self(images).double().cpu())
        return torch.cat(parts).numpy()

    def save(self, folder: Path) -> None:
        """Write weights and card."""
        state = {f"encoder.{k}": v for k, v in self.encoder.backbone.net.state_dict().items()}
        state |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        write_classifier(folder, self.card, state)


def load_classifier(path: Path) -> Classifier:
    """Read a classifier: its folder, or either file in it.

    Raises:
        InputError: no classifier there, or weights that do not fit its card.
    """
    card, state = read_classifier(path)
    kept = card.encoder
    encoder = Encoder(kept, build_backbone(kept.architecture, kept.channels, kept.size, kept.stem))
    head = make_head(card.head, kept.num_features, len(card.class_names), card.task.kind)
    if "head.scale" in state:  # one number in earlier versions
        state["head.scale"] = state["head.scale"].expand(kept.num_features).clone()
    try:
        for prefix, part in (("encoder.", encoder.backbone.net), ("head.", head)):
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            part.load_state_dict(own)
    except RuntimeError:
        raise InputError(f"{path}: the classifier's weights do not fit its card") from None
    return Classifier(card, encoder, head)
