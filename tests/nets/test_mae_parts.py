"""Parts of the masked autoencoder: patches, positions, masks, and an encoder that sees some patches."""

from __future__ import annotations

import pytest
import torch
from lightly.models import utils as lightly_utils
from timm.models.vision_transformer import VisionTransformer

from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.mae import (
    Decoder,
    encode,
    hide,
    patchify,
    prepare_encoder,
    sincos_positions,
    unpatchify,
    vision_transformer,
)


def small(name: str = "timm:test_vit_patch8", size: int = 32, channels: int = 1) -> VisionTransformer:
    return vision_transformer(build_backbone(name, channels, size).eval(), "mae")


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_patches_are_those_of_lightly_and_go_back(channels: int) -> None:
    images = torch.randn(2, channels, 12, 12, dtype=torch.float64)
    patches = patchify(images, 4)
    assert torch.equal(patches, lightly_utils.patchify(images, 4))
    assert torch.equal(unpatchify(patches, 4, (3, 3)), images)


def test_a_patch_holds_its_own_pixels_channels_fastest() -> None:
    image = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 4].tolist() == [14, 38, 15, 39, 20, 44, 21, 45]  # row 1, column 1 of the patches
    assert torch.equal(unpatchify(patches, 2, (2, 3)), image)


def test_positions_are_those_of_lightly() -> None:
    theirs = lightly_utils.get_2d_sine_cosine_positional_embedding(16, 5, cls_token=False)
    torch.testing.assert_close(sincos_positions(16, (5, 5)).numpy(), theirs.astype("float32"))
    third_row = sincos_positions(16, (5, 5)).view(5, 5, 16)[2, :, 8:]
    assert torch.equal(third_row, sincos_positions(16, (3, 1))[2:, 8:].expand(5, 8))
    with pytest.raises(InputError, match="multiple of 4, not 18"):
        sincos_positions(18, (2, 2))


def test_masks_hide_the_same_number_in_each_row_and_every_place_as_often() -> None:
    noise = torch.rand(4000, 16, generator=torch.Generator().manual_seed(1))
    masking = hide(noise, 4)
    assert masking.mask.sum(1).unique().tolist() == [12]
    assert not masking.mask.gather(1, masking.visible).any()
    both = torch.cat([masking.visible, torch.where(masking.mask)[1].view(-1, 12)], 1).sort(1).values
    assert torch.equal(both, torch.arange(16).expand(4000, -1))  # visible and hidden are all there is
    counts = masking.mask.sum(0).double()
    # Each place is hidden with probability 3/4; sums of a row are fixed, hence the factor 15/16.
    statistic = float(((counts - 3000) ** 2 / (4000 * 0.75 * 0.25)).sum() * 15 / 16)
    assert 4.6 < statistic < 32.8  # 0.5 % and 99.5 % of chi-square with 15 degrees of freedom
    pairs = (masking.mask[:, :1] & masking.mask[:, 1:]).double().mean(0)
    assert float((pairs - 0.75 * 11 / 15).abs().max()) < 0.03  # neighbours are hidden no more often
    assert len({tuple(row) for row in masking.mask.tolist()}) > 1000


def test_a_row_s_mask_is_its_own_s_alone() -> None:
    noise = torch.rand(6, 16)
    whole, part = hide(noise, 5), hide(noise[2:4], 5)
    for ours, theirs in zip(whole, part, strict=True):
        assert torch.equal(ours[2:4], theirs)
    order = torch.argsort(noise[0])
    assert whole.visible[0].tolist() == order[:5].tolist()


@pytest.mark.parametrize(
    "name", ["timm:test_vit_patch8", "timm:vit_wee_patch8_reg1_gap_256", "timm:vit_tiny_patch16_224"]
)
def test_nothing_hidden_is_the_whole_network(name: str) -> None:
    backbone = build_backbone(name, 1, 32).eval()
    net = vision_transformer(backbone, "mae")
    x = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        whole = net(x)
        torch.testing.assert_close(encode(net, x), whole)
        count = whole.shape[1] - net.num_prefix_tokens
        shuffled = torch.rand(3, count).argsort(1)
        tokens = encode(net, x, shuffled)  # positions travel with their patches
    prefix = net.num_prefix_tokens
    torch.testing.assert_close(tokens[:, :prefix], whole[:, :prefix], rtol=1e-4, atol=1e-5)
    for row in range(3):
        torch.testing.assert_close(
            tokens[row, prefix:], whole[row, prefix:][shuffled[row]], rtol=1e-4, atol=1e-5
        )


