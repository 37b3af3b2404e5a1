"""Networks of timm, without classifier and with random weights."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import timm
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.kernels.conv import use_small_map_convolutions
from trabecula.nets.backbone import IMAGENET_MEAN, IMAGENET_STD, Source


@cache
def names() -> tuple[str, ...]:
    """Every architecture of timm, without pretrained tags."""
    return tuple(timm.list_models())


@cache
def known(name: str) -> tuple[str, dict[str, int]] | None:
    """What timm is asked for under this name: its own name of a network, and options; None for nothing.

    A transformer has its patch size in its name, and any other size may stand there: "vit_tiny_patch8_224"
    is timm's "vit_tiny_patch16_224" with patch_size=8, "test_vit_patch8" its "test_vit".
    """
    if name in names():
        return name, {}
    asked = _PATCH.search(name)
    if asked is None:
        return None
    bare = _PATCH.sub("", name, count=1)
    alike = sorted(other for other in names() if _PATCH.sub("", other, count=1) == bare)
    usual = [other for other in alike if "_patch16" in other] or alike
    return (usual[0], {"patch_size": int(asked[1])}) if usual else None


_PATCH = re.compile(r"_patch([1-9]\d*)(?=_|$)")


def source(name: str, channels: int, size: int) -> Source:
    """Build one network for `channels` x `size` x `size` px.

    `global_pool=""` leaves the maps or tokens as they are, so that pooling is the encoder's choice.

    Args:
        name: a name that is `known`.

    Raises:
        InputError: timm cannot build it for this size or number of channels.
    """
    model, extra = known(name) or (name, {})
    options: dict[str, Any] = {"in_chans": channels, **extra}
    if timm.models.get_pretrained_cfg_value(model, "fixed_input_size"):
        options["img_size"] = size
    try:
        net = timm.create_model(model, pretrained=False, num_classes=0, global_pool="", **options)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"timm:{name} cannot be built for {channels} x {size} x {size} px images ({reason}); "
            "choose another architecture or size"
        ) from None
    patches = getattr(net, "patch_embed", None)
    if isinstance(patches, PatchEmbed) and size % patches.patch_size[0]:
        # timm itself cuts off what is left over
        raise InputError(
            f"timm:{name} cuts images into patches of {patches.patch_size[0]} px, and {size} px is no "
            "multiple of it; choose another size, or write another patch size into the name"
        )
    use_small_map_convolutions(net)
    told: dict[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
    return Source(
        net=net,
        call=_call,
        num_prefix_tokens=int(getattr(net, "num_prefix_tokens", 0)),
        mean=tuple(told.get("mean") or IMAGENET_MEAN),
        std=tuple(told.get("std") or IMAGENET_STD),
        classifier=tuple(f"{prefix}." for prefix in _listed(told.get("classifier"))),
        first_conv=(_listed(told.get("first_conv")) or ("",))[0],
    )


def _listed(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _call(net: nn.Module, x: Tensor) -> Tensor:
    raw: Tensor = net(x)
    if raw.ndim == 4 and str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"):
        return raw.permute(0, 3, 1, 2)
    return raw
