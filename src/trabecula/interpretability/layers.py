"""The layers of a network that give maps, and their activations.

A transformer's tokens are maps too: the patches are on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone

_INNER = (nn.Conv2d, nn.BatchNorm2d)  # a nonlinearity follows: its output is the layer's


@torch.inference_mode()
def map_layers(backbone: Backbone) -> dict[str, tuple[int, int, int]]:
    """Name -> (K, h, w) of every module that gives maps, in the order in which they run."""
    found: dict[str, tuple[int, int, int]] = {}
    names = {module: name for name, module in backbone.net.named_modules() if name}
    grid = backbone.grid if backbone.layout == "tokens" else None
    tokens = backbone.num_prefix_tokens + math.prod(grid) if grid else None

    def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        changed = not (given and output is given[0])  # not the layer in place of a library's classifier
        if isinstance(output, Tensor) and changed and (output.ndim == 4 or output.shape[1:-1] == (tokens,)):
            found.pop(names[module], None)  # a module that runs twice is placed where it ran last
            found[names[module]] = tuple(as_maps(backbone, output).shape[1:])  # type: ignore[assignment]

    with ExitStack() as after:
        for module in names:
            after.enter_context(module.register_forward_hook(note))
        after.callback(backbone.net.train, backbone.net.training)
        backbone.net.eval()
        device = next(backbone.net.parameters()).device
        backbone(torch.zeros((1, backbone.in_channels, backbone.size, backbone.size), device=device))
    return found


def as_maps(backbone: Backbone, output: Tensor) -> Tensor:
    """A layer's output as (B, K, h, w): as it is, or the patches among tokens (B, prefix + h * w, K)."""
    if output.ndim == 4 or backbone.grid is None:
        return output
    maps: Tensor = output[:, backbone.num_prefix_tokens :].transpose(1, 2).unflatten(2, backbone.grid)
    return maps


def stages(backbone: Backbone) -> list[str]:
    """The stages with maps: the blocks of a critic after their nonlinearity, layer1 to layer4 of a ResNet.

    They are the children of the outermost module that has more than one; of a transformer its blocks.
    """
    known = map_layers(backbone)
    modules = dict(backbone.net.named_modules())
    if backbone.layout == "tokens":
        return _blocks(modules, list(known))
    prefix = ""
    while True:
        children = [
            name for name in known
            if name.startswith(prefix) and "." not in name.removeprefix(prefix)
            and not isinstance(modules[name], _INNER)
        ]  # fmt: skip
        if len(children) != 1 or not any(name.startswith(f"{children[0]}.") for name in known):
            return children
        prefix = f"{children[0]}."


def _blocks(modules: dict[str, nn.Module], known: Sequence[str]) -> list[str]:
    """The longest row of modules of one kind."""
    rows: dict[str, list[str]] = {}
    for name in known:
        rows.setdefault(name.rpartition(".")[0], []).append(name)
    alike = [
        row for parent, row in rows.items()
        if isinstance(modules[parent], nn.Sequential) and len({type(modules[name]) for name in row}) == 1
    ]  # fmt: skip
    return max(alike, key=len, default=[])


def check_layers(backbone: Backbone, names: Sequence[str]) -> None:
    """Refuse the first layer that is not there or gives no maps, with an InputError."""
    known = list(map_layers(backbone))
    for name in names:
        if name not in known:
            raise InputError(
                f"layer '{name}' of {backbone.architecture} gives no maps or is not there"
                + suggest(name, known if len(known) < 12 else stages(backbone))
            )


@contextmanager
def captured(backbone: Backbone, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within it, each forward pass leaves the layers' outputs in the dictionary, for `as_maps`."""
    outputs: dict[str, Tensor] = {}
    modules = {backbone.net.get_submodule(name): name for name in names}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[modules[module]] = output

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(keep))
        yield outputs
