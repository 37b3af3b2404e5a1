"""The contract that every objective keeps; a new line in the table is tested without a new line here."""

from __future__ import annotations

import copy
import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from trabecula.artifacts.encoder import has_encoder
from trabecula.artifacts.generator import has_generator
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import FIELDS, Stream
from trabecula.errors import InputError
from trabecula.monitors import TABLE as MONITORS
from trabecula.nets.encoder import make_encoder
from trabecula.objectives import TABLE, find
from trabecula.objectives.objective import Objective, Setting
from trabecula.train.loop import train

NAMES = sorted(TABLE)
BATCH = 8
STEPS = 1  # of the comparison of two processes with one
SEED = 8  # of its batches: with some seeds rounding turns the sign of a unit that is nearly 0


def make(name: str, store: Store, architecture: str = "") -> tuple[Objective, Stream]:
    method = find(name)
    encoder = make_encoder(architecture or method.architectures[0], store.channels, store.size, seed=3)
    settings = build(method.Config, method.tiny, name)
    objective = method(settings, encoder, Setting(len(store), BATCH, seed=5))
    fields = fields_of(method.fields, len(store))
    return objective, Stream(store, np.arange(len(store)), BATCH, seed=7, fields=fields)


def fields_of(names: tuple[str, ...], num: int) -> dict[str, Any]:
    """Something for every field a method may declare: random tokens, one box, pairs of white images."""
    generator = np.random.default_rng(0)
    every = {
        "labels": np.arange(num) % 2,
        "text": generator.integers(0, 16, (num, 6)),
        "boxes": np.tile(np.array([[[2.0, 2.0, 20.0, 20.0]]], dtype=np.float32), (num, 1, 1)),
        "pair": np.full((num, 1, 32, 32), 255, dtype=np.uint8),
        "patient": np.arange(num) // 2,
    }
    assert every.keys() == FIELDS.keys()
    return {name: every[name] for name in names}


def advance(objective: Objective, stream: Stream, steps: int, **options: Any) -> list[float]:
    images = steps * objective.batches * stream.batch_size
    points = train(objective, stream, images=images, every=1, **{"precision": "float32", **options})
    return [v for p in points for k, v in p.scalars.items() if k.endswith("/loss")]


def trainable(objective: Objective) -> dict[str, torch.nn.Parameter]:
    return {name: w for name, w in objective.named_parameters() if w.requires_grad}


