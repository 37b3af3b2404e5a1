"""CNN-JEPA: golden loss, mask samplers and the official one's fault, teacher, order of the step."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.cnn_jepa import (
    CnnJepa,
    CnnJepaConfig,
    Masking,
    Predictor,
    block_size,
    draw_blocks,
    draw_cells,
    draw_hidden,
    prediction_loss,
)
from trabecula.objectives.objective import Setting, rising
from trabecula.random_numbers import RowRandom

BATCH = 8
GRID = (7, 7)  # of a ResNet and 224 px


def formula(shape: tuple[int, ...], a: float) -> torch.Tensor:
    n = torch.arange(math.prod(shape)).double()
    return torch.sin(a * n**1.1).view(shape)


def golden() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction, target and target cells given by closed formulas."""
    cells = [[int(c) for c in row] for row in ("101001100", "010110001")]
    return formula((2, 5, 3, 3), 0.31), formula((2, 5, 3, 3), 0.47), torch.tensor(cells).view(2, 3, 3).bool()


def test_the_loss_has_the_golden_value() -> None:
    p, h, target = golden()
    assert prediction_loss(p, h, target).item() == pytest.approx(0.9064636410170, abs=1e-12)
    every = torch.ones_like(target)
    assert prediction_loss(p, h, every).item() == pytest.approx(1.0199361450, abs=1e-9)  # not this one
    means = F.smooth_l1_loss(F.normalize(p, dim=1), F.normalize(h, dim=1), reduction="none").mean(1)
    assert means[target].mean().item() == pytest.approx(0.1812927282, abs=1e-9)  # nor a mean over channels


def test_the_loss_sees_the_direction_of_the_target_cells_only() -> None:
    p, h, target = golden()
    p.requires_grad_()
    loss = prediction_loss(p, h, target)
    loss.backward()
    assert p.grad is not None
    assert p.grad.permute(0, 2, 3, 1)[~target].abs().max() == 0
    assert (p.grad * p).sum(1).abs().max() < 1e-12  # at right angles to the prediction: its length is free
    assert prediction_loss(3 * p, 0.2 * h, target).item() == pytest.approx(loss.item(), abs=1e-12)
    assert prediction_loss(p[[1, 0]], h[[1, 0]], target[[1, 0]]).item() == pytest.approx(
        loss.item(), abs=1e-12
    )
    assert prediction_loss(h, h, target).item() == 0


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    p, h, target = golden()
    p.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prediction_loss(x, h, target), (p,))


def test_a_dead_cell_of_the_prediction_has_a_finite_gradient() -> None:
    """Behind the predictor's ReLU all channels of a cell can be 0."""
    p = torch.zeros(1, 5, 3, 3, requires_grad=True)
    h = formula((1, 5, 3, 3), 0.47).float()
    loss = prediction_loss(F.relu(p), h, torch.ones(1, 3, 3, dtype=torch.bool))
    loss.backward()
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_momentum_follows_the_golden_cosine() -> None:
    for t, expected in {0: 0.996, 1: 0.99600101, 50: 0.99803173, 98: 0.99999899, 99: 1.0}.items():
        assert rising(0.996, t / 99) == pytest.approx(expected, abs=5e-9)


def numbers(num_rows: int, seed: int = 0, rows: slice | None = None) -> RowRandom:
    return RowRandom(seed, num_rows, rows or slice(0, num_rows), torch.device("cpu"))


