"""Monitors: collapses are seen, healthy encoders are left in peace, no held-out patient is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store
from trabecula.config import Record, build
from trabecula.data.batches import Batch, Stream
from trabecula.data.pretraining_pool import Labelled, labelled_training_part
from trabecula.data.views import Views
from trabecula.monitors.encoder import COLLAPSE, EncoderMonitor, judge, some_patients
from trabecula.monitors.monitor import Watched
from trabecula.nets.encoder import make_encoder
from trabecula.objectives import find
from trabecula.objectives.objective import Group, Objective, Product, Setting, Steps, Update
from trabecula.objectives.optim import Optimizer
from trabecula.train.loop import train

CPU = torch.device("cpu")


class AlikeConfig(Record):
    """Settings of `Alike`."""


class Alike(Objective):
    """Two views of an image shall have one direction, and nothing holds different images apart."""

    Config: ClassVar[type[Record]] = AlikeConfig
    batch_coupled = True

    def __init__(self, config: Record, encoder: Any, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.encoder = encoder
        self.views = Views(size=encoder.card.size)

    def groups(self) -> dict[str, Group]:
        return {"all": Group(list(self.parameters()), Optimizer(name="adam", lr=3e-3))}

    def products(self) -> dict[str, Product]:
        return {"encoder": self.encoder}

    def step(self, batches: Sequence[Batch], progress: float) -> Steps:  # noqa: ARG002
        (batch,) = batches
        a, b = (F.normalize(self.encoder(batch.view(self.views).images).float(), dim=1) for _ in range(2))
        yield Update("all", 1 - (a * b).sum(1).mean())


def followed(
    store: Store, objective: Objective, steps: int, labelled: Labelled | None = None
) -> tuple[list[dict[str, float]], list[list[str]]]:
    """The curve of a short training, and the names of what was found at each of its points."""
    rows = np.arange(len(store))
    monitor = EncoderMonitor(objective, Watched(store, rows, steps * 8, 0, CPU, labelled))
    curve: list[dict[str, float]] = []
    found = []
    for point in train(objective, Stream(store, rows, 8, 0), images=steps * 8, every=steps * 2):
        curve.append({"images": point.images, **point.scalars})
        measured, wrong = monitor.check(curve, point.last)
        curve[-1].update(measured)
        found.append([finding.name for finding in wrong])
    return curve, found


def test_a_method_without_its_other_half_collapses_and_is_seen(store: Store) -> None:
    """Alignment alone: each step makes all features more alike, until there is one."""
    objective = Alike(AlikeConfig(), make_encoder("critic:8-16-32", 1, 32, seed=0), Setting(24, 8, 0))
    start = EncoderMonitor(objective, Watched(store, np.arange(24), 1600, 0, CPU)).measure()
    assert judge(start, 24) == []
    curve, found = followed(store, objective, 400)
    assert curve[-1]["monitor/spread"] < 0.01 < start["monitor/spread"]
    assert found[-1] == [COLLAPSE]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("moco", {"dim": 16, "queue": 16, "bn_rows": 4}), ("wgan_gp", {"critic_steps": 1}), ("classify", {})],
)
def test_healthy_methods_are_left_in_peace(name: str, settings: dict[str, Any], store: Store) -> None:
    method = find(name)
    architecture = "critic" if name == "wgan_gp" else "timm:resnet10t"
    encoder = make_encoder(architecture, 1, 32, seed=0)
    objective = method(build(method.Config, settings, name), encoder, Setting(24, 8, 0))
    monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 256, 0, CPU))
    assert judge(monitor.measure(), 24) == []
    if name != "classify":  # a Stream without labels
        _, found = followed(store, objective, 32)
        assert not any(found)


@pytest.mark.parametrize(
    "architecture", ["critic", "timm:resnet18", "torchvision:squeezenet1_0", "timm:vit_tiny_patch16_224"]
)
def test_fresh_networks_are_not_accused(architecture: str, store: Store) -> None:
    objective = Alike(AlikeConfig(), make_encoder(architecture, 1, 32, seed=1), Setting(24, 8, 0))
    assert judge(EncoderMonitor(objective, Watched(store, np.arange(24), 10**6, 0, CPU)).measure(), 24) == []


def test_each_kind_of_collapse_has_its_sentence(store: Store) -> None:
    """Planted in the weights: the same features for every image, and features on one line."""
    encoder = make_encoder("critic:4-8-16", 1, 32, pool="mean", seed=0)
    last = [name for name, weight in encoder.named_parameters() if weight.ndim == 4][-1]
    objective = Alike(AlikeConfig(), encoder, Setting(24, 8, 0))
    monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 10**6, 0, CPU))
    weights = dict(encoder.named_parameters())
    bias = weights[last.replace("weight", "bias")]
    with torch.no_grad():
        kept = weights[last].clone()
        weights[last][1:] = weights[last][:1] * torch.linspace(0.5, 1.5, 15)[:, None, None, None]
        bias.zero_()
        bias[0] = 0.5  # or one line through the origin would be one direction
    (line,) = judge(monitor.measure(), 24)
    assert line.name == COLLAPSE
    assert "its features of 24 images are all on one line (effective rank 1" in line.text
    assert line.text.endswith("; the limit is 2)")
    with torch.no_grad():
        weights[last].copy_(0 * kept)
        bias.fill_(0.5)
    (same,) = judge(monitor.measure(), 24)
    assert same.text.startswith("the encoder has collapsed: its features of 24 images are almost identical (")
    assert same.text.endswith("; random directions would have 1)")
    with torch.no_grad():
        bias.fill_(float("nan"))
    (broken,) = judge(monitor.measure(), 24)
    assert broken.text.endswith("some of its features of 24 images are not finite")


def test_looking_changes_nothing(store: Store) -> None:
    """Batch norm's statistics, modes and weights stay, and training goes on as if nobody had looked."""
    ended = []
    for looks in (False, True):
        encoder = make_encoder("timm:resnet10t", 1, 32, seed=0)
        objective = Alike(AlikeConfig(), encoder, Setting(24, 8, 0))
        monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 10**6, 0, CPU))
        if looks:
            monitor.measure()
        for _ in train(objective, Stream(store, np.arange(24), 8, 0), images=64, every=16):
            if looks:
                assert monitor.measure()
                assert encoder.training
        ended.append({name: value.clone() for name, value in objective.state_dict().items()})
    for name, value in ended[0].items():
        assert torch.equal(value, ended[1][name]), name


