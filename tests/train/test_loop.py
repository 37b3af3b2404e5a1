"""The loop: guards, stops, means, schedules, batches without state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trabecula.artifacts.store import Store
from trabecula.data.batches import Batch, Stream
from trabecula.errors import InputError, RunError
from trabecula.kernels.linear import ProductLinear
from trabecula.objectives.objective import Group, Objective, Steps, Update
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import RowRandom, mix
from trabecula.train import checkpoint
from trabecula.train.loop import train


class Toy(Objective):
    """One weight pulled to the batch's mean intensity."""

    def __init__(self, break_at: int = -1, inside_with: bool = False, clip: float | None = None) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.break_at, self.inside_with, self.clip = break_at, inside_with, clip

    def groups(self) -> dict[str, Group]:
        return {"toy": Group([self.weight], Optimizer(name="sgd", lr=0.1, momentum=0.5, clip_norm=self.clip))}

    def step(self, batches: Sequence[Batch], progress: float) -> Steps:
        self.progress = progress
        if self.inside_with:
            with torch.no_grad():
                yield Update("toy", self.weight.sum())
        target = batches[0].images.float().mean() / 255
        loss = (self.weight - target).square().sum()
        yield Update("toy", loss / 0 if int(self.steps) == self.break_at else loss, {"target": target})
        self.steps += 1


@pytest.fixture
def stream(store: Store) -> Stream:
    return Stream(store, np.arange(len(store)), 8, seed=1)


def test_points_come_at_their_images_and_carry_means(stream: Stream) -> None:
    points = list(train(Toy(), stream, images=80, every=32, precision="float32"))
    assert [(p.images, p.last) for p in points] == [(32, False), (64, False), (80, True)]
    targets = [stream.batch(i).images.float().mean().item() / 255 for i in range(10)]
    assert points[0].scalars["target"] == pytest.approx(np.mean(targets[:4]), rel=1e-5)
    assert points[2].scalars["target"] == pytest.approx(np.mean(targets[8:]), rel=1e-5)
    assert {"toy/loss", "toy/norm"} <= set(points[0].scalars)


def test_linear_layers_learn_by_the_quicker_products(stream: Stream) -> None:
    toy = Toy()
    toy.head = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    list(train(toy, stream, images=8, every=8, precision="float32"))
    assert isinstance(toy.head[0], ProductLinear)


def test_a_loss_that_is_not_finite_stops_names_the_step_and_keeps_the_checkpoint(
    stream: Stream, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(RunError, match=r"step 5: the loss of 'toy' is inf.*checkpoint is kept"):
        list(train(Toy(break_at=5), stream, images=80, every=8, checkpoint=path, save_s=0))
    state = checkpoint.load(path)
    assert state is not None
    assert state["step"] == 5


def test_a_yield_inside_a_with_is_refused(stream: Stream) -> None:
    with pytest.raises(RuntimeError, match="yielded inside a `with`"):
        list(train(Toy(inside_with=True), stream, images=8, every=8))


def test_memory_travels_in_the_checkpoint_and_can_stop_the_run(stream: Stream, tmp_path: Path) -> None:
    path, memory = tmp_path / "checkpoint.pt", {"count": 0}
    for point in train(Toy(), stream, images=800, every=8, checkpoint=path, save_s=0, memory=memory):
        memory["count"] += 1
        memory["stopped"] = point.images >= 40
    assert memory["count"] == 5
    again: dict[str, int] = {}
    assert list(train(Toy(), stream, images=800, every=8, checkpoint=path, memory=again)) == []
    assert again["count"] == 5


def test_clipping_scales_the_gradient_and_reports_it_unclipped(stream: Stream) -> None:
    clipped, free = Toy(clip=1e-3), Toy()
    a = next(train(clipped, stream, images=8, every=8, precision="float32"))
    b = next(train(free, stream, images=8, every=8, precision="float32"))
    assert a.scalars["toy/norm"] == b.scalars["toy/norm"]
    assert clipped.weight.grad is not None
    assert clipped.weight.grad.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_run_does_not_go_on_in_another_precision(stream: Stream, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    next(iter(train(Toy(), stream, images=8, every=8, checkpoint=path, save_s=0, precision="float32")))
    list(train(Toy(), stream, images=16, every=8, checkpoint=path, save_s=0, precision="float32"))
    with pytest.raises(InputError, match="was begun in float32, here it would go on in bf16"):
        list(train(Toy(), stream, images=24, every=8, checkpoint=path, precision="bf16"))


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load(path)


def test_schedules() -> None:
    cosine = Optimizer(lr=2.0, schedule="cosine", warmup=0.5)
    assert [cosine.rate(t) for t in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([0, 1, 2, 1, 0])
    assert Optimizer(lr=2.0).rate(0.9) == 2


def test_vectors_can_be_left_out_of_weight_decay() -> None:
    layer = nn.Linear(3, 2)
    groups = (
        Optimizer(name="adamw", weight_decay=0.1, decay_vectors=False)
        .make(list(layer.parameters()))
        .param_groups
    )
    assert [(len(g["params"]), g["params"][0].ndim, g["weight_decay"]) for g in groups] == [
        (1, 2, 0.1),
        (1, 1, 0.0),
    ]


def test_a_stream_goes_once_over_its_rows_each_pass_in_another_order(store: Store) -> None:
    stream = Stream(store, np.arange(4, 20), 8, seed=3)
    passes = [np.concatenate([stream.batch(2 * p + i).rows for i in range(2)]) for p in range(3)]
    for rows in passes:
        assert sorted(rows) == list(range(4, 20))
    assert not np.array_equal(passes[0], passes[1])
    assert np.array_equal(Stream(store, np.arange(4, 20), 8, seed=3).batch(5).rows, stream.batch(5).rows)
    assert not np.array_equal(Stream(store, np.arange(4, 20), 8, seed=4).batch(0).rows, stream.batch(0).rows)


def test_batches_larger_than_the_pool_straddle_passes(store: Store) -> None:
    rows = Stream(store, np.arange(5), 12, seed=0).batch(0).rows
    assert np.bincount(rows).tolist().count(2) + np.bincount(rows).tolist().count(3) == 5


def test_random_numbers_belong_to_rows_not_to_ranks_or_parts(store: Store) -> None:
    whole = Stream(store, np.arange(24), 8, seed=3)
    ranks = [Stream(store, np.arange(24), 8, seed=3, rank=r, world_size=2) for r in range(2)]
    a = whole.batch(4)
    b = [s.batch(4) for s in ranks]
    assert np.array_equal(a.rows, np.concatenate([part.rows for part in b]))
    for draw in ("normal", "uniform"):
        expected = getattr(a.random, draw)(3, 2)
        assert torch.equal(expected, torch.cat([getattr(part.random, draw)(3, 2) for part in b]))
    parts = whole.batch(4).split(4)
    first = whole.batch(4).random.normal(2)
    assert torch.equal(first, torch.cat([part.random.normal(2) for part in parts]))
    assert torch.equal(b[0].random.permutation(), b[1].random.permutation())


def test_draws_differ_from_each_other_and_between_batches() -> None:
    random = RowRandom(mix(1, "batch", 0), 1000, slice(0, 1000), torch.device("cpu"))
    a, b = random.normal(), random.normal()
    other = RowRandom(mix(1, "batch", 1), 1000, slice(0, 1000), torch.device("cpu")).normal()
    for x, y in ((a, b), (a, other)):
        assert abs(float(torch.corrcoef(torch.stack([x, y]))[0, 1])) < 0.12