def test_hidden_pixels_change_nothing() -> None:
    net = small()
    x = torch.randn(2, 1, 32, 32)
    masking = hide(torch.rand(2, 16), 4)
    noise = patchify(torch.randn_like(x), 8) * masking.mask[:, :, None]
    other = unpatchify(patchify(x, 8) + noise, 8, (4, 4))
    with torch.no_grad():
        tokens = encode(net, x, masking.visible)
        assert tokens.shape == (2, 1 + 4, 64)
        assert torch.equal(tokens, encode(net, other, masking.visible))
        assert not torch.equal(tokens, encode(net, -x, masking.visible))


@pytest.mark.parametrize(
    "name", ["critic", "timm:resnet10t", "torchvision:vit_b_32", "timm:vit_tiny_r_s16_p8_224"]
)
def test_networks_whose_patches_cannot_be_hidden_are_refused(name: str) -> None:
    """The hybrid is a vision transformer too, but its patches overlap: hidden pixels would show through."""
    for size, patch in ((64, 8), (224, 16)):
        with pytest.raises(InputError) as caught:
            vision_transformer(build_backbone(name, 1, size), "mae")
        told = str(caught.value)
        assert told.startswith("mae hides patches")
        assert told.endswith(f"for {size} px add -s architecture=timm:vit_small_patch{patch}_224")
        assert "\n" not in told


def test_fresh_weights_are_the_paper_s() -> None:
    net = small("timm:vit_tiny_patch8_224", 64)
    prepare_encoder(net, (8, 8), fresh=True)
    assert net.pos_embed is not None
    assert not net.pos_embed.requires_grad
    assert torch.equal(net.pos_embed[0, 0], torch.zeros(192))
    assert torch.equal(net.pos_embed[0, 1:], sincos_positions(192, (8, 8)))
    for weight, fan in (
        (net.blocks[0].attn.qkv.weight, 192 + 3 * 192),
        (net.blocks[3].mlp.fc1.weight, 192 + 768),
        (net.patch_embed.proj.weight, 192 + 64),
    ):
        bound = (6 / fan) ** 0.5  # Glorot and Bengio 2010: uniform within
        weight = weight.detach()  # type: ignore[operator,union-attr]
        assert 0.98 * bound < float(weight.abs().max()) <= bound  # type: ignore[operator,union-attr]
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.03)  # type: ignore[operator,union-attr]
    assert not net.blocks[5].mlp.fc2.bias.any()  # type: ignore[union-attr,operator]
    assert float(net.cls_token.detach().std()) == pytest.approx(0.02, rel=0.2)  # type: ignore[union-attr]


def test_weights_that_were_learned_stay_and_their_positions_stand_still() -> None:
    net = small()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    prepare_encoder(net, (4, 4), fresh=False)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [name for name, weight in net.named_parameters() if not weight.requires_grad] == ["pos_embed"]


def test_the_decoder_puts_patches_back_and_the_mask_token_where_there_are_none() -> None:
    """Without blocks a visible patch's prediction depends on its own token, a hidden one's on its place."""
    torch.manual_seed(0)
    decoder = Decoder(8, 1, (2, 2), 4, width=16, depth=1, heads=2).eval()
    decoder.blocks = torch.nn.Sequential()
    masking = hide(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 2)
    assert masking.visible.tolist() == [[1, 3]]
    tokens = torch.randn(1, 3, 8)
    with torch.no_grad():
        values = decoder(tokens, masking.restore)[0]
        code = sincos_positions(16, (2, 2))
        sources = [decoder.mask_token[0, 0], decoder.embed(tokens[0, 1]), decoder.mask_token[0, 0]]
        sources.append(decoder.embed(tokens[0, 2]))
        for place, source in enumerate(sources):
            expected = decoder.predict(decoder.norm(source + code[place]))
            torch.testing.assert_close(values[place], expected)
