"""Pictures, and random numbers of chosen rows, for the tests of views."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from trabecula.data.views import Views


class Rows:
    """Random numbers of chosen rows: row b is a stream of its own, seeded by its id."""

    def __init__(self, ids):
        self.streams = [torch.Generator().manual_seed(int(row) + 1000) for row in ids]
        self.calls = []

    def uniform(self, *shape):
        self.calls.append(("uniform", shape))
        return torch.stack([torch.rand(shape, generator=g) for g in self.streams])

    def normal(self, *shape):
        self.calls.append(("normal", shape))
        return torch.stack([torch.randn(shape, generator=g) for g in self.streams])


class Fixed(Rows):
    """The same uniform number everywhere; 1 reaches the largest angle."""

    def __init__(self, batch, value):
        super().__init__(range(batch))
        self.value = value

    def uniform(self, *shape):
        return torch.full((len(self.streams), *shape), self.value)


def still(**changes):
    """Settings that leave an image as it is, but for the changes."""
    off = {"crop_scale": (1, 1), "crop_ratio": (1, 1), "rotate": 0, "intensity": 0, "blur": 0}
    return Views(**{**off, **changes})


def picture(batch=3, channels=1, height=64, width=64, dtype=torch.uint8, seed=0):
    g = torch.Generator().manual_seed(seed)
    top = 256 if dtype == torch.uint8 else 65536
    return torch.randint(0, top, (batch, channels, height, width), generator=g, dtype=torch.int32).to(dtype)


def smooth(batch, height, width, seed=0):
    """A picture without fine detail, as uint8."""
    rough = np.random.default_rng(seed).normal(size=(batch, height, width))
    soft = np.stack([gaussian_filter(image, 6) for image in rough])
    soft = (soft - soft.min()) / np.ptp(soft)
    return torch.from_numpy((soft * 255).astype(np.uint8))[:, None]


EVERYTHING = Views(size=48, flip=0.5, gamma=0.3, noise=0.05, solarize=0.3)
