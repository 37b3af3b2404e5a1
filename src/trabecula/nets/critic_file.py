"""Critics on disk: an encoder's folder holds the layers, critic.safetensors the output layer on top.

encoder.safetensors, encoder.json     the critic's blocks, see nets/encoder.py
critic.safetensors                    "output.weight" (1, num_features), "output.bias" (1,)
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from safetensors.torch import save as safetensors_bytes
from torch import nn

from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.files import write_atomically
from trabecula.nets.critic import Critic, is_critic
from trabecula.nets.encoder import load_encoder
from trabecula.nets.weights import mismatch

WEIGHTS_FILE = "critic.safetensors"


def save_critic(critic: Critic, folder: Path) -> None:
    """Write the output layer beside the encoder whose blocks it reads."""
    state = {
        f"output.{key}": value.detach().cpu().contiguous().clone()
        for key, value in critic.output.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_FILE, safetensors_bytes(state))


def load_critic(folder: Path) -> Critic:
    """Read a critic, ready to score images in [-1, 1] as its encoder's `normalise` gives them.

    Its `blocks` are the network of the encoder in the same folder.

    Raises:
        InputError: no critic there, or an output layer that does not fit the encoder.
    """
    file = folder / WEIGHTS_FILE
    if not file.exists():
        raise InputError(
            f"{folder}: no critic there ({WEIGHTS_FILE} is missing); an adversarial `pretrain` writes one"
        )
    encoder = load_encoder(folder)
    if not is_critic(encoder.card.architecture):
        raise InputError(
            f"{folder}: a critic's layers are needed, the encoder is {encoder.card.architecture}"
        )
    critic = Critic(
        encoder.card.channels, encoder.card.size, blocks=cast("nn.Sequential", encoder.backbone.net)
    )
    state = {key.removeprefix("output."): value for key, value in read_weights(file).items()}
    problem = mismatch(critic.output.state_dict(), state)
    if problem:
        raise InputError(f"{file}: does not fit the encoder beside it: {problem}")
    critic.output.load_state_dict(state)
    return critic.eval()
