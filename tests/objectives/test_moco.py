"""MoCo v2: golden value, queue, key batch norm, order of the step."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.nets.encoder import make_encoder
from trabecula.nets.norm import GlobalBatchNorm
from trabecula.objectives.moco import Moco, MocoConfig, _check, contrast
from trabecula.objectives.objective import Setting
from trabecula.train.loop import train

BATCH = 8


def golden() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and a queue given by closed formulas."""
    i, j = torch.meshgrid(torch.arange(8.0).double(), torch.arange(6.0).double(), indexing="ij")
    q = F.normalize(torch.sin(0.7 * i + 1.3 * j + 0.1 * i * j), dim=1)
    k = F.normalize(torch.cos(0.5 * i - 0.9 * j + 0.2 * i * j), dim=1)
    r, c = torch.meshgrid(torch.arange(16.0).double(), torch.arange(6.0).double(), indexing="ij")
    return q, k, F.normalize(torch.sin(0.3 * r + 0.8 * c - 0.05 * r * c), dim=1)


def test_the_loss_has_the_golden_value_and_the_gradient_of_lightly() -> None:
    q, k, queue = golden()
    raw = (2 * q).requires_grad_()  # lightly normalises within: so must the gradient that is compared
    loss, _ = contrast(F.normalize(raw, dim=1), k, queue, temperature=0.2)
    assert loss.item() == pytest.approx(2.1375702409104, abs=1e-12)
    loss.backward()
    from lightly.loss import NTXentLoss

    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(16, 6)).double()
    theirs.memory_bank.bank = queue.clone()
    same = raw.detach().clone().requires_grad_()
    theirs(same, k).backward()
    torch.testing.assert_close(raw.grad, same.grad, rtol=1e-9, atol=1e-12)


def test_equal_rows_and_queue_give_log_of_their_number() -> None:
    same = F.normalize(torch.ones(4, 6), dim=1)
    loss, _ = contrast(same, same, same.repeat(5, 1), temperature=0.07)
    assert float(loss) == pytest.approx(np.log(1 + 20), rel=1e-6)


def make(store: Store, **settings: object) -> tuple[Moco, Stream]:
    encoder = make_encoder("timm:resnet10t", store.channels, store.size, seed=0)
    config = build(MocoConfig, {**Moco.tiny, **settings}, "moco")
    return Moco(config, encoder, Setting(len(store), BATCH, 1)), Stream(
        store, np.arange(len(store)), BATCH, 2
    )


def run(objective: Moco, stream: Stream, steps: int) -> None:
    for _ in train(objective, stream, images=steps * BATCH, every=BATCH, precision="float32"):
        pass


def test_the_queue_is_first_in_first_out_and_wraps(store: Store) -> None:
    moco, stream = make(store, queue=24)
    start, seen = moco.queue.clone(), []
    for step in range(4):
        twin = copy.deepcopy(moco)
        run_one(moco, stream, step)
        # The keys of this step: those of a twin with the weights the key encoder had after its update.
        rows = slice(step * BATCH % 24, step * BATCH % 24 + BATCH)
        seen.append(moco.queue[rows].clone())
        kept = torch.ones(24, dtype=torch.bool)
        kept[rows] = False
        assert torch.equal(moco.queue[kept], twin.queue[kept])
        assert int(moco.pointer) == (step + 1) * BATCH % 24
    assert torch.equal(moco.queue[:8], seen[3])
    assert torch.equal(moco.queue[8:16], seen[1])
    assert not torch.equal(moco.queue, start)
    torch.testing.assert_close(moco.queue.norm(dim=1), torch.ones(24))


def run_one(moco: Moco, stream: Stream, number: int) -> None:
    optimizer = torch.optim.SGD(moco.query.parameters(), lr=0.1)
    moco.train()
    for update in moco.step([stream.batch(number)], 0.0):
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()


