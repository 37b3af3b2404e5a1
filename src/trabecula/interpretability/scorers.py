"""Scores that can be explained: a classifier's class, or a critic's verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trabecula.artifacts.encoder import check_fit, folder_of
from trabecula.artifacts.store import Store
from trabecula.artifacts.tasks import Task
from trabecula.config import suggest
from trabecula.data.batches import images_in_order
from trabecula.data.views import centre
from trabecula.errors import InputError
from trabecula.interpretability.gradcam import Score, class_score
from trabecula.nets.classifier import load_classifier
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import Encoder, load_critic, load_encoder

BATCH = 64


@dataclass(frozen=True)
class Scorer:
    """A network, the score that is explained, and how a person reads it."""

    encoder: Encoder
    score: Score
    read: Callable[[NDArray[np.int64]], NDArray[np.float64]]  # rows of the store -> (n,)
    arm: str
    task: Task | None = None  # None for a critic
    task_name: str = ""
    target: str = ""
    crop: float = 1.0  # part of an image's side that is seen, about the centre


def recentred(images: Tensor, crop: float) -> Tensor:
    """What a network sees of (B, C, S, S) images, part `crop` of the side: of their size and type."""
    if crop == 1:
        return images
    limit = 255 if images.dtype == torch.uint8 else 65535
    return (centre(images, images.shape[-1], crop) * limit).round_().to(images.dtype)


def of_classifier(path: Path, store: Store, target: str, device: torch.device) -> Scorer:
    """One class of a classifier that `finetune` wrote: the target, or the last one where that is ""."""
    classifier = load_classifier(path)
    classifier.check_fit(store, store.path)
    card, names = classifier.card, classifier.card.class_names
    chosen = target or names[-1]
    if chosen not in names:
        raise InputError(f"target '{target}': no class of task '{card.origin.task}'{suggest(target, names)}")
    column = names.index(chosen)
    classifier.to(device).eval()

    def score(images: Tensor) -> Tensor:
        logits = classifier.head(classifier.encoder(images)).float()
        return class_score(logits, column, card.task.kind != "multilabel")

    def read(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return classifier.probabilities(store, rows, device, BATCH)[:, column]

    return Scorer(
        classifier.encoder, score, read, card.origin.arm, card.task, card.origin.task, chosen,
        card.centre_crop,
    )  # fmt: skip


def of_critic(path: Path, store: Store, device: torch.device) -> Scorer:
    """The score of a critic that an adversarial `pretrain` wrote."""
    encoder, critic = load_pair(path, store, device)

    def score(images: Tensor) -> Tensor:
        return critic.output(encoder.maps(images).flatten(1)).squeeze(1)  # type: ignore[no-any-return]

    return Scorer(encoder, score, partial(critic_scores, encoder, critic, store), encoder.card.name)


def load_pair(path: Path, store: Store, device: torch.device) -> tuple[Encoder, Critic]:
    """A folder's encoder and its critic, ready to score this store, which must be one that they fit."""
    critic, encoder = load_critic(folder_of(path)), load_encoder(path)
    check_fit(encoder.card, store, store.path)
    return encoder.to(device).eval(), critic.to(device)


@torch.inference_mode()
def critic_scores(
    encoder: Encoder, critic: Critic, store: Store, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n,) the critic's score of these rows."""
    batches = images_in_order(store, rows, encoder.mean.device, BATCH)
    parts = [critic(encoder.normalise(images)).double().cpu().numpy() for images in batches]
    return np.concatenate([np.empty(0), *parts])
