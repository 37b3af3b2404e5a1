"""An encoder that sees part of an image: against the ordinary one, and against masks worked out in numpy."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder, make_encoder
from trabecula.nets.norm import use_global_batch_norm
from trabecula.nets.sparse import _Cells, sparse_maps

SIZE, SIDE, BATCH = 64, 2, 4
NETS = ["timm:resnet10t", "torchvision:resnet18", "timm:resnetblur18", "critic", "critic_bn"]


def encoder_and_images(architecture: str = "timm:resnet10t", size: int = SIZE) -> tuple[Encoder, Tensor]:
    encoder = make_encoder(architecture, 1, size, seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # residual branches that start at nought would hide faults
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    images = torch.rand(BATCH, 1, size, size, generator=generator, dtype=torch.float64)
    return encoder.train().double(), images  # else a unit within rounding of a kink differs in its gradient


def some_cells(side: int = SIDE) -> Tensor:
    """One to three of four cells, another choice for each image."""
    visible = torch.zeros(BATCH, side, side, dtype=torch.bool)
    visible[0, 0, 0] = visible[1, 1] = visible[2, :, 1] = visible[3] = True
    visible[3, 1, 0] = False
    return visible


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("architecture", NETS)
def test_with_every_cell_visible_it_is_the_ordinary_encoder(architecture: str, training: bool) -> None:
    encoder, images = encoder_and_images(architecture)
    encoder.train(training)
    plain = copy.deepcopy(encoder)
    weights = torch.rand(BATCH, encoder.backbone.num_features, SIDE, SIDE, dtype=torch.float64)
    results = []
    for net in (encoder, plain):
        everything = torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)
        maps = sparse_maps(net, images, everything) if net is encoder else net.maps(images)
        (maps * weights).sum().backward()
        results.append(maps.detach())
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    theirs = dict(plain.named_parameters())
    scale = max(float(w.grad.abs().max()) for w in theirs.values() if w.grad is not None)
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None
        assert float((weight.grad - theirs[name].grad).abs().max()) < 1e-9 * scale, name
    for (name, ours), same in zip(encoder.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("architecture", NETS)
def test_masked_pixels_have_no_part_in_it(architecture: str) -> None:
    encoder, images = encoder_and_images(architecture)
    visible = some_cells()
    hidden = ~visible.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    other = torch.where(hidden, torch.rand_like(images), images)
    assert not torch.equal(images, other)
    first, second = copy.deepcopy(encoder), copy.deepcopy(encoder)
    a, b = sparse_maps(first, images, visible), sparse_maps(second, other, visible)
    assert torch.equal(a, b)
    assert all(torch.equal(x, y) for x, y in zip(first.buffers(), second.buffers(), strict=True))
    assert a.permute(0, 2, 3, 1)[visible].abs().sum() > 0
    assert a.permute(0, 2, 3, 1)[~visible].abs().max() == 0
    images.requires_grad_()
    sparse_maps(encoder, images, visible).square().sum().backward()
    assert images.grad is not None
    assert images.grad[hidden].abs().max() == 0
    assert images.grad[~hidden].abs().max() > 0


def test_masked_positions_are_zero_after_every_convolution_pooling_and_norm() -> None:
    encoder, images = encoder_and_images("critic_bn")
    visible, seen = some_cells(), []
    handles = []
    with torch.no_grad():

        def look(layer: nn.Module, args: tuple[Tensor, ...], maps: Tensor) -> None:  # noqa: ARG001
            part = 32 * maps.shape[-1] // SIZE
            hidden = ~visible.repeat_interleave(part, 1).repeat_interleave(part, 2)
            seen.append(float(maps.permute(0, 2, 3, 1)[hidden].abs().max()))

        # Of each activation: what it is given has been through the hooks of the layer before.
        handles += [m.register_forward_hook(look) for m in encoder.modules() if isinstance(m, nn.LeakyReLU)]
        sparse_maps(encoder, images, visible)
    for handle in handles:
        handle.remove()
    assert seen == [0.0] * 5


def sparse_by_hand(critic: nn.Sequential, images: np.ndarray, visible: np.ndarray) -> list[np.ndarray]:
    """Float64 numpy, layer by layer: mask, convolve, mask, normalise over visible positions, LeakyReLU."""

    def enlarged(maps: np.ndarray) -> np.ndarray:
        part = maps.shape[-1] // visible.shape[-1]
        return visible.repeat(part, 1).repeat(part, 2)[:, None].astype(float)

    x = images * enlarged(images)
    outputs = []
    for layer in critic:
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (2, 3))[:, :, ::2, ::2]
            x = np.einsum("bchwij,kcij->bkhw", windows, weight) + bias[:, None, None]
            x = x * enlarged(x)
        elif isinstance(layer, nn.BatchNorm2d):
            rows = x.transpose(0, 2, 3, 1)[enlarged(x)[:, 0] > 0]  # (visible positions, C)
            scale = layer.weight.detach().double().numpy() / np.sqrt(rows.var(0) + layer.eps)
            shift = layer.bias.detach().double().numpy() - rows.mean(0) * scale
            x = (x * scale[:, None, None] + shift[:, None, None]) * enlarged(x)
            outputs += [rows.mean(0), rows.var(0, ddof=1)]
        else:
            x = np.where(x > 0, x, 0.2 * x)
    return [x, *outputs]


def test_values_and_running_statistics_are_those_worked_out_in_numpy() -> None:
    encoder, images = encoder_and_images("critic_bn")
    visible = some_cells()
    plain = ((images - encoder.mean) / encoder.std).double().numpy()
    expected, *statistics = sparse_by_hand(encoder.backbone.net, plain, visible.numpy())
    maps = sparse_maps(encoder, images, visible)
    np.testing.assert_allclose(maps.detach().numpy(), expected, rtol=1e-6, atol=1e-9)
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm, mean, var in zip(norms, statistics[::2], statistics[1::2], strict=True):
        np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * var, rtol=1e-6, atol=1e-9)


def test_gradients_are_those_of_masked_statistics_written_out() -> None:
    """Against autograd through plain sums, as torch's own norm kernels have layouts with wrong gradients."""
    encoder, images = encoder_and_images("critic_bn")
    visible = some_cells()
    weights = torch.rand(BATCH, 512, SIDE, SIDE, dtype=torch.float64)
    (sparse_maps(encoder, images, visible) * weights).sum().backward()
    ours = {name: w.grad.clone() for name, w in encoder.named_parameters() if w.grad is not None}
    encoder.zero_grad()
    twin = copy.deepcopy(encoder)

    def mask(maps: Tensor) -> Tensor:
        return F.interpolate(visible[:, None].double(), size=maps.shape[-2:], mode="nearest")

    x = (images - twin.mean) / twin.std * mask(images)
    for layer in twin.backbone.net:
        if isinstance(layer, nn.BatchNorm2d):
            share = mask(x) / mask(x).sum()
            mean = (x * share).sum((0, 2, 3), keepdim=True)
            var = ((x - mean).square() * share).sum((0, 2, 3), keepdim=True)
            x = (x - mean) / (var + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[
                :, None, None
            ]
        else:
            x = layer(x)
        x = x * mask(x)
    (x * weights).sum().backward()
    for name, weight in twin.named_parameters():
        assert weight.grad is not None
        error = float((ours[name] - weight.grad).abs().max())
        assert error < 1e-9 * max(float(w.abs().max()) for w in ours.values()), (name, error)


def test_the_encoder_is_left_an_ordinary_one() -> None:
    encoder, images = encoder_and_images()
    encoder.eval()
    before = encoder.maps(images)
    keys, kinds = list(encoder.state_dict()), [type(m) for m in encoder.modules()]
    sparse_maps(encoder, images, some_cells())
    bad = torch.ones(BATCH, 3, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="not whole parts of 3 x 3 cells"):
        sparse_maps(encoder, images, bad)
    assert list(encoder.state_dict()) == keys
    assert [type(m) for m in encoder.modules()] == kinds
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in encoder.modules())
    assert torch.equal(encoder.maps(images), before)


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        ("timm:seresnet18", "maps of 1 x 1"),
        ("timm:convnext_atto", "a layer LayerNorm2d, which cannot be run on part of an image"),
        ("timm:resnet18d_gn", "not known"),
    ],
)
def test_other_networks_are_refused_by_the_layer(architecture: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        sparse_maps(*encoder_and_images(architecture), some_cells())


def test_a_mask_of_other_cells_than_the_maps_is_refused() -> None:
    encoder, images = encoder_and_images()
    with pytest.raises(InputError, match="gives maps of 2 x 2, the mask has 1 x 1 cells"):
        sparse_maps(encoder, images, torch.ones(BATCH, 1, 1, dtype=torch.bool))


def test_rows_come_back_to_their_places() -> None:
    maps = torch.rand(BATCH, 3, 8, 8)
    cells = _Cells(some_cells(), "net")
    rows = cells.gather(maps)
    assert rows.shape == (int(some_cells().sum()) * 16, 3, 1, 1)
    assert torch.equal(cells.scatter(rows, 8, 8), maps * cells.mask(maps))


def _one_of_two(rank: int, out: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=2
    )
    torch.save(_loss_and_gradients(slice(2 * rank, 2 * rank + 2), 2), out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _loss_and_gradients(rows: slice, world: int) -> dict[str, Tensor]:
    encoder, images = encoder_and_images()
    encoder, images = encoder.float(), images.float()  # several processes compute norms in float32
    use_global_batch_norm(encoder)
    maps = sparse_maps(encoder, images[rows], some_cells()[rows])
    # A mean over ranks of the ranks' losses, as the training loop takes it.
    loss = world * (maps * torch.linspace(0, 1, maps.shape[1])[:, None, None]).square().sum()
    loss.backward()
    found = {name: w.grad / world for name, w in encoder.named_parameters() if w.grad is not None}
    return {**found, **dict(encoder.named_buffers()), "loss": loss.detach() / world}


def test_two_processes_with_unequal_numbers_of_visible_cells_equal_one(tmp_path: Path) -> None:
    counts = some_cells().flatten(1).sum(1)
    assert counts[:2].sum() != counts[2:].sum()
    mp.spawn(_one_of_two, (tmp_path,), nprocs=2)
    one = _loss_and_gradients(slice(0, BATCH), 1)
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    scale = max(float(value.abs().max()) for key, value in one.items() if key.endswith("weight"))
    for key, value in one.items():
        if "running" in key or key in ("mean", "std") or "tracked" in key:
            torch.testing.assert_close(halves[0][key], value, rtol=1e-4, atol=1e-5, msg=key)
            assert torch.equal(halves[0][key], halves[1][key]), key
        elif key == "loss":
            torch.testing.assert_close(halves[0][key] + halves[1][key], value, rtol=1e-4, atol=0)
        else:
            error = float((halves[0][key] + halves[1][key] - value).abs().max())
            assert error < 1e-3 * scale, (key, error)
