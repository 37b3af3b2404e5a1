"""A whole step of every method without a critic, beside one written out from its paper."""

# ruff: noqa: ARG001 -- a step is given the progress, whether it uses it or not

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from whole_steps import VIEWS, check_steps, disturb, follow, make

from trabecula.artifacts.store import Store
from trabecula.nets.mae import PatchMask
from trabecula.objectives.objective import Batches, Steps, Update


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def two_views(net: Any, batches: Batches) -> tuple[Tensor, Tensor]:
    """The first view is drawn first, each by the settings of its own."""
    (batch,) = batches
    first = batch.view(net.config.views_a).images
    return first, batch.view(net.config.views_b).images


def moco(net: Any, batches: Batches, progress: float) -> Steps:
    """He et al. 2020, algorithm 1, with the shuffle of section 3.3."""
    (batch,) = batches
    t = net.config.temperature
    q = unit(net.query(batch.view(net.config.views).images))
    follow(net.key, net.query, net.config.momentum)
    with torch.no_grad():
        images = batch.view(net.config.views).images
        shuffle = batch.random.permutation()
        k = torch.empty_like(q)
        k[shuffle] = unit(net.key(images[shuffle]))
    positive = torch.einsum("nc,nc->n", q, k) / t
    negative = torch.einsum("nc,kc->nk", q, net.queue.clone()) / t
    both = positive.exp() + negative.exp().sum(1)
    yield Update("query", -(positive.exp() / both).log().mean())
    net.queue = torch.roll(net.queue, -int(net.pointer), 0)
    net.queue[: len(k)] = k
    net.queue = torch.roll(net.queue, int(net.pointer), 0)
    net.pointer = (net.pointer + len(k)) % len(net.queue)


def test_moco(store: Store) -> None:
    objective, stream = make("moco", store, "timm:resnet10t", momentum=0.7, queue=16)
    disturb(objective.key)  # type: ignore[arg-type]
    check_steps(objective, stream, moco, (0.0, 0.3, 0.6))  # the third batch is where the first was


def barlow(net: Any, batches: Batches, progress: float) -> Steps:
    """Zbontar et al. 2021, equations 1 and 2."""
    z = [net.projector(net.encoder(images)) for images in two_views(net, batches)]
    a, b = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() for x in z)
    c = a.t() @ b / len(a)
    on = torch.eye(len(c), dtype=torch.bool)
    yield Update("all", (1 - c[on]).square().sum() + net.config.redundancy * c[~on].square().sum())


def vicreg(net: Any, batches: Batches, progress: float) -> Steps:
    """Bardes et al. 2021, algorithm 1, with the factors of the official code."""
    z = [net.projector(net.encoder(images)) for images in two_views(net, batches)]
    variance = covariance = torch.zeros(())
    for x in z:
        variance = variance + torch.relu(1 - (x.var(0) + 1e-4).sqrt()).mean() / 2
        c = torch.cov(x.t())
        covariance = covariance + (c.square().sum() - c.diagonal().square().sum()) / len(c)
    near = (z[0] - z[1]).square().mean()
    weights = net.config
    yield Update(
        "all", weights.invariance * near + weights.variance * variance + weights.covariance * covariance
    )


def byol(net: Any, batches: Batches, progress: float) -> Steps:
    """Grill et al. 2020, equation 2 and section 3.2."""
    a, b = two_views(net, batches)
    loss = torch.zeros(())
    for seen, other in ((a, b), (b, a)):
        predicted = unit(net.predictor(net.online(seen)))
        with torch.no_grad():
            wanted = unit(net.target(other))
        loss = loss + (predicted - wanted).square().sum(1).mean()
    yield Update("online", loss)
    tau = 1 - (1 - net.config.momentum) * (math.cos(math.pi * progress) + 1) / 2
    follow(net.target, net.online, tau)


@pytest.mark.parametrize(
    ("plain", "width"),  # fewer features than rows, and more
    [(barlow, 4), (barlow, 24), (vicreg, 4), (vicreg, 24), (byol, 24)],
)
def test_two_views(plain: Any, width: int, store: Store) -> None:
    sizes = {"hidden": width, "dim": 6} if plain is byol else {"width": width}
    objective, stream = make(plain.__name__, store, "timm:resnet10t", **sizes, **VIEWS)
    if plain is byol:
        disturb(objective.target)  # type: ignore[arg-type]
        objective.double()  # its second step is a hundred times as wrong in float32
    check_steps(objective, stream, plain, (0.2, 0.7))


