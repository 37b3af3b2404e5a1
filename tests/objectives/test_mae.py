"""MAE: golden values, an encoder and a decoder written anew, what is hidden, what the picture is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightly.models.utils import normalize_mean_var
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.nets.encoder import load_encoder, make_encoder
from trabecula.nets.mae import PatchMask, patchify, unpatchify
from trabecula.objectives.mae import Mae, MaeConfig, masked_error, normalise_patches, visible_patches
from trabecula.objectives.objective import Setting
from trabecula.random_numbers import RowRandom
from trabecula.train.loop import train

BATCH = 8


def det(shape: tuple[int, ...], a: float) -> Tensor:
    return torch.sin(a * torch.arange(int(np.prod(shape))).double() ** 1.1).view(shape)


@pytest.fixture
def golden() -> tuple[Tensor, Tensor, Tensor]:
    """Patches, a prediction and a mask given by closed formulas."""
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1]], dtype=torch.bool)
    return patchify(det((2, 3, 8, 8), 0.21), 4), det((2, 4, 48), 0.11), mask


def test_losses_have_their_golden_values(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    pixels, predicted, mask = golden
    raw = masked_error(predicted, pixels, mask)
    normed = masked_error(predicted, normalise_patches(pixels), mask)
    assert raw.item() == pytest.approx(0.8361251916634, abs=1e-12)
    assert normed.item() == pytest.approx(1.2536846883868, abs=1e-12)
    biased = (pixels - pixels.mean(2, True)) / (pixels.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    assert masked_error(predicted, biased, mask).item() == pytest.approx(1.2721947370617, abs=1e-12)


def test_targets_are_those_of_lightly(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    pixels = golden[0]
    torch.testing.assert_close(
        normalise_patches(pixels), normalize_mean_var(pixels, dim=-1), rtol=1e-12, atol=0
    )


def test_visible_patches_have_no_say_in_the_loss(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    pixels, predicted, mask = golden
    predicted = predicted.requires_grad_()
    loss = masked_error(predicted, pixels, mask)
    loss.backward()
    other = torch.where(mask[:, :, None], predicted.detach(), torch.tensor(1e6, dtype=torch.float64))
    assert masked_error(other, pixels, mask).item() == loss.item()
    assert predicted.grad is not None
    assert not predicted.grad[~mask].any()
    expected = 2 * (predicted.detach() - pixels)[mask] / (6 * 48)
    torch.testing.assert_close(predicted.grad[mask], expected)


def test_a_blank_patch_has_a_finite_target_and_gradient() -> None:
    assert not normalise_patches(torch.full((1, 2, 16), 0.25)).any()


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [
        (196, 0.75, 49),
        (196, 0.7, 58),
        (196, 0.25, 147),
        (64, 0.6, 25),
        (100, 0.3, 70),
        (10, 0.7, 3),
        (4, 0.75, 1),
    ],
)
def test_visible_patches_are_rounded_down(patches: int, ratio: float, visible: int) -> None:
    assert visible_patches(patches, ratio) == visible


@pytest.mark.parametrize(("patches", "ratio", "left"), [(1, 0.5, 0), (4, 0.9, 0), (4, 1e-9, 4)])
def test_a_mask_that_leaves_none_or_all_is_refused(patches: int, ratio: float, left: int) -> None:
    with pytest.raises(InputError, match=rf"of {patches} patches .* leaves {left} to see; choose") as caught:
        visible_patches(patches, ratio)
    assert "\n" not in str(caught.value)


def make(store: Store, architecture: str = "timm:test_vit_patch8", **settings: Any) -> tuple[Mae, Stream]:
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(MaeConfig, {**Mae.tiny, "norm_pix": True, **settings}, "mae")
    rows = np.arange(len(store))
    return Mae(config, encoder, Setting(len(store), BATCH, 1)), Stream(store, rows, BATCH, 2)


def layer_norm(x: np.ndarray, state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: np.ndarray, state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x: np.ndarray, state: Mapping[str, np.ndarray], name: str, heads: int) -> np.ndarray:
    """A pre-norm transformer block on the tokens (n, K) of one image."""
    q, k, v = np.split(linear(layer_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv"), 3, axis=1)
    width = x.shape[1] // heads
    mixed = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        score = q[:, part] @ k[:, part].T / np.sqrt(width)
        weight = np.exp(score - score.max(1, keepdims=True))
        mixed.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
    x = x + linear(np.concatenate(mixed, axis=1), state, f"{name}.attn.proj")
    hidden = linear(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    erf = torch.erf(torch.from_numpy(hidden / np.sqrt(2))).numpy()
    return x + linear(hidden * (1 + erf) / 2, state, f"{name}.mlp.fc2")


def reference_loss(state: Mapping[str, np.ndarray], x: np.ndarray, visible: np.ndarray, depth: int) -> float:
    """The loss of one image (32, 32) by the paper's text: patches of 8 px, 2 heads, normalised targets."""
    patches = np.stack([x[i : i + 8, j : j + 8].ravel() for i in range(0, 32, 8) for j in range(0, 32, 8)])
    kernel = state["net.patch_embed.proj.weight"].reshape(64, -1)
    embedded = patches @ kernel.T + state["net.patch_embed.proj.bias"] + state["net.pos_embed"][0, 1:]
    tokens = np.concatenate([state["net.cls_token"][0] + state["net.pos_embed"][0, :1], embedded[visible]])
    for i in range(6):
        tokens = block(tokens, state, f"net.blocks.{i}", 2)
    tokens = linear(layer_norm(tokens, state, "net.norm"), state, "decoder.embed")
    full = np.repeat(state["decoder.mask_token"][0], 17, axis=0)
    full[0], full[1 + visible] = tokens[0], tokens[1:]
    full = full + state["decoder.positions"][0]
    for i in range(depth):
        full = block(full, state, f"decoder.blocks.{i}", 2)
    values = linear(layer_norm(full, state, "decoder.norm"), state, "decoder.predict")[1:]
    hidden = np.setdiff1d(np.arange(16), visible)
    target = (patches - patches.mean(1, keepdims=True)) / np.sqrt(
        patches.var(1, ddof=1, keepdims=True) + 1e-6
    )
    return float(((values - target)[hidden] ** 2).mean())


