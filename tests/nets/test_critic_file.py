"""Critics on disk: what is loaded is what was saved, and what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trabecula.errors import InputError
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import load_critic, make_encoder


def saved(folder: Path, architecture: str = "critic:4-8-16") -> tuple[Critic, torch.Tensor]:
    """A critic's folder, the critic itself, and images in [0, 1]."""
    encoder = make_encoder(architecture, channels=1, size=32, seed=1)
    torch.manual_seed(2)
    critic = Critic(1, 32, blocks=cast("nn.Sequential", encoder.backbone.net)).eval()
    encoder.save(folder)
    critic.save(folder, encoder.card, 0)
    return critic, torch.rand(3, 1, 32, 32)


@pytest.mark.parametrize("architecture", ["critic:4-8-16", "critic_bn:4-8"])
def test_a_loaded_critic_scores_as_the_saved_one(tmp_path: Path, architecture: str) -> None:
    critic, images = saved(tmp_path, architecture)
    loaded = load_critic(tmp_path)
    assert not loaded.training
    assert loaded.num_features == critic.num_features
    with torch.no_grad():
        torch.testing.assert_close(loaded(images * 2 - 1), critic(images * 2 - 1), rtol=0, atol=0)


def test_the_input_is_what_the_encoder_normalises_to(tmp_path: Path) -> None:
    _, images = saved(tmp_path)
    encoder = make_encoder("critic:4-8-16", channels=1, size=32)
    torch.testing.assert_close(encoder.normalise(images), images * 2 - 1)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no critic there"):
        load_critic(tmp_path)
    saved(tmp_path)
    save_file({"output.weight": torch.zeros(1, 5)}, tmp_path / "critic.safetensors")
    with pytest.raises(InputError, match=r"1 missing \(bias\); 1 of another shape"):
        load_critic(tmp_path)
    make_encoder("timm:resnet10t", 1, 32).save(tmp_path)
    with pytest.raises(InputError, match="the encoder is timm:resnet10t"):
        load_critic(tmp_path)
