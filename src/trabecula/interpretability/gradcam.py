"""Grad-CAM: where in an image a score comes from.

Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2: each map of a layer is weighed by the mean of
the score's gradient over it, the weighed maps are summed, and what speaks against the score is cut off.

The mean is right where the network itself takes the mean of its maps. A critic reads every position with
weights of its own; there HiResCAM (Draelos and Carin 2020, arXiv 2011.08891) weighs each position by its own
gradient, and over the last layer its sum before the cut is the score itself, but for the bias.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trabecula.artifacts.explanation import CamMethod
from trabecula.errors import InputError
from trabecula.interpretability.layers import as_maps, captured, check_layers, map_layers, stages
from trabecula.nets.backbone import Backbone

Score = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> (B,) score of each."""

_PLACES = 4  # positions across below which a map hardly points anywhere


def grad_cam(
    score: Score, backbone: Backbone, layer: str, images: Tensor, method: CamMethod = "gradcam"
) -> Tensor:
    """Grad-CAM, or HiResCAM, before the cut: images (B, C, H, W) in [0, 1] -> (B, h, w) in the score's unit.

    `score` runs `backbone`, which has the layer; its images must not influence each other.
    """
    with captured(backbone, [layer]) as outputs, torch.enable_grad():
        # A gradient must reach the layer even where nothing before it learns.
        total = score(images.detach().clone().requires_grad_()).sum()
        activations = outputs[layer]
        (gradient,) = torch.autograd.grad(total, activations)
    activations, gradient = as_maps(backbone, activations), as_maps(backbone, gradient)
    weights = gradient.mean((2, 3), keepdim=True) if method == "gradcam" else gradient  # equation 1
    return (weights * activations.detach()).sum(1)  # equation 2, before its ReLU


def upsample(maps: Tensor, size: int) -> Tensor:
    """(B, h, w) -> (B, size, size), bilinear."""
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def choose_layer(backbone: Backbone, wanted: str = "") -> str:
    """The layer asked for, or the last stage with maps of 4 x 4 positions at least, or of more than one.

    Of a transformer it is the last block but one: what comes after the last block's attention stays where it
    is, so that a class token does not see it. An InputError if there is no such layer, or there are no maps.
    """
    if wanted:
        check_layers(backbone, [wanted])
        return wanted
    shapes = map_layers(backbone)
    places = [name for name in stages(backbone) if shapes[name][1] * shapes[name][2] > 1]
    if backbone.layout == "tokens":
        places = places[: max(len(places) - 1, 1)]
    if not places:
        raise InputError(f"{backbone.architecture} gives no maps, which Grad-CAM needs")
    fine = [name for name in places if min(shapes[name][1:]) >= _PLACES]
    return (fine or places)[-1]


def class_score(logits: Tensor, target: int, single: bool) -> Tensor:
    """(B, K) logits -> (B,) what is explained: for labels of their own, the label's logit.

    For classes of which one holds, the class's logit less
    the mean of the others': a constant added to all changes no probability, and of two classes this is
    the log-odds, whichever of the two outputs has learned it.
    """
    others = [k for k in range(logits.shape[1]) if k != target]
    return logits[:, target] - logits[:, others].mean(1) if single else logits[:, target]
