"""Grad-CAM against hand computation, and against its formula written anew without hooks."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.interpretability.gradcam import choose_layer, class_score, grad_cam, upsample
from trabecula.nets.backbone import Backbone, build_backbone
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import make_encoder


def linear(filters: int, size: int) -> Backbone:
    """One convolution, and a nonlinearity that does nothing."""
    net = build_backbone(f"critic:{filters}", 1, size)
    net.net.get_submodule("act0").negative_slope = 1.0  # type: ignore[assignment]
    return net


def test_linear_convolution_by_hand() -> None:
    """For score = sum_k w_k mean(A_k) the gradient is w_k / hw everywhere: the map is relu(sum w A) / hw."""
    net = linear(4, 8)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def score(images: Tensor) -> Tensor:
        return net.maps(images).mean((2, 3)) @ weights

    images = torch.rand(3, 1, 8, 8)
    cams = grad_cam(score, net, "conv0", images)
    with torch.no_grad():
        maps = net.net.get_submodule("conv0")(images)
        expected = F.relu(torch.einsum("k,bkhw->bhw", weights, maps) / 16)
        assert torch.allclose(cams.relu(), expected, atol=1e-7)
    assert float(cams.relu().max()) > 0
    assert not cams.relu().requires_grad


def test_two_channels_by_hand() -> None:
    """Maps [[1, 2], [3, -4]] and its negative, weights 3 and -1, gradients 3/4 and -1/4: 4/4 of the map."""
    net = linear(2, 4)
    conv = net.net.get_submodule("conv0")
    with torch.no_grad():
        conv.weight.zero_()  # type: ignore[operator]
        conv.weight[:, 0, 1, 1] = torch.tensor([1.0, -1.0])  # type: ignore[index]
        conv.bias.zero_()  # type: ignore[operator]
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, ::2, ::2] = torch.tensor([[1.0, 2.0], [3.0, -4.0]])

    def score(images: Tensor) -> Tensor:
        return net.maps(images).mean((2, 3)) @ torch.tensor([3.0, -1.0])

    cams = grad_cam(score, net, "conv0", image)
    assert torch.allclose(cams.relu()[0], torch.tensor([[1.0, 2.0], [3.0, 0.0]]))


def reference(net: nn.Sequential, cut: int, rest: nn.Module, images: Tensor) -> Tensor:
    """The formula with the network cut in two, and a gradient by finite differences of the second half."""
    maps = net[:cut](images).detach().double()
    rest, after = rest.double(), net[cut:].double()

    def tail(a: Tensor) -> Tensor:
        return rest(after(a).flatten(1)).squeeze(1)

    jacobian = torch.autograd.functional.jacobian(lambda a: tail(a).sum(), maps)
    step = 1e-6
    probe = torch.zeros_like(maps)
    probe[:, 1, 0, 0] = step
    slope = (tail(maps + probe) - tail(maps - probe)) / (2 * step)
    assert torch.allclose(jacobian[:, 1, 0, 0], slope, atol=1e-6)
    return torch.stack(
        [
            torch.clamp(sum(jacobian[b, k].mean() * maps[b, k] for k in range(maps.shape[1])), min=0)
            for b in range(len(maps))
        ]
    )


@pytest.mark.parametrize("block", [1, 2])
def test_inner_layers_equal_the_formula_written_anew(block: int) -> None:
    torch.manual_seed(1)
    encoder = make_encoder("critic:4-6-8", 1, 32).eval()
    critic = Critic(1, 32, widths=(4, 6, 8), blocks=encoder.backbone.net).eval()
    images = torch.rand(2, 1, 32, 32)

    def score(x: Tensor) -> Tensor:
        return critic.output(encoder.maps(x).flatten(1)).squeeze(1)

    cams = grad_cam(score, encoder.backbone, f"act{block}", images)
    expected = reference(encoder.backbone.net, 2 * block + 2, critic.output, encoder.normalise(images))
    assert torch.allclose(cams.relu().double(), expected, rtol=1e-4, atol=1e-9)


def test_hirescam_of_a_flattened_layer_sums_to_the_score() -> None:
    """Draelos and Carin 2020, section 3: a linear layer on the flattened maps has as gradient its weights."""
    encoder = make_encoder("critic:4-6-8", 1, 32).eval()
    critic = Critic(1, 32, widths=(4, 6, 8), blocks=encoder.backbone.net).eval()

    def score(x: Tensor) -> Tensor:
        return critic.output(encoder.maps(x).flatten(1)).squeeze(1)

    images = torch.rand(3, 1, 32, 32)
    cams = grad_cam(score, encoder.backbone, "act2", images, "hirescam")
    assert torch.allclose(cams.sum((1, 2)) + critic.output.bias, score(images), atol=1e-5)
    with torch.no_grad():
        weights = critic.output.weight.view(8, 4, 4)
        assert torch.allclose(cams, (weights * encoder.maps(images)).sum(1), atol=1e-6)
    plain = grad_cam(score, encoder.backbone, "act2", images)
    assert not torch.allclose(plain, cams, atol=1e-3)


def test_under_mean_pooling_both_methods_agree() -> None:
    encoder = make_encoder("critic:4-6-8", 1, 32, pool="mean").eval()
    weights = torch.randn(8)
    images = torch.rand(2, 1, 32, 32)
    both = [
        grad_cam(lambda x: encoder(x) @ weights, encoder.backbone, "act2", images, method)
        for method in ("gradcam", "hirescam")
    ]
    assert torch.allclose(*both, atol=1e-7)


def test_images_do_not_share_a_map() -> None:
    encoder = make_encoder("torchvision:resnet18", 1, 64).eval()
    layer = choose_layer(encoder.backbone)
    images = torch.rand(3, 1, 64, 64)

    def score(x: Tensor) -> Tensor:
        return encoder(x)[:, 5]

    together = grad_cam(score, encoder.backbone, layer, images).relu()
    alone = torch.cat([grad_cam(score, encoder.backbone, layer, image[None]).relu() for image in images])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-6)


def test_the_layer_is_the_last_that_has_places() -> None:
    assert choose_layer(build_backbone("critic", 1, 128)) == "act4"
    assert choose_layer(build_backbone("critic", 1, 64)) == "act3"  # act4 has four positions in all
    assert choose_layer(build_backbone("critic:4-4-4", 1, 8)) == "act0"
    assert choose_layer(build_backbone("critic:4-4", 1, 4)) == "act0"  # two across is better than one
    assert choose_layer(build_backbone("critic", 1, 32), "act1") == "act1"
    with pytest.raises(InputError, match="layer 'act7'"):
        choose_layer(build_backbone("critic", 1, 32), "act7")


def test_class_scores() -> None:
    logits = torch.tensor([[1.0, 4.0], [0.0, -2.0]])
    assert class_score(logits, 1, single=True).tolist() == [3.0, -2.0]  # the log-odds
    shifted = class_score(logits + torch.tensor([[5.0], [-7.0]]), 1, single=True)
    assert torch.allclose(shifted, class_score(logits, 1, single=True))
    assert class_score(logits, 0, single=False).tolist() == [1.0, 0.0]
    assert class_score(torch.tensor([[1.0, 2.0, 6.0]]), 2, single=True).tolist() == [4.5]


def test_upsampling_keeps_places() -> None:
    coarse = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    fine = upsample(coarse, 8)
    assert fine.shape == (1, 8, 8)
    assert float(fine[0, 0, 0]) == 1
    assert float(fine[0, 7, 7]) == 0
    assert torch.allclose(upsample(coarse.transpose(1, 2), 8), fine.transpose(1, 2))


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_a_transformer_is_explained_at_its_last_block_but_one(pool: Literal["mean", "token"]) -> None:
    """The last block's patches have no say in the class token: a map of theirs would be empty."""
    encoder = make_encoder("timm:test_vit_patch8", 1, 32, pool=pool, seed=2).eval()
    net = encoder.backbone.net
    layer = choose_layer(encoder.backbone)
    assert layer == "blocks.4"
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 1, 32, 32)
    cams = grad_cam(lambda x: encoder(x) @ direction, encoder.backbone, layer, images)
    with torch.no_grad():
        tokens = net.patch_drop(net._pos_embed(net.patch_embed(encoder.normalise(images))))  # type: ignore[operator]
        for block in net.blocks[:5]:  # type: ignore[index]
            tokens = block(tokens)
    tokens.requires_grad_()
    after = net.norm(net.blocks[5](tokens))  # type: ignore[operator,index]
    features = after[:, 0] if pool == "token" else after[:, 1:].mean(1)
    (features @ direction).sum().backward()
    assert tokens.grad is not None
    patches, slope = tokens.detach()[:, 1:], tokens.grad[:, 1:]
    expected = torch.einsum("bk,bnk->bn", slope.mean(1), patches).view(2, 4, 4)
    assert torch.allclose(cams, expected, rtol=1e-4, atol=1e-6)
    assert float(cams.abs().max()) > 1e-4