def chances(sampler: str, size: tuple[int, int], num_blocks: int = 4) -> np.ndarray:
    """Of each cell of 7 x 7 to be a target: by counting every place a block can take, in plain numpy."""
    last = 0 if sampler == "fixed" else 1
    hits = np.zeros(GRID)
    places = 0
    for top in range(7 - size[0] + 1 - last):
        for left in range(7 - size[1] + 1 - last):
            hits[top : top + size[0], left : left + size[1]] += 1
            places += 1
    return 1 - (1 - hits / places) ** num_blocks


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (4, 3)])
@pytest.mark.parametrize("sampler", ["fixed", "faithful"])
def test_blocks_fall_as_often_on_each_cell_as_counting_says(sampler: str, size: tuple[int, int]) -> None:
    masking = Masking.model_validate({"sampler": sampler})
    drawn = draw_blocks(numbers(20000), GRID, masking, size).sum(0).numpy()
    expected = chances(sampler, size)
    assert (drawn[expected == 0] == 0).all()
    possible = expected > 0
    z = (drawn[possible] - 20000 * expected[possible]) / np.sqrt(
        20000 * expected[possible] * (1 - expected[possible])
    )
    # 49 cells, each within what chance allows: cells of one block go together, so no sum of squares.
    assert np.abs(z).max() < stats.norm.isf(0.0005 / 49)


def test_the_official_sampler_never_hides_the_last_row_and_column_and_ours_does() -> None:
    shares = {}
    for sampler in ("fixed", "faithful"):
        masking = Masking.model_validate({"sampler": sampler, "blocks": 1})
        shares[sampler] = torch.stack(
            [draw_hidden(numbers(64, seed), GRID, masking).float().mean(0) for seed in range(400)]
        ).mean(0)
    faithful, fixed = shares["faithful"], shares["fixed"]
    assert int((faithful == 0).sum()) == 13
    assert faithful[6].sum() == faithful[:, 6].sum() == 0
    assert float(faithful.mean()) == pytest.approx(0.443, abs=0.01)
    assert float(faithful.max()) == pytest.approx(0.93, abs=0.02)
    assert float(fixed.min()) > 0.13
    assert float(fixed[[0, 0, 6, 6], [0, 6, 0, 6]].mean()) == pytest.approx(0.15, abs=0.01)
    assert float(fixed[3, 3]) == pytest.approx(0.81, abs=0.03)
    assert float(fixed.mean()) == pytest.approx(0.50, abs=0.01)


def test_the_fault_is_lightly_s_too() -> None:
    """Its sampler for transformers has the same exclusive bound: the last row and column stay out."""
    from lightly.data.ijepa_collate import IJEPAMaskCollator

    torch.manual_seed(0)
    hits = torch.zeros(14 * 14)
    scales = {"enc_mask_scale": (0.85, 1.0), "pred_mask_scale": (0.15, 0.2), "aspect_ratio": (0.75, 1.5)}
    collator = IJEPAMaskCollator((224, 224), 16, npred=4, **scales)
    for _ in range(20):
        _, _, targets = collator([(torch.zeros(1), 0, "") for _ in range(4)])
        for mask in targets:
            hits.index_add_(0, mask.flatten(), torch.ones(mask.numel()))
    hits = hits.view(14, 14)
    assert hits[13].sum() == hits[:, 13].sum() == 0
    assert float(hits[:13, :13].min()) > 0
    ours = sum(draw_hidden(numbers(64, seed), (14, 14), Masking(blocks=1)).sum(0) for seed in range(20))
    assert int(ours.min()) > 0  # type: ignore[union-attr]


def test_block_sizes_are_those_of_the_official_code() -> None:
    sizes = [block_size(u, GRID, Masking()) for u in np.linspace(0, 1, 1000, endpoint=False)]
    shares = {size: sizes.count(size) / 1000 for size in set(sizes)}
    assert shares == pytest.approx({(3, 3): 0.62, (2, 3): 0.20, (4, 3): 0.10, (4, 2): 0.08}, abs=0.02)


