"""Is an adversarial training well? Answered by measuring its nets, never by reading its settings.

diversity      how far made images lie from each other, as a part of how far real ones do
slope          of the critic between real and made images, where a method draws it to 1
company        how far a score moves when the same image is scored with others
spread         of the critic's scores over real and made images
reach          the gap between scores as a part of what a critic of slope 1 could give
growth         of gradients' norms and of the gap, against the points before
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from trabecula.artifacts.store import to_float
from trabecula.nets.input_gradient import input_gradient
from trabecula.nets.latent import latents
from trabecula.objectives.adversarial import Adversarial
from trabecula.random_numbers import mix

NUM_IMAGES = 64
"""Real images, and made ones, that are looked at."""

ALIKE = 0.1
"""Diversity below which made images count as alike; those of fresh weights lie above it."""
STEEP, FLAT = 2.0, 0.5
"""Mean slopes outside of which a critic drawn to 1 is not there. It starts flat, so that FLAT counts only
after SETTLED critic updates."""
SETTLED = 1000
COMPANY = 1e-3
"""Part of the spread of scores that company may move a score by; rounding moves it by about 1e-6."""
ROUNDING = 1e-3
"""Part of a score's size below which a spread of scores may be rounding."""
SILENT = 1e-5
"""Spread of scores below which the critic tells nothing; asked after SETTLED critic updates."""
REACH = 2.0
"""A critic of slope 1 has a reach of at most 1."""
RUNAWAY, BEFORE = 100.0, 5
"""Growth over the median of the points before that is no training; asked once there are BEFORE of them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a name for programs, a sentence for people."""

    name: str
    text: str


class Health:
    """Looks at an adversarial objective, always with the same images, noise and mixing.

    Args:
        images: (B, C, H, W) uint8 or uint16, real ones, at least 4.
        seed: of noise and mixing.
    """

    def __init__(self, objective: Adversarial, images: Tensor, seed: int) -> None:
        num, device = len(images), images.device
        self.objective = objective.to(device)  # training has not moved it yet
        with torch.no_grad():
            self.real = objective.encoder.normalise(to_float(images))
        self.noise = latents(range(num), objective.config.latent, mix(seed, "health")).to(device)
        generator = torch.Generator().manual_seed(mix(seed, "health mixing"))
        self.mixing = torch.rand(num, 1, 1, 1, generator=generator).to(device)

    def measure(self) -> dict[str, float]:
        """The measurements, in float32; the nets, copied, are used as in training and stay as they were."""
        critic = copy.deepcopy(self.objective.scorer()).train()
        generator = copy.deepcopy(self.objective.generator).train()
        device = self.real.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.autocast(device.type, enabled=False):
            torch.manual_seed(0)  # a critic with dropout is noisy in the same way at each look
            with torch.no_grad():
                fake = generator(self.noise).float()
                on_real, on_fake = critic(self.real), critic(fake)
                company = _company(critic, self.real, fake)
            between = self.mixing * self.real + (1 - self.mixing) * fake
            slope = input_gradient(critic, between).detach().flatten(1).norm(dim=1).mean()
        scores = torch.cat([on_real, on_fake])
        spread = torch.maximum(scores.std(), ROUNDING * scores.abs().max())
        across = torch.cdist(self.real.flatten(1), fake.flatten(1)).mean().clamp_min(1e-12)
        found = {
            "diversity": _distance(fake) / _distance(self.real).clamp_min(1e-12),
            "slope": slope,
            "company": company / spread.clamp_min(1e-30),
            "spread": spread,
            "reach": (on_real.mean() - on_fake.mean()) / across,
        }
        return {f"health/{name}": float(value) for name, value in found.items()}

    def look(self, curve: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], list[Finding]]:
        """Measurements and findings at a point of training.

        Args:
            curve: what was logged at each point so far, this one last.
        """
        measured = self.measure()
        updates = int(self.objective.updates) * self.objective.batches
        return measured, judge(measured, curve, updates, self.objective.penalised)


def judge(
    measured: Mapping[str, float], curve: Sequence[Mapping[str, float]], updates: int, drawn_to_one: bool
) -> list[Finding]:
    """What is wrong.

    Args:
        updates: of the critic, so far.
        drawn_to_one: whether the method draws the critic's slope to 1.
    """
    found = []
    bad = sorted(name for name, value in {**curve[-1], **measured}.items() if not math.isfinite(value))
    if bad:
        found.append(Finding("not finite", f"{', '.join(bad)}: no finite number any more"))
    diversity, slope, company, reach = (
        measured[f"health/{name}"] for name in ("diversity", "slope", "company", "reach")
    )
    if diversity < ALIKE:
        text = (
            f"the generator's images are all but alike: they differ by {diversity:.1%} of what real ones do"
        )
        found.append(Finding("collapse", text))
    if company > COMPANY:
        text = (
            "the critic's score of an image depends on the images it is scored with: it moves by "
            f"{company:.1%} of the spread of scores"
        )
        found.append(Finding("batch mates", text))
    if measured["health/spread"] < SILENT and updates >= SETTLED:
        spread = measured["health/spread"]
        text = f"the critic scores all images alike: its scores spread by {spread:.1g}, so it teaches nothing"
        found.append(Finding("silent critic", text))
    if drawn_to_one:
        if slope > STEEP or (slope < FLAT and updates >= SETTLED):
            text = f"the critic's slope between real and made images is {slope:.3g}, far from 1"
            found.append(Finding("slope", text))
        if abs(reach) > REACH:
            text = (
                f"the gap between scores is {reach:.3g} times what a critic of slope 1 could give between "
                "these images"
            )
            found.append(Finding("gap", text))
    return found + _runaways(curve)


def _runaways(curve: Sequence[Mapping[str, float]]) -> list[Finding]:
    found = []
    *before, now = curve
    for name in ("critic/norm", "generator/norm", "gap"):
        earlier = [abs(point[name]) for point in before if name in point]
        if name not in now or len(earlier) < BEFORE:
            continue
        usual, value = median(earlier), abs(now[name])
        if value > RUNAWAY * usual:
            what = "gap between scores" if name == "gap" else f"gradient of the {name.split('/')[0]}"
            text = f"the {what} runs away: {value:.3g}, {value / max(usual, 1e-30):.0f} times its usual value"
            found.append(Finding(f"runaway {name}", text))
    return found


def _distance(images: Tensor) -> Tensor:
    """Mean Euclidean distance between two of the images."""
    return torch.pdist(images.flatten(1)).mean()


def _company(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """How far an image's score moves at most between other real images, made ones, and its own double."""
    half = len(real) // 2
    asked = real[:half]
    contexts = [
        critic(torch.cat([asked, real[half : 2 * half]]))[:half],
        critic(torch.cat([asked, fake[:half]]))[:half],
        torch.cat([critic(torch.cat([image, image]))[:1] for image in asked.split(1)]),
    ]
    scores = torch.stack(contexts)
    return (scores.amax(0) - scores.amin(0)).max()
