"""Features of your own arrays from an encoder that `trabecula pretrain` wrote.

    python examples/encoder_features.py runs/moco

An encoder takes images in [0, 1] and brings its own normalisation; its card says what it is and has seen.
"""

import sys
from pathlib import Path

import torch

from trabecula import load_encoder

encoder = load_encoder(Path(sys.argv[1])).eval()
card = encoder.card
images = torch.rand(4, card.channels, card.size, card.size)  # (B, C, H, W): your images, as float in [0, 1]
with torch.inference_mode():
    features = encoder(images)  # (B, D)
    maps = encoder.maps(images)  # (B, K, h, w)
print(
    f"{card.name} ({card.architecture}, {card.images_seen:,} images seen): {tuple(features.shape)} features,"
)
print(f"maps {tuple(maps.shape)}")