@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (4, 4), (7, 7), (2, 5), (16, 16)])
@pytest.mark.parametrize("sampler", ["fixed", "faithful"])
def test_masks_leave_enough_visible_and_something_to_predict(grid: tuple[int, int], sampler: str) -> None:
    for scale in ((0.15, 0.2), (0.5, 0.9)):
        masking = Masking.model_validate({"sampler": sampler, "block_scale": scale})
        for seed in range(30):
            hidden = draw_hidden(numbers(16, seed), grid, masking)
            assert hidden.shape == (16, *grid)
            assert int((~hidden).flatten(1).sum(1).min()) >= min(
                math.ceil(0.12 * math.prod(grid)), math.prod(grid) - 1
            )
            assert int(hidden.flatten(1).sum(1).min()) >= 1


def test_single_cells_are_hidden_at_random_and_in_equal_number() -> None:
    hidden = draw_cells(numbers(20000), GRID, Masking())
    assert set((~hidden).flatten(1).sum(1).tolist()) == {20}  # round(49 * 0.4)
    assert stats.chisquare(hidden.sum(0).flatten().numpy()).pvalue > 1e-4


def test_three_batches_of_four_hide_blocks() -> None:
    counts = [draw_hidden(numbers(4, seed), GRID, Masking()).flatten(1).sum(1) for seed in range(1000)]
    cells = sum(bool((count == 29).all()) for count in counts)
    # Blocks hide 29 cells in all of four images once in a thousand batches or so.
    assert 0.25 * 1000 - 4 * 14 < cells < 0.25 * 1000 + 4 * 14


@pytest.mark.parametrize("blocks", [0.0, 1.0])
def test_a_part_of_a_batch_draws_the_masks_of_its_rows(blocks: float) -> None:
    masking = Masking(blocks=blocks)
    for seed in range(5):
        whole = draw_hidden(numbers(8, seed), GRID, masking)
        part = draw_hidden(numbers(8, seed, slice(3, 6)), GRID, masking)
        assert torch.equal(part, whole[3:6])


def make(store: Store, architecture: str = "timm:resnet10t", **settings: Any) -> tuple[CnnJepa, Stream]:
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(CnnJepaConfig, {**CnnJepa.tiny, **settings}, "cnn_jepa")
    objective = CnnJepa(config, encoder, Setting(len(store), BATCH, 1))
    return objective.train(), Stream(store, np.arange(len(store)), BATCH, 2)


def test_the_predictor_puts_its_token_where_nothing_is_seen() -> None:
    predictor = Predictor(4, layers=1, kernel=3)
    assert float(predictor.token.detach().abs().max()) <= 0.02
    predictor.layers = torch.nn.Sequential()
    visible = torch.tensor([[[True, False], [False, True]]])
    maps = torch.rand(1, 4, 2, 2)
    filled = predictor(maps, ~visible)
    assert torch.equal(filled[0, :, 0, 0], maps[0, :, 0, 0])
    assert torch.equal(filled[0, :, 0, 1], predictor.token)
    depthwise, pointwise, norm, act = Predictor(4, layers=1, kernel=3).layers
    assert depthwise.weight.shape == (4, 1, 3, 3)
    assert pointwise.weight.shape == (4, 4, 1, 1)
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert isinstance(act, torch.nn.ReLU)


def test_the_student_sees_the_visible_cells_and_the_teacher_whole_images(store: Store) -> None:
    objective, stream = make(store, "critic")
    inputs: dict[str, torch.Tensor] = {}
    for name in ("student", "teacher"):
        net = getattr(objective, name).backbone.net
        net.register_forward_pre_hook(lambda _m, args, name=name: inputs.update({name: args[0].detach()}))
    batch = stream.batch(0)
    update = next(objective.step([batch], 0.0))
    replay = stream.batch(0)
    images = replay.view(objective.config.views).images
    hidden = draw_hidden(replay.random, objective.grid, objective.config.masking)
    shown = (~hidden).repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    whole = objective.teacher.normalise(images)
    assert torch.equal(inputs["teacher"], whole)
    assert torch.equal(inputs["student"], torch.where(shown, whole, 0))
    predicted = objective.predictor(objective.student.backbone.maps(torch.where(shown, whole, 0)), hidden)
    assert predicted.shape == (BATCH, 512, 3, 3)
    assert float(update.scalars["hidden"]) == pytest.approx(float(hidden.float().mean()))