def test_features_are_float32_whatever_the_run_computes_in(store: Store) -> None:
    """A line far from the origin: rounded to bf16 it would look like many directions."""
    encoder = make_encoder("critic:4-8-16", 1, 32, pool="mean", seed=0)
    objective = Alike(AlikeConfig(), encoder, Setting(24, 8, 0))
    monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 10**6, 0, CPU))
    outside = monitor.measure()
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.zeros(1, 1, 32, 32)).dtype == torch.bfloat16
        assert monitor.measure() == outside


def test_it_looks_at_the_end_and_else_not_too_often(store: Store) -> None:
    """20,000 images: 250 of either kind at most, and 16 times as many as looked at between two looks."""
    objective = Alike(AlikeConfig(), make_encoder("critic:4-8", 1, 32, seed=0), Setting(24, 8, 0))
    monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 20_000, 0, CPU))
    assert monitor.apart == 16 * 24
    curve: list[dict[str, float]] = []
    for images in range(128, 1408, 128):
        curve.append({"images": images})
        curve[-1].update(monitor.check(curve, last=images == 1280)[0])
    assert [p["images"] for p in curve if "monitor/rank" in p] == [384, 768, 1152, 1280]
    many = np.zeros(10**5, np.int64)
    apart = [EncoderMonitor(objective, Watched(store, many, n, 0, CPU)).apart for n in (100, 8_000, 10**6)]
    assert apart == [16 * 16, 16 * 100, 16 * 256]


def test_only_labels_of_the_training_part_are_looked_at(hospital: Path, tmp_path: Path) -> None:
    store = Store.open(hospital / "store")
    patients = sorted(set(store.index["patient_id"]))
    part = dict(zip(patients, ["train"] * 6 + ["val"] * 3 + ["test"] * 2, strict=False))  # one is in none
    lines = "".join(f"{patient},{name}\n" for patient, name in part.items())
    (tmp_path / "splits.csv").write_text("patient_id,split\n" + lines)
    splits = read_splits(tmp_path / "splits.csv")
    labelled = labelled_training_part(store, splits, hospital / "cohort", "kl")
    assert set(labelled.patients) == set(patients[:6])
    assert set(store.index["patient_id"].to_numpy()[labelled.rows]) == set(patients[:6])
    names = store.index["image_id"].to_numpy()[labelled.rows]
    assert [int(patient) % 100 % 3 for patient in labelled.patients] == labelled.y.tolist()
    assert len(names) == 12
    some = some_patients(labelled, 5)
    assert len(some.rows) == 4  # two whole patients
    assert len(some_patients(labelled, 1).rows) == 2  # one at least
    objective = Alike(AlikeConfig(), make_encoder("critic:4-8", 1, 32, seed=0), Setting(24, 8, 0))
    monitor = EncoderMonitor(objective, Watched(store, np.arange(24), 10**6, 0, CPU, labelled))
    assert 0 <= monitor.measure()["monitor/knn"] <= 1