def test_the_key_encoder_follows_before_the_keys_and_has_no_gradient(store: Store) -> None:
    moco, stream = make(store, momentum=0.5)
    for weight in moco.query.parameters():
        weight.data.add_(0.25)
    before = [w.clone() for w in moco.key.parameters()]
    step = moco.step([stream.batch(0)], 0.0)
    next(step)
    for key, old, query in zip(moco.key.parameters(), before, moco.query.parameters(), strict=True):
        torch.testing.assert_close(key, (old + query.detach()) / 2)
        assert not key.requires_grad
    assert int(moco.pointer) == 0  # nothing is enqueued before the logits
    assert next(step, None) is None
    assert int(moco.pointer) == BATCH


def test_key_statistics_are_taken_over_other_rows_than_the_query_s(store: Store) -> None:
    """Without the shuffle the statistics of a group would sign its positives."""
    moco, stream = make(store, bn_rows=4)
    batch = stream.batch(0)
    norms = [m for m in moco.key.modules() if isinstance(m, GlobalBatchNorm)]
    assert norms
    assert all(norm.rows == 4 for norm in norms)
    inputs = []
    hook = moco.key.register_forward_hook(lambda _m, args, _o: inputs.append(args[0]))
    moco.train()
    with torch.no_grad():
        keys = moco._keys(batch)
    hook.remove()
    replay = stream.batch(0)
    plain = replay.view(moco.config.views).images  # the same draws, in the batch's own order
    assert not torch.equal(inputs[0], plain)
    torch.testing.assert_close(inputs[0].sum(), plain.sum())
    moco.eval()
    torch.testing.assert_close(keys.shape, torch.Size([BATCH, 16]))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"queue": 12},
            "queue 12 is not a multiple of the batch size 8; these would do: -s settings.queue=8",
        ),
        ({"queue": 65536}, "larger than the pool of 24 images.*these would do: -s settings.queue=24"),
        ({"bn_rows": 3}, "8 images per process are not whole groups of bn_rows 3; .*-s settings.bn_rows=2"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_ones_that_do(
    store: Store, settings: dict[str, int], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        make(store, **settings)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "text"),
    [
        (
            7,
            64,
            "a pool of 7 images gives each of 4 processes no two images, .* more images or fewer processes",
        ),
        (
            100,
            6,
            "a batch of 6 gives each of 4 processes no two images, .* -s batch_size=8 or fewer processes",
        ),
    ],
)
def test_processes_without_two_images_each_are_told_what_is_too_small(
    num_images: int, batch_size: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trabecula.distributed.world_size", lambda: 4)
    with pytest.raises(InputError, match=text):
        _check(build(MocoConfig, {"queue": 96}, "moco"), Setting(num_images, batch_size, seed=0))


@pytest.mark.parametrize(("num_images", "batch_size"), [(30, 64), (24, 64), (100, 64), (5000, 64), (7, 4)])
def test_the_settings_an_error_offers_work(num_images: int, batch_size: int) -> None:
    with pytest.raises(InputError) as caught:
        _check(MocoConfig(), Setting(num_images, batch_size, 0))
    offered = dict(re.findall(r"-s (\S+)=(\d+)", str(caught.value)))
    values = {k.removeprefix("settings."): int(v) for k, v in offered.items() if k.startswith("settings.")}
    _check(MocoConfig(**values), Setting(num_images, int(offered.get("batch_size", batch_size)), 0))


def test_order_of_rows_and_of_the_queue_and_lengths_do_not_matter(store: Store) -> None:
    q, k, queue = golden()
    loss, _ = contrast(q, k, queue, 0.2)
    torch.manual_seed(0)
    rows, places = torch.randperm(8), torch.randperm(16)
    torch.testing.assert_close(contrast(q[rows], k[rows], queue[places], 0.2)[0], loss)
    assert abs(float(contrast(q[rows], k, queue, 0.2)[0] - loss)) > 1e-2  # a row's key is its own
    losses = []
    for scale in (1, 7):  # of the last layer: embeddings are compared by direction
        moco, stream = make(store)
        for net in (moco.query, moco.key):
            net[1].layers.out.weight.data.mul_(scale)
            net[1].layers.out.bias.data.mul_(scale)
        losses.append(next(moco.train().step([stream.batch(0)], 0.0)).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_collapsed_embedding_costs_less_until_the_queue_has_collapsed_too() -> None:
    _, _, queue = golden()
    same = F.normalize(torch.ones(8, 6).double(), dim=1)
    collapsed, first = contrast(same, same, queue, 0.2)
    assert float(first) == 1.0
    assert float(collapsed) < np.log(17) - 0.5
    assert float(contrast(same, same, same.repeat(2, 1), 0.2)[0]) == pytest.approx(np.log(17))


def test_a_key_among_its_own_negatives_would_give_another_loss() -> None:
    """What enqueueing before the logits does: the positive is a negative too."""
    q, k, queue = golden()
    early = torch.cat([k, queue[8:]])
    assert abs(float(contrast(q, k, queue, 0.2)[0] - contrast(q, k, early, 0.2)[0])) > 0.05
    with_own = torch.cat([queue, k[:1]])
    assert float(contrast(k[:1], k[:1], with_own, 0.2)[0]) > np.log(2)


def test_queue_and_pointer_are_in_the_checkpoint_and_lightly_s_are_not(store: Store) -> None:
    """A queue drawn anew on resume makes the next loss another one."""
    from lightly.loss import NTXentLoss

    assert not NTXentLoss(memory_bank_size=(16, 6)).state_dict()
    moco, stream = make(store)
    run(moco, stream, 2)
    assert {"queue", "pointer"} <= set(moco.state_dict())
    assert int(moco.pointer) == 2 * BATCH % 16
    losses = []
    for lost in (False, True):
        resumed, _ = make(store)
        fresh = resumed.queue.clone()
        resumed.load_state_dict(moco.state_dict())
        assert torch.equal(resumed.queue, moco.queue)
        if lost:
            resumed.queue.copy_(fresh)
        losses.append(next(resumed.train().step([stream.batch(2)], 0.0)).loss.item())
    expected = next(copy.deepcopy(moco).train().step([stream.batch(2)], 0.0)).loss.item()
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert abs(losses[1] - expected) > 0.01


def test_both_networks_start_alike_and_norm_statistics_are_each_one_s_own(store: Store) -> None:
    """lightly's benchmark gives the key a head of its own; an average of statistics is in no paper."""
    moco, stream = make(store, momentum=0.5)
    for (name, query), key in zip(
        moco.query.state_dict().items(), moco.key.state_dict().values(), strict=True
    ):
        assert torch.equal(query, key), name
    norms = [
        next(m for m in net.modules() if isinstance(m, GlobalBatchNorm)) for net in (moco.query, moco.key)
    ]
    seen: list[torch.Tensor] = []
    for norm in norms:
        norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    norms[0].running_mean.fill_(1000.0)
    next(moco.train().step([stream.batch(0)], 0.0))
    assert float(norms[1].running_mean.abs().max()) < 100
    query, key = (x.unflatten(0, (-1, 4)).mean((1, 3, 4)) for x in seen)  # of each group of 4 rows
    assert not any(torch.allclose(a, b, rtol=1e-3) for a, b in zip(query, key, strict=True))


def test_defaults_are_the_paper_s(store: Store) -> None:
    config = MocoConfig()
    assert (config.dim, config.queue, config.momentum, config.temperature) == (128, 65536, 0.999, 0.2)
    rule = config.optimizer
    assert (rule.name, rule.lr, rule.momentum, rule.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert (rule.schedule, rule.warmup, rule.decay_vectors) == ("cosine", 0.0, True)  # decay of all weights
    moco, _ = make(store, optimizer={"name": "sgd", "lr": 0.03}, scale_lr=True)
    assert moco.groups()["query"].optimizer.lr == 0.03 * BATCH / 256
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in moco.query[1].modules())
    assert moco.products() == {"encoder": moco.query[0]}
