"""Grad-CAM: where in an image a score comes from.

Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2: each map of a layer is weighed by the mean of
the score's gradient over it, the weighed maps are summed, and what speaks against the score is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trabecula.errors import InputError
from trabecula.explaining.layers import captured, check_layers, map_layers, stages
from trabecula.nets.backbone import Backbone

Score = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> (B,) score of each."""


@dataclass(frozen=True)
class Cams:
    """`maps`: (B, h, w), at least 0, in units of the score. `scores`: (B,)."""

    maps: Tensor
    scores: Tensor


def grad_cam(score: Score, backbone: Backbone, layer: str, images: Tensor) -> Cams:
    """Grad-CAM of these images.

    Args:
        score: runs `backbone`; its images must not influence each other.
        backbone: the network that has the layer.
        layer: its name.
        images: (B, C, H, W) in [0, 1].
    """
    with captured(backbone, [layer]) as outputs, torch.enable_grad():
        # A gradient must reach the layer even where nothing before it learns.
        scores = score(images.detach().clone().requires_grad_())
        activations = outputs[layer]
        (gradient,) = torch.autograd.grad(scores.sum(), activations)
    weights = gradient.mean((2, 3), keepdim=True)  # equation 1
    maps = F.relu((weights * activations.detach()).sum(1))  # equation 2
    return Cams(maps, scores.detach())


def upsample(maps: Tensor, size: int) -> Tensor:
    """(B, h, w) -> (B, size, size), bilinear."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def choose_layer(backbone: Backbone, wanted: str = "") -> str:
    """The layer asked for, or the last stage whose maps have more than one position.

    Raises:
        InputError: no such layer, or a network without maps.
    """
    if wanted:
        check_layers(backbone, [wanted])
        return wanted
    shapes = map_layers(backbone)
    places = [name for name in stages(backbone) if shapes[name][1] * shapes[name][2] > 1]
    if not places:
        raise InputError(
            f"{backbone.architecture} gives no maps, so there is no place for Grad-CAM to point at"
        )
    return places[-1]


def class_score(logits: Tensor, target: int, single: bool) -> Tensor:
    """(B, K) logits -> (B,) what is explained.

    For labels of their own, the label's logit. For classes of which one holds, the class's logit less
    the mean of the others': a constant added to all changes no probability, and of two classes this is
    the log-odds, whichever of the two outputs has learned it.
    """
    own = logits[:, target]
    if not single:
        return own
    others = [k for k in range(logits.shape[1]) if k != target]
    return own - logits[:, others].mean(1)