def is_zero(objective: Objective, name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in objective.zero_gradients)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names that differ by a bit."""
    return [k for k in a.keys() | b.keys() if k not in a or k not in b or not torch.equal(a[k], b[k])]


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_in_a_group_gets_a_gradient_and_moves(name: str, store: Store) -> None:
    objective, stream = make(name, store)
    before = {k: w.detach().clone() for k, w in trainable(objective).items()}
    grouped = {id(w) for group in objective.groups().values() for w in group.weights}
    assert [k for k, w in trainable(objective).items() if id(w) not in grouped] == []
    advance(objective, stream, 3)
    for key, weight in trainable(objective).items():
        assert weight.grad is not None, key
        scale = max(float(w.grad.abs().max()) for w in trainable(objective).values() if w.grad is not None)
        if is_zero(objective, key):
            assert float(weight.grad.abs().max()) < 1e-5 * max(scale, 1), key
        else:
            assert float(weight.grad.abs().max()) > 0, key
            assert not torch.equal(weight, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_what_it_declares_is_known_and_what_it_leaves_can_be_saved(
    name: str, store: Store, tmp_path: Path
) -> None:
    method, (objective, _) = find(name), make(name, store)
    assert set(method.fields) <= FIELDS.keys()
    assert set(method.monitors) <= MONITORS.keys()
    assert not method.of_task or "labels" in method.fields
    assert set(method.of_task) <= method.Config.model_fields.keys()
    products = objective.products()
    assert ("encoder" in products) == method.trains_encoder
    assert method.trains_encoder or "encoder" not in method.monitors
    card = make_encoder(method.architectures[0], store.channels, store.size).card
    for product in products.values():
        product.save(tmp_path, card, 64)
    assert has_encoder(tmp_path) == ("encoder" in products)
    assert has_generator(tmp_path) == ("generator" in products)
    samples = objective.samples(2, seed=0)
    assert (samples is not None) == ("generator" in products)


@pytest.mark.parametrize("name", [name for name in NAMES if find(name).fields])
def test_batches_without_what_it_learns_from_are_refused(name: str, store: Store) -> None:
    objective, _ = make(name, store)
    before = copy.deepcopy(objective.state_dict())
    stream = Stream(store, np.arange(len(store)), BATCH, seed=7)
    with pytest.raises(
        InputError, match=f"{name} learns from images with .*{find(name).fields[0]}.* carry images"
    ):
        advance(objective, stream, 1)
    assert same(before, objective.state_dict()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_small_pool_can_be_learned(name: str, store: Store) -> None:
    objective, stream = make(name, store)
    if len(objective.groups()) > 1:
        pytest.skip("adversarial: its losses have no floor to fall to")
    losses = np.array(advance(objective, stream, 150)).reshape(-1, 10).mean(1)
    assert losses[-1] < 0.6 * losses.max(), losses


@pytest.mark.parametrize("name", NAMES)
def test_stop_and_resume_is_bit_identical(name: str, store: Store, tmp_path: Path) -> None:
    whole, stream = make(name, store)
    advance(whole, stream, 6)
    checkpoint = tmp_path / "checkpoint.pt"
    first, stream = make(name, store)
    images = 6 * first.batches * BATCH
    for point in train(
        first, stream, images=images, every=1, precision="float32", checkpoint=checkpoint, save_s=0
    ):
        if point.images > images // 2:
            break  # the checkpoint of this point is never written, as if killed here
    second, stream = make(name, store)
    advance(second, stream, 6, checkpoint=checkpoint)
    assert same(whole.state_dict(), second.state_dict()) == []


@pytest.mark.parametrize("name", [name for name in NAMES if find(name).batch_coupled])
def test_a_batch_that_cannot_teach_is_refused_where_rows_mix(name: str, store: Store) -> None:
    method = find(name)
    encoder = make_encoder(method.architectures[0], store.channels, store.size, seed=3)
    settings = build(method.Config, method.tiny, name)
    for num_images, batch_size, why in (
        (24, 1, "batch of one image has no statistics"),
        (1, BATCH, "the pool holds one image"),
        (
            12,
            24,
            "batch of 24 is larger than the pool of 12 images.* -s batch_size=8.*of the arm's",
        ),
    ):
        with pytest.raises(InputError, match=f"^{name}: .*({why})"):
            method(settings, encoder, Setting(num_images, batch_size, seed=5))


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_is_exact_or_refused(name: str, store: Store) -> None:
    whole, stream = make(name, store)
    parts, _ = make(name, store)
    if whole.batch_coupled:
        with pytest.raises(InputError, match="accumulate=2"):
            advance(parts, stream, 1, accumulate=2)
        return
    advance(whole, stream, 1)
    advance(parts, stream, 1, accumulate=2)
    for key, weight in trainable(whole).items():
        torch.testing.assert_close(trainable(parts)[key].grad, weight.grad, rtol=1e-4, atol=1e-7, msg=key)


def test_a_norm_over_the_batch_refuses_accumulation(store: Store) -> None:
    objective, stream = make("classify", store, "timm:resnet10t")
    with pytest.raises(InputError, match="batch norm"):
        advance(objective, stream, 1, accumulate=2)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_runs_and_stays_near_float32(name: str, store: Store) -> None:
    exact, stream = make(name, store)
    coarse, _ = make(name, store)
    a, b = advance(exact, stream, 2), advance(coarse, stream, 2, precision="bf16")
    np.testing.assert_allclose(a, b, atol=0.15)
    assert a != b  # else bf16 was not used at all


@pytest.mark.parametrize("name", NAMES)
def test_steps_leave_the_global_random_numbers_alone(name: str, store: Store) -> None:
    before = torch.get_rng_state()
    objective, stream = make(name, store)
    advance(objective, stream, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_state_across_steps_is_in_buffers(name: str, store: Store) -> None:
    """A copy made from the state dict alone goes on like the original."""
    first, stream = make(name, store)
    advance(first, stream, 3)
    second, _ = make(name, store)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    a, b = (advance(objective, stream, 1) for objective in (first, second))
    assert a == b


def _two_processes(rank: int, name: str, architecture: str, path: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=2
    )
    store = Store.open(path)
    objective, stream = make(name, store, architecture)
    stream = Stream(
        store, np.arange(len(store)), BATCH, seed=SEED, fields=stream.fields, rank=rank, world_size=2
    )
    losses = advance(objective, stream, STEPS)
    grads = {k: w.grad for k, w in trainable(objective).items()}
    torch.save({"losses": losses, "grads": grads, "state": objective.state_dict()}, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [(name, architecture) for name in NAMES for architecture in find(name).architectures],
)
def test_two_processes_equal_one(name: str, architecture: str, hospital: Path, tmp_path: Path) -> None:
    mp.spawn(_two_processes, (name, architecture, hospital / "store", tmp_path), nprocs=2)
    two, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    one, stream = make(name, Store.open(hospital / "store"), architecture)
    stream = Stream(stream.store, stream.rows, BATCH, seed=SEED, fields=stream.fields)
    losses = advance(one, stream, STEPS)
    # Of a loss that mixes rows each process has the whole one, of others that of its rows.
    np.testing.assert_allclose((np.array(two["losses"]) + other["losses"]) / 2, losses, rtol=2e-3, atol=2e-3)
    assert same(two["grads"], other["grads"]) == []
    # Relative to the largest gradient: sums are taken in another order, and Adam's first step blows up
    # rounding wherever a gradient is all but zero.
    scale = max(float(w.grad.abs().max()) for w in trainable(one).values() if w.grad is not None)
    worst = {
        key: float((two["grads"][key] - weight.grad).abs().max()) / scale
        for key, weight in trainable(one).items()
        if not is_zero(one, key) and weight.grad is not None
    }
    assert max(worst.values()) < 1e-3, sorted(worst.items(), key=lambda item: -item[1])[:3]
    for key, buffer in one.named_buffers():
        if key in two["state"] and buffer.is_floating_point():
            torch.testing.assert_close(two["state"][key], buffer, rtol=2e-3, atol=2e-3, msg=key)
