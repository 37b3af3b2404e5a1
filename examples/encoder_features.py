"""Features of your own arrays from an encoder that `trabecula pretrain` wrote.

    python examples/encoder_features.py runs/moco

An encoder brings its own normalisation and says what size it takes; its card says what it is and has seen.
"""

import sys

import numpy as np

from trabecula import load_encoder

encoder = load_encoder(sys.argv[1])
card = encoder.card
generator = np.random.default_rng(0)
# (N, C, H, W): your images, as uint8 or as float in [0, 1]
images = generator.integers(0, 256, (4, card.channels, card.size, card.size), dtype=np.uint8)
features = encoder.embed(images)  # (N, D), a tensor
print(
    f"{card.name} ({card.architecture}, {card.images_seen:,} images seen): {tuple(features.shape)} features"
)