def test_the_loss_is_that_of_the_paper_s_text_written_anew(store: Store) -> None:
    mae, stream = make(store, decoder_depth=2)
    mae.double().eval()
    state = {k.removeprefix("encoder.backbone."): v.detach().numpy() for k, v in mae.state_dict().items()}
    state["decoder.positions"] = mae.decoder.positions.numpy()
    batch = stream.batch(0)
    update = next(mae.step([batch], 0.0))
    again = stream.batch(0)
    x = mae.encoder.normalise(again.view(mae.config.views).images.double()).numpy()[:, 0]
    noise = again.random.uniform(16).numpy()
    visible = np.argsort(noise, axis=1)[:, :8]
    expected = np.mean([reference_loss(state, x[b], visible[b], 2) for b in range(BATCH)])
    assert update.loss.item() == pytest.approx(expected, rel=1e-5)  # the loss is taken in float32


def test_gradients_are_right(store: Store) -> None:
    """By finite differences, of a weight in each part of the network."""
    mae, _ = make(store)
    mae.double()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    masking = mae.hide(RowRandom(3, 2, slice(0, 2), torch.device("cpu")))
    target = normalise_patches(patchify(x, 8))

    def loss() -> Tensor:
        return masked_error(mae(x, masking), target, masking.mask)

    loss().backward()
    net, step = mae.encoder.backbone.net, 1e-5
    for weight in (
        net.get_parameter("patch_embed.proj.weight"), net.get_parameter("cls_token"),
        net.get_parameter("blocks.2.attn.qkv.weight"), net.get_parameter("norm.weight"),
        mae.decoder.mask_token, mae.decoder.embed.weight, mae.decoder.predict.bias,
    ):  # fmt: skip
        assert weight.grad is not None
        place = int(weight.grad.abs().argmax())
        flat = weight.data.view(-1)
        ends = []
        for sign in (1, -1):
            flat[place] += sign * step
            ends.append(loss().item())
            flat[place] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert weight.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-4)