def test_the_teacher_follows_before_the_step_and_has_no_gradient(store: Store) -> None:
    objective, stream = make(store, momentum=0.5)
    for weight in objective.student.parameters():
        weight.data.add_(0.25)
    before = [w.clone() for w in objective.teacher.parameters()]
    statistics = [b.clone() for b in objective.teacher.buffers()]
    update = next(objective.step([stream.batch(0)], 0.5))  # halfway, 0.5 has risen to 0.75
    for teacher, old, student in zip(
        objective.teacher.parameters(), before, objective.student.parameters(), strict=True
    ):
        torch.testing.assert_close(teacher, 0.75 * old + 0.25 * student.detach())
        assert not teacher.requires_grad
    update.loss.backward()
    assert all(w.grad is None for w in objective.teacher.parameters())
    assert any(
        not torch.equal(b, s) for b, s in zip(objective.teacher.buffers(), statistics, strict=True)
    )  # its own
    assert not any(w is v for w in objective.teacher.parameters() for v in objective.student.parameters())


def test_the_teacher_is_what_is_kept_and_is_in_the_checkpoint(store: Store) -> None:
    objective, _ = make(store)
    kept = objective.products()["encoder"]
    assert kept is objective.teacher
    keys = set(objective.state_dict())
    assert {f"teacher.{key}" for key in kept.state_dict()} <= keys
    assert list(kept.state_dict()) == list(copy.deepcopy(objective.student).state_dict())


def test_the_mask_token_does_not_decay(store: Store) -> None:
    objective, _ = make(
        store, optimizer={"name": "adamw", "lr": 1e-3, "weight_decay": 0.1, "decay_vectors": False}
    )
    (group,) = objective.groups().values()
    optimizer = group.optimizer.make(group.weights)
    decaying = {id(w) for part in optimizer.param_groups if part["weight_decay"] for w in part["params"]}
    assert id(objective.predictor.token) not in decaying
    assert id(objective.predictor.layers[0].weight) in decaying
    assert not CnnJepaConfig().optimizer.decay_vectors


@pytest.mark.parametrize(
    ("settings", "architecture", "text"),
    [
        ({"size": 0}, "timm:resnet10t", "1 x 1 cells for views of 32 px.* -s settings.size=128"),
        ({}, "timm:vit_tiny_patch16_224", "is no convolutional network; use timm:resnet34"),
        ({"size": 80}, "timm:resnet10t", "not whole parts of 3 x 3 cells"),
        ({"size": 16}, "critic", "critic cannot take views of 16 px .*larger settings.size"),
        ({"kernel": 4}, "timm:resnet10t", "kernel must be odd, got 4: 5 would do"),
        ({"masking": {"block_scale": (0.5, 0.2)}}, "timm:resnet10t", "block_scale needs low <= high"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    store: Store, settings: dict[str, Any], architecture: str, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        make(store, architecture, **settings)


def test_the_rate_is_for_512_images(store: Store) -> None:
    for batch_size, rate in ((512, 0.01), (64, 0.00125)):
        encoder = make_encoder("critic:8-16", 1, store.size)
        objective = CnnJepa(CnnJepaConfig(), encoder, Setting(600, batch_size, 0))
        (group,) = objective.groups().values()
        assert group.optimizer.lr == pytest.approx(rate)


def test_views_are_of_their_own_size_and_otherwise_the_papers(store: Store) -> None:
    objective, stream = make(store, size=64)
    assert objective.grid == (2, 2)
    assert stream.batch(0).view(objective.config.views).images.shape == (BATCH, 1, 64, 64)
    views = CnnJepaConfig().views
    assert (views.crop_scale, views.rotate, views.flip, views.blur, views.intensity) == (
        (0.2, 1.0),
        0,
        0,
        0,
        0,
    )