def cnn_jepa(net: Any, batches: Batches, progress: float) -> Steps:
    """Assran et al. 2023, section 3; Tian et al. 2023, section 3, on a network of convolutions alone."""
    (batch,) = batches
    follow(net.teacher, net.student, 1 - (1 - net.config.momentum) * (math.cos(math.pi * progress) + 1) / 2)
    images = batch.view(net.config.views).images
    rows, columns = net.grid
    kind, size = batch.random.once(2).tolist()
    hidden = torch.zeros(len(images), rows, columns, dtype=torch.bool)
    if kind < net.config.masking.blocks:
        side = int(rows * columns * (0.15 + 0.05 * size))  # of 3 x 3 cells, one: all that fits
        assert side == 1
        for image, places in zip(hidden, batch.random.uniform(4, 2).tolist(), strict=True):
            for down, right in places:
                image[int(down * rows), int(right * columns)] = True
    else:
        order = batch.random.uniform(rows * columns).argsort(1)
        for image, cells in zip(hidden, order, strict=True):
            image.view(-1)[cells[round(rows * columns * 0.4) :]] = True
    x = net.student.normalise(images)
    for layer in [None, *net.student.backbone.net]:  # nothing of a hidden cell, before and after each layer
        x = x if layer is None else layer(x)
        scale = x.shape[-1] // columns
        x = x * ~hidden[:, None].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    x = torch.where(hidden[:, None], net.predictor.token[:, None, None], x)
    for layer in net.predictor.layers:
        x = layer(x)
    with torch.no_grad():
        y = unit(net.teacher.maps(images))
    apart = (unit(x) - y).abs()
    each = torch.where(apart < 1, apart.square() / 2, apart - 0.5).sum(1)
    yield Update("student", each[hidden].mean())


@pytest.mark.parametrize("blocks", [0.0, 1.0])
def test_cnn_jepa(blocks: float, store: Store) -> None:
    objective, stream = make("cnn_jepa", store, "critic", momentum=0.6, masking={"blocks": blocks})
    disturb(objective.teacher)  # type: ignore[arg-type]
    check_steps(objective, stream, cnn_jepa, (0.1, 0.6))


def mae(net: Any, batches: Batches, progress: float) -> Steps:
    """He et al. 2021, section 3: the error of each hidden patch brought to mean 0 and variance 1."""
    (batch,) = batches
    x = net.encoder.normalise(batch.view(net.config.views).images)
    p, per_row = net.patch, x.shape[-1] // net.patch
    order = batch.random.uniform(per_row**2).argsort(1)
    visible = order[:, : per_row**2 // 2]
    mask = torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
    predicted = net(x, PatchMask(visible, order.argsort(1), mask))
    errors = []
    for image, said, hidden in zip(x, predicted, mask, strict=True):
        for place in hidden.nonzero()[:, 0].tolist():
            top, left = p * (place // per_row), p * (place % per_row)
            pixels = image[:, top : top + p, left : left + p].permute(1, 2, 0).flatten()
            if net.config.norm_pix:
                pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            errors.append((said[place] - pixels).square().mean())
    yield Update("autoencoder", torch.stack(errors).mean())


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae(norm_pix: bool, store: Store) -> None:
    views = {"crop_scale": (0.4, 0.8), "rotate": 0, "blur": 0, "intensity": 0}
    objective, stream = make("mae", store, "timm:test_vit_patch8", norm_pix=norm_pix, views=views)
    check_steps(objective, stream, mae, (0.0, 0.5))


def classify(net: Any, batches: Batches, progress: float) -> Steps:
    """Weighted cross-entropy, its mean over images; dropout of the batch's own numbers, after the view's."""
    (batch,) = batches
    x = net.encoder(batch.view(net.config.views).images)
    x = torch.tanh(net.head.hidden.linear0(x))
    x = x * (batch.random.uniform(x.shape[1]) >= 0.2) / 0.8
    p = torch.softmax(net.head.output(x), 1)
    weights = torch.tensor(net.config.class_weights)
    labels = batch.fields["labels"]
    yield Update(
        "all", torch.stack([-weights[y] * row[y].log() for row, y in zip(p, labels, strict=True)]).mean()
    )


def test_classify(store: Store) -> None:
    views = {"crop_scale": (0.4, 0.8), "rotate": 20, "blur": 0, "intensity": 0.5}
    settings = {"num_classes": 3, "class_weights": (0.5, 1.0, 3.0), "views": views}
    objective, stream = make("classify", store, "timm:resnet10t", **settings)
    check_steps(objective, stream, classify, (0.0, 0.5))