def test_norm_pix_predicts_patches_up_to_brightness_and_contrast(store: Store) -> None:
    """The default is blind to them; without it, as in lightly's benchmark, the loss is another."""
    losses = {}
    for norm_pix in (True, False):
        mae, stream = make(store, norm_pix=norm_pix)
        batch = stream.batch(0)
        x = mae.encoder.normalise(batch.view(mae.config.views).images)
        masking = mae.hide(batch.random)
        with torch.no_grad():
            pixels, predicted = patchify(x, 8), mae(x, masking)
            target = normalise_patches(pixels)
            by_hand = ((predicted - (target if norm_pix else pixels)) ** 2)[masking.mask].mean()
            losses[norm_pix] = next(mae.step([stream.batch(0)], 0.0)).loss.item()
        assert losses[norm_pix] == pytest.approx(by_hand.item(), rel=1e-5)
        torch.testing.assert_close(normalise_patches(3 * pixels - 1), target, rtol=1e-3, atol=1e-3)
    assert MaeConfig().norm_pix
    assert abs(losses[True] - losses[False]) > 0.1


def test_the_step_hides_each_image_s_own_patches_and_counts_the_blank_ones(store: Store) -> None:
    mae, stream = make(store, mask_ratio=0.75)
    seen: list[PatchMask] = []
    hide = mae.hide
    mae.hide = lambda random: seen.append(hide(random)) or seen[-1]  # type: ignore[method-assign,func-returns-value,assignment]
    batch = stream.batch(0)
    batch.images[:, :, :16] = 7
    update = next(mae.step([batch], 0.0))
    mask = seen[0].mask
    assert mask.sum(1).tolist() == [12] * BATCH
    assert len({tuple(row) for row in mask.tolist()}) > BATCH // 2
    assert float(update.scalars["blank"]) == pytest.approx(float(mask[:, :8].sum() / mask.sum()))


def test_positions_stand_still_and_everything_else_learns(store: Store) -> None:
    mae, stream = make(store)
    before = {key: value.clone() for key, value in mae.state_dict().items()}
    for _ in train(mae, stream, images=2 * BATCH, every=BATCH, precision="float32"):
        pass
    same = [key for key, value in mae.state_dict().items() if torch.equal(value, before[key])]
    assert same == ["encoder.backbone.net.pos_embed"]


def test_a_trained_encoder_goes_on_from_its_weights_and_fine_tunes_its_positions(
    store: Store, tmp_path: Path
) -> None:
    mae, stream = make(store)
    for _ in train(mae, stream, images=BATCH, every=BATCH, precision="float32"):
        pass
    mae.encoder.card = mae.encoder.card.model_copy(update={"images_seen": BATCH})
    mae.encoder.save(tmp_path)
    again = make_encoder("timm:test_vit_patch8", 1, 32, init="encoder", weights=tmp_path, seed=9)
    positions = again.backbone.net.get_parameter("pos_embed")
    assert positions.requires_grad
    Mae(build(MaeConfig, Mae.tiny, "mae"), again, Setting(len(store), BATCH, 4))
    assert not positions.requires_grad
    for key, value in load_encoder(tmp_path).state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_an_encoder_that_saw_nothing_gets_the_fixed_positions(tmp_path: Path) -> None:
    """One folder of random weights for all arms is no start of MAE's: its positions would be noise."""
    make_encoder("timm:test_vit_patch8", 1, 32, seed=1).save(tmp_path)
    again = make_encoder("timm:test_vit_patch8", 1, 32, init="encoder", weights=tmp_path)
    Mae(build(MaeConfig, Mae.tiny, "mae"), again, Setting(24, BATCH, 4))
    fresh = make_encoder("timm:test_vit_patch8", 1, 32, seed=2)
    Mae(build(MaeConfig, Mae.tiny, "mae"), fresh, Setting(24, BATCH, 4))
    positions = [net.backbone.net.get_parameter("pos_embed") for net in (again, fresh)]
    assert torch.equal(*positions)


