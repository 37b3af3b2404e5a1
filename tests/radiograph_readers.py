"""What may and what may not tell the grade of a phantom radiograph: global statistics, a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trabecula.phantoms.patients import Joints, Radiograph, Side

Films = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def many(draw: Callable[[Joints, int, Side], Radiograph], settings: Joints, num_films: int) -> Films:
    """Images with right joints flipped to left, grades, patients."""
    sides: tuple[Side, Side] = ("L", "R")
    drawn = [(p, side, draw(settings, p, side)) for p in range(num_films // 2) for side in sides]
    images = np.stack([k.image if side == "L" else k.image[:, ::-1] for _, side, k in drawn])
    return images, np.array([k.grade for *_, k in drawn]), np.array([p for p, *_ in drawn])


def statistics(image: NDArray[Any]) -> NDArray[Any]:
    """Everything a grey-value histogram knows."""
    bins = np.histogram(image, 64, (0, 256))[0] / image.size
    told: NDArray[Any] = np.r_[bins, image.mean(), image.std(), np.quantile(image, np.linspace(0, 1, 21))]
    return told


def spectrum(image: NDArray[Any]) -> NDArray[Any]:
    """Log power by spatial frequency, and gradient energy."""
    grey = image / 255.0
    window = np.hanning(len(grey))
    power = np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * np.outer(window, window)))) ** 2
    place = np.arange(len(grey)) - len(grey) // 2
    ring = np.hypot(place[:, None], place[None]).astype(int)
    rows, columns = np.gradient(grey)
    steep = np.hypot(rows, columns)
    rings = np.log(np.bincount(ring.ravel(), power.ravel())[: len(grey) // 2] + 1e-6)
    told: NDArray[Any] = np.r_[
        rings, (rows**2).mean(), (columns**2).mean(), np.quantile(steep, [0.5, 0.9, 0.99])
    ]
    return told


MODELS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=3000)),
    "forest": lambda: RandomForestClassifier(200, min_samples_leaf=5, random_state=0),
}


def out_of_fold(describe: Callable[[NDArray[Any]], NDArray[Any]], model: str, films: Films) -> float:
    """AUROC of KL >= 2 from a description of each film, five folds by patient."""
    images, grades, patients = films
    features = np.stack([describe(image) for image in images])
    scores = cross_val_predict(
        MODELS[model](), features, grades >= 2, groups=patients, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    return float(roc_auc_score(grades >= 2, scores))


def network_reads(films: Films, num_train: int, epochs: int) -> float:
    """AUROC of KL >= 2 of a small network taught by the first radiographs, over all but the first 500."""
    import torch

    images, grades, _ = films
    x = torch.from_numpy(images.copy()).float().div(255).unsqueeze(1)  # (n, 1, S, S)
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
    y = torch.from_numpy((grades >= 2).astype(np.float32))
    scores = trained(x[:num_train], y[:num_train], epochs)(x[500:]).squeeze(1).numpy()
    return float(roc_auc_score(y[500:], scores))


def trained(x, y, epochs: int):  # type: ignore[no-untyped-def]
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers, channels = [], 1
    for width in (8, 16, 32, 64):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, y[0].numel()))
    steps = epochs * (len(x) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for batch in range(len(x) // 32):
            rows = order[batch * 32 : (batch + 1) * 32]
            shifted = torch.roll(x[rows], torch.randint(-4, 5, (2,)).tolist(), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(net(shifted), y[rows].reshape(32, -1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().requires_grad_(False)
