"""Networks of timm, without classifier and with random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import timm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.backbone import IMAGENET_MEAN, IMAGENET_STD, Source
from trabecula.nets.conv import use_small_map_convolutions
from trabecula.nets.stem import pool_before_relu


@cache
def names() -> tuple[str, ...]:
    """Every architecture of timm, without pretrained tags."""
    return tuple(timm.list_models())


def source(name: str, channels: int, size: int) -> Source:
    """Build one network for `channels` x `size` x `size` px.

    `global_pool=""` leaves the maps or tokens as they are, so that pooling is the encoder's choice.

    Raises:
        InputError: timm cannot build it for this size or number of channels.
    """
    options: dict[str, Any] = {"in_chans": channels}
    if timm.models.get_pretrained_cfg_value(name, "fixed_input_size"):
        options["img_size"] = size
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **options)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"timm:{name} cannot be built for {channels} x {size} x {size} px images ({reason}); "
            "choose another architecture or size"
        ) from None
    if isinstance(net, ResNet):
        pool_before_relu(net, "act1", "maxpool")
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
