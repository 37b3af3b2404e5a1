"""Classifiers on disk: an encoder, its head, and a card with the task and the threshold."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import save as safetensors_bytes
from torch import nn

from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.predictions import Choice, Origin
from trabecula.artifacts.store import Store, check_prepared
from trabecula.artifacts.tasks import Task
from trabecula.artifacts.weights import read_weights
from trabecula.config import Record, build
from trabecula.data.views import centre
from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder
from trabecula.nets.heads import HeadChoice, TaskHead, make_head
from trabecula.run import Run

WEIGHTS_FILE = "classifier.safetensors"
CARD_FILE = "classifier.json"


class ClassifierCard(Record):
    """What a classifier predicts and where it comes from."""

    format: int = 1
    """Format of the card."""
    task: Task
    """What it was trained for."""
    class_names: tuple[str, ...]
    """Its outputs."""
    origin: Origin
    """Arm, fraction and seed."""
    choice: Choice
    """Threshold and counts, fixed on validation."""
    preprocessing: str
    """Hash of the preprocessing of its images: a store of another one is refused."""
    prepared: dict[str, Any] = Field(default_factory=dict)
    """The settings of that preprocessing."""
    size: int = Field(ge=1)
    """Side of its images, px."""
    encoder: EncoderCard
    """The encoder it started from."""
    head: HeadChoice = "linear"
    """What stands on the encoder."""
    centre_crop: float = Field(default=1.0, gt=0, le=1)
    """Part of an image's side that it sees, about the centre, resized to the whole size."""


class Classifier(nn.Module):
    """Images in [0, 1] to class probabilities."""

    def __init__(self, card: ClassifierCard, encoder: Encoder, head: TaskHead) -> None:
        super().__init__()
        self.card, self.encoder, self.head = card, encoder, head

    def check_fit(self, store: Store, path: Path) -> None:
        """Refuse a store that was prepared otherwise than the classifier's own images."""
        known = self.card.prepared or {"size": self.card.size}
        check_prepared(store, path, f"classifier '{self.card.origin.arm}'", self.card.preprocessing, known)

    @torch.inference_mode()
    def probabilities(
        self, store: Store, rows: NDArray[np.int64], device: torch.device, batch_size: int = 256
    ) -> NDArray[np.float64]:
        """(n, K) of these rows of a store: classes sum to 1, labels each have their own."""
        self.to(device).eval()
        parts = [torch.empty(0, len(self.card.class_names), dtype=torch.float64)]
        for start in range(0, len(rows), batch_size):
            pixels = store.read(rows[start : start + batch_size])
            images = centre(pixels, store.size, self.card.centre_crop).to(device)
            with exact():
                logits = self.head(self.encoder(images)).float()
            single = self.card.task.kind != "multilabel"
            parts.append((logits.softmax(1) if single else logits.sigmoid()).double().cpu())
        return torch.cat(parts).numpy()


def save_classifier(classifier: Classifier, out: Run) -> None:
    """Write the weights, then the card."""
    state = {f"encoder.{k}": v for k, v in classifier.encoder.backbone.net.state_dict().items()}
    state |= {f"head.{k}": v for k, v in classifier.head.state_dict().items()}
    state = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    out.write(WEIGHTS_FILE, safetensors_bytes(state))
    out.write_json(CARD_FILE, classifier.card.model_dump(mode="json"))


def load_classifier(path: Path) -> Classifier:
    """Read a classifier: its folder, or either file in it.

    Raises:
        InputError: no classifier there, or weights that do not fit its card.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / CARD_FILE
    if not file.exists():
        raise InputError(f"{path}: no classifier there ({CARD_FILE} is missing); {_what_writes_one(folder)}")
    card = build(ClassifierCard, json.loads(file.read_text()), str(file))
    kept = card.encoder
    encoder = Encoder(kept, build_backbone(kept.architecture, kept.channels, kept.size, kept.stem))
    head = make_head(card.head, kept.num_features, len(card.class_names), card.task.kind)
    state = read_weights(folder / WEIGHTS_FILE)
    try:
        for prefix, part in (("encoder.", encoder.backbone.net), ("head.", head)):
            part.load_state_dict(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
    except RuntimeError:
        raise InputError(f"{folder / WEIGHTS_FILE}: does not fit its card {CARD_FILE}") from None
    return Classifier(card, encoder, head)


def _what_writes_one(folder: Path) -> str:
    """The remedy; a fine-tuning may have been told to keep none, as in a study of many."""
    with suppress(OSError, ValueError, AttributeError):
        config = json.loads((folder / "config.json").read_text())
        if config.get("verb") == "finetune" and config["settings"].get("keep") is False:
            return "this fine-tuning ran with keep = false; run it again with keep = true and another --out"
    return "`trabecula finetune` writes one"
