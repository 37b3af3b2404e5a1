"""Faults of adversarial training, planted one by one, and a sound training that is left in peace."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import pytest
import torch

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.monitors.gan import SETTLED, GanMonitor, judge
from trabecula.monitors.monitor import Watched
from trabecula.nets.encoder import make_encoder
from trabecula.nets.generators.upsampling import UpsamplingGenerator
from trabecula.objectives import find
from trabecula.objectives.adversarial import Adversarial
from trabecula.objectives.objective import Setting
from trabecula.train.loop import train

QUICK = {"lr": 1e-3, "betas": (0.0, 0.99)}
WELL = {
    "health/diversity": 0.8, "health/gradient_norm": 1.1, "health/batch_dependence": 1e-6,
    "health/relative_gap": 0.3, "health/spread": 1.0,
}  # fmt: skip


def make(
    store: Store, name: str = "wgan_gp", architecture: str = "critic:8-16-32-64-128", **settings: Any
) -> Adversarial:
    method = find(name)
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(method.Config, settings, name)
    return cast("Adversarial", method(config, encoder, Setting(len(store), 8, 1)))


def watched(store: Store, num: int = 24, device: str = "cpu") -> Watched:
    return Watched(store, np.arange(num), 64, 0, torch.device(device))


def trained(store: Store, steps: int = 24, **settings: Any) -> list[list[str]]:
    """Names of what was found at three points of a short training."""
    objective = make(store, **{"critic": QUICK, "generator": QUICK, **settings})
    health = GanMonitor(objective, watched(store))
    stream, curve, found = Stream(store, np.arange(24), 8, 2), [], []
    images = steps * objective.batches * 8
    for point in train(objective, stream, images=images, every=images // 3, precision="float32"):
        curve.append({"images": point.images, **point.scalars})
        found.append([finding.name for finding in health.check(curve, point.last)[1]])
    return found


def test_the_nets_go_where_the_images_are(store: Store) -> None:
    objective = make(store)
    health = GanMonitor(objective, watched(store, 4, "meta"))
    assert health.real.device.type == "meta"
    assert {weight.device.type for weight in objective.parameters()} == {"meta"}


def test_a_sound_training_is_left_in_peace(store: Store) -> None:
    assert trained(store) == [[], [], []]


def test_without_the_penalty_the_gradient_norm_gives_it_away(store: Store) -> None:
    found = trained(store, penalty=0)
    assert "gradient norm" in found[-1]


def test_batch_norm_in_the_critic_is_given_away_by_its_scores(store: Store) -> None:
    found = trained(store, architecture="critic_bn:8-16-32-64-128")
    assert all("batch mates" in names for names in found)


@pytest.mark.parametrize("name", ["gan_r1", "sn_gan", "r3gan"])
def test_other_methods_are_left_in_peace(name: str, store: Store) -> None:
    assert trained(store, name=name, steps=9) == [[], [], []]


def test_a_generator_of_one_image_has_collapsed(store: Store) -> None:
    objective = make(store)
    before = GanMonitor(objective, watched(store)).measure()
    with torch.no_grad():
        cast("UpsamplingGenerator", objective.generator).project.weight.mul_(1e-4)
        for layer in objective.generator.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eps = 10.0
    measured, found = GanMonitor(objective, watched(store)).check([{}], True)
    assert measured["health/diversity"] < 0.01 < before["health/diversity"]
    assert [finding.name for finding in found] == ["collapse"]
    assert "nearly alike" in found[0].text


def test_measuring_changes_nothing(store: Store) -> None:
    for name, architecture in (("wgan_gp", "critic_bn:8-16"), ("sn_gan", "critic:8-16")):
        objective = make(store, name, architecture)
        state, seed = copy.deepcopy(objective.state_dict()), torch.get_rng_state()
        health = GanMonitor(objective, watched(store, 8))
        assert health.measure() == health.measure()
        assert all(torch.equal(value, state[key]) for key, value in objective.state_dict().items())
        assert torch.equal(seed, torch.get_rng_state())


def names(changed: dict[str, float], updates: int = SETTLED, drawn_to_one: bool = True) -> list[str]:
    return [finding.name for finding in judge({**WELL, **changed}, [{}], updates, drawn_to_one)]


def test_each_measure_has_its_bounds() -> None:
    assert names({}) == []
    assert names({"health/gradient_norm": 2.1}) == names({"health/gradient_norm": 0.4}) == ["gradient norm"]
    assert names({"health/gradient_norm": 0.001}, updates=SETTLED - 1) == []  # a critic starts flat
    assert names({"health/gradient_norm": 90.0}, drawn_to_one=False) == []
    assert names({"health/relative_gap": -2.5}) == names({"health/relative_gap": 2.5}) == ["gap"]
    assert names({"health/batch_dependence": 2e-3}) == ["batch mates"]
    assert names({"health/diversity": 0.05}) == ["collapse"]
    assert names({"health/spread": 1e-6}) == ["silent critic"]
    assert names({"health/spread": 1e-6}, updates=1) == []
    assert "not finite" in names({"health/relative_gap": float("nan")})


def test_runaways_are_told_from_growth() -> None:
    calm = [{"images": i, "critic/norm": 1.0 + i, "generator/norm": 1.0, "gap": 0.5 * i} for i in range(6)]
    assert judge(WELL, calm, SETTLED, True) == []
    for name, word in (("critic/norm", "gradient of the critic"), ("gap", "gap between scores")):
        (finding,) = judge(WELL, [*calm, {**calm[-1], name: 1000.0}], SETTLED, True)
        assert finding.name == f"runaway {name}"
        assert word in finding.text
    assert judge(WELL, [calm[1], {**calm[1], "gap": 1000.0}], SETTLED, True) == []  # too early to know
