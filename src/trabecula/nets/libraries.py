"""Networks of timm and torchvision, without classifier and with random weights, under the libraries' keys."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torchvision import models, ops

from trabecula.errors import InputError
from trabecula.kernels.conv import use_small_map_convolutions
from trabecula.kernels.depthwise import use_float32_depthwise
from trabecula.nets.backbone import IMAGENET_MEAN, IMAGENET_STD, BuiltNetwork


@cache
def timm_names() -> tuple[str, ...]:
    """Every architecture of timm, without pretrained tags."""
    return tuple(timm.list_models())


@cache
def timm_model(name: str) -> tuple[str, dict[str, int]] | None:
    """What timm is asked for under this name: its own name of a network, and options; None for nothing.

    A transformer has its patch size in its name, and any other size may stand there: "vit_tiny_patch8_224"
    is timm's "vit_tiny_patch16_224" with patch_size=8, "test_vit_patch8" its "test_vit".
    """
    if name in timm_names():
        return name, {}
    asked = _PATCH.search(name)
    if asked is None:
        return None
    bare = _PATCH.sub("", name, count=1)
    alike = sorted(other for other in timm_names() if _PATCH.sub("", other, count=1) == bare)
    usual = [other for other in alike if "_patch16" in other] or alike
    return (usual[0], {"patch_size": int(asked[1])}) if usual else None


_PATCH = re.compile(r"_patch([1-9]\d*)(?=_|$)")


def timm_source(name: str, channels: int, size: int) -> BuiltNetwork:
    """A network that `timm_model` knows for `channels` x `size` x `size` px.

    `global_pool=""` leaves the maps or tokens as they are, so that pooling is the encoder's choice.

    Raises:
        InputError: a size that is no multiple of its patches; timm has errors of its own for others.
    """
    model, extra = timm_model(name) or (name, {})
    options: dict[str, Any] = {"in_chans": channels, **extra}
    if timm.models.get_pretrained_cfg_value(model, "fixed_input_size"):
        options["img_size"] = size
    net = timm.create_model(model, pretrained=False, num_classes=0, global_pool="", **options)
    patches = getattr(net, "patch_embed", None)
    if isinstance(patches, PatchEmbed) and size % patches.patch_size[0]:
        # timm itself cuts off what is left over
        raise InputError(
            f"timm:{name} cuts images into patches of {patches.patch_size[0]} px, and {size} px is not a "
            "multiple of it; choose another size, or write another patch size into the name"
        )
    _silence(net)
    use_small_map_convolutions(net)
    use_float32_depthwise(net)
    described: dict[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
    return BuiltNetwork(
        net, _channels_first,
        classifier=tuple(f"{prefix}." for prefix in _listed(described.get("classifier"))),
        first_conv=(_listed(described.get("first_conv")) or ("",))[0],
        num_prefix_tokens=int(getattr(net, "num_prefix_tokens", 0)),
        mean=tuple(described.get("mean") or IMAGENET_MEAN), std=tuple(described.get("std") or IMAGENET_STD),
    )  # fmt: skip


def _silence(net: nn.Module) -> None:
    """Switch off dropout and stochastic depth.

    They would draw from torch's global generator, and a training step here draws its random numbers from the
    batch alone. A layer of timm is known by what its rate is called: drop_prob (DropPath, DropBlock2d), prob
    (PatchDropout), or drop_rate, which a network's own forward passes on to `F.dropout`.
    """
    for module in net.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, ops.StochasticDepth)):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        for name in ("drop_prob", "prob", "drop_rate"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _listed(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _channels_first(net: nn.Module, x: Tensor) -> Tensor:
    raw: Tensor = net(x)
    return raw.permute(0, 3, 1, 2) if raw.ndim == 4 and channels_last(net) else raw


def channels_last(net: nn.Module) -> bool:
    """Whether a network of timm gives maps as (B, h, w, K)."""
    return str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")


CLASSIFIERS = ("fc", "classifier", "head", "heads")


@cache
def torchvision_names() -> tuple[str, ...]:
    """Every classification network of torchvision."""
    return tuple(models.list_models(module=models))


def torchvision_source(name: str, channels: int, size: int) -> BuiltNetwork:
    """One network for `channels` x `size` x `size` px.

    Raises:
        InputError: its features cannot be had before the classifier.
    """
    call = eval(f"lambda net, x: {torchvision_features(name)}", {"torch": torch})
    net = models.get_model(name, weights=None, **torchvision_options(name, size))
    for child in CLASSIFIERS:
        if hasattr(net, child):
            setattr(net, child, nn.Identity())
    _silence(net)
    first = next(key for key, module in net.named_modules() if isinstance(module, nn.Conv2d))
    _set_channels(net, first, channels)
    use_small_map_convolutions(net)
    use_float32_depthwise(net)
    prefixes = tuple(f"{child}." for child in CLASSIFIERS)
    return BuiltNetwork(net, call, prefixes, first, num_prefix_tokens=int(name.startswith("vit_")))


def torchvision_options(name: str, size: int) -> dict[str, Any]:
    """Options of a network that has to know the size of its images."""
    if name.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if name.startswith("maxvit") else {}


def _set_channels(net: nn.Module, name: str, channels: int) -> None:
    """Let the first convolution take `channels`, its kernels from the ones drawn for RGB."""
    old: Any = net.get_submodule(name)
    if old.in_channels == channels:
        return
    biased = old.bias is not None
    new: Any = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=biased)
    with torch.no_grad():
        new.weight.copy_(old.weight[:, torch.arange(channels) % old.in_channels])
        if biased:
            new.bias.copy_(old.bias)
    net.set_submodule(name, new)


def torchvision_features(name: str) -> str:
    """The features before the classifier, as Python of `net` and normalised `x`; refused if it has none."""
    for prefixes, code in _FEATURES.items():
        if name.startswith(prefixes):
            return code
    raise InputError(
        f"torchvision:{name}: its features before the classifier cannot be had; "
        f"timm has most networks under the same name (timm:{name}), or use torchvision:resnet18"
    )


# Maps, tokens or vectors, in the words of torchvision's own `forward`; an export's README has the same lines.
_FEATURES = {
    ("resnet", "resnext", "wide_resnet"): "net.layer4(net.layer3(net.layer2(net.layer1("
    "net.maxpool(net.relu(net.bn1(net.conv1(x))))))))",
    ("densenet",): "torch.relu(net.features(x))",
    ("squeezenet", "vgg", "alexnet", "mobilenet", "efficientnet", "convnext"): "net.features(x)",
    ("regnet",): "net.trunk_output(net.stem(x))",
    ("shufflenet",): "net.conv5(net.stage4(net.stage3(net.stage2(net.maxpool(net.conv1(x))))))",
    ("mnasnet",): "net.layers(x)",
    ("swin",): "net.permute(net.norm(net.features(x)))",
    ("maxvit",): "torch.nn.Sequential(net.stem, *net.blocks)(x)",
    ("vit_",): "net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), net._process_input(x)], 1))",
}