def test_defaults_are_the_paper_s() -> None:
    config = MaeConfig()
    rule = config.optimizer
    assert (rule.name, rule.betas, rule.weight_decay, rule.schedule) == ("adamw", (0.9, 0.95), 0.05, "cosine")
    mae = Mae(MaeConfig(decoder_depth=1), make_encoder("timm:test_vit_patch8", 1, 32), Setting(24, 512, 0))
    (group,) = mae.groups().values()
    assert group.optimizer.lr == pytest.approx(3e-4)
    made = group.optimizer.make(group.weights)
    decayed = {id(w) for part in made.param_groups if part["weight_decay"] for w in part["params"]}
    named = dict(mae.named_parameters())
    assert id(named["decoder.predict.weight"]) in decayed
    assert not decayed & {id(w) for name, w in named.items() if name.endswith(("bias", "norm1.weight"))}
    assert (mae.num_patches, mae.num_visible) == (16, 4)
    assert (mae.decoder.embed.out_features, mae.decoder.blocks[0].attn.num_heads) == (512, 16)  # type: ignore[union-attr]


@pytest.mark.parametrize(("width", "heads"), [(30, 2), (32, 5)])
def test_a_decoder_that_cannot_be_is_refused(width: int, heads: int) -> None:
    with pytest.raises(InputError, match="must be a multiple of 4 and of decoder_heads"):
        build(MaeConfig, {"decoder_width": width, "decoder_heads": heads}, "mae")


def test_a_convolutional_network_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"mae hides patches .* architecture 'critic' is none"):
        make(store, "critic")


# --- pictures ---


def random(number: int) -> RowRandom:
    return RowRandom(5, number, slice(0, number), torch.device("cpu"))


@pytest.mark.parametrize("norm_pix", [True, False])
def test_hidden_pixels_do_not_reach_the_picture(store: Store, norm_pix: bool) -> None:
    mae, _ = make(store, norm_pix=norm_pix)
    images = store.read(np.arange(4))
    mask = mae.hide(random(4)).mask
    pixels = patchify(images, 8)
    changed = torch.where(mask[:, :, None], 255 - pixels.roll(1, 0), pixels)
    other = unpatchify(changed, 8, (4, 4))
    assert not torch.equal(other, images)
    one, two = (mae.pictures(x, random(4))["reconstructions"].rows for x in (images, other))
    shown, seen, filled = one
    assert torch.equal(one[seen], two[seen])
    assert torch.equal(one[filled], two[filled])
    assert not torch.equal(one[shown], two[shown])
    visible = ~mask[:, :, None]
    whole = patchify(images / 255, 8)
    for row in (seen, filled):
        torch.testing.assert_close(patchify(one[row], 8) * visible, whole * visible, rtol=0, atol=1e-6)
    assert set(patchify(one[seen], 8)[mask].unique().tolist()) == {1.0}


def test_a_picture_of_rgb_weights_is_grey(store: Store) -> None:
    encoder = make_encoder("timm:test_vit_patch8", 1, 32, stem="repeat")
    mae = Mae(build(MaeConfig, Mae.tiny, "mae"), encoder, Setting(24, BATCH, 1))
    assert mae.decoder.predict.out_features == 8 * 8 * 3
    (picture,) = mae.pictures(store.read(np.arange(2)), random(2)).values()
    assert [tuple(images.shape) for images in picture.rows.values()] == [(2, 1, 32, 32)] * 3
