"""Is an adversarial training well? Answered by measuring its nets, never by reading its settings.

diversity           distance between made images, as a part of the distance between real ones
gradient_norm       norm of the critic's input gradient between real and made images
batch_dependence    how far a score moves when the same image is scored with others
spread              of the critic's scores over real and made images
relative_gap        the gap between scores as a part of what a critic of gradient norm 1 could give
growth              of gradients' norms and of the gap, against the points before
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from statistics import median

import torch
from torch import Tensor, nn

from trabecula.artifacts.store import to_float
from trabecula.data.pretraining_pool import evenly
from trabecula.monitors.monitor import Checked, Curve, Finding, Monitor, Watched
from trabecula.nets.input_gradient import input_gradient
from trabecula.nets.latent import latents
from trabecula.objectives.adversarial import Adversarial
from trabecula.random_numbers import mix

NUM_IMAGES = 64
"""Real images, and as many made ones, that are measured."""
ALIKE = 0.1
"""Diversity below which made images count as alike; those of fresh weights have more."""
STEEP, FLAT = 2.0, 0.5
"""Mean gradient norms outside of which a critic drawn to 1 is not there. It starts flat, so that FLAT counts
only after SETTLED critic updates."""
SETTLED = 1000
DEPENDENT = 1e-3
"""Part of the spread of scores by which other images may move a score; rounding moves it by about 1e-6."""
ROUNDING = 1e-3
"""Part of a score's size below which a spread of scores may be rounding."""
SILENT = 1e-5
"""Spread of scores below which the critic teaches nothing; checked after SETTLED critic updates."""
LARGEST_GAP = 2.0
"""Bound of the relative gap; a critic of gradient norm 1 has at most 1."""
RUNAWAY, BEFORE = 100.0, 5
"""Growth over the median of the points before beyond which training has failed; checked once there are
BEFORE of them."""


class GanMonitor(Monitor):
    """Measures an adversarial objective, always with the same images, noise and mixing."""

    def __init__(self, objective: Adversarial, watched: Watched) -> None:
        device, seed = watched.device, watched.seed
        images = watched.store.read(evenly(watched.pool, NUM_IMAGES)).to(device)
        self.objective = objective.to(device)  # training has not moved it yet
        with torch.no_grad():
            self.real = objective.encoder.normalise(to_float(images))
        self.noise = latents(range(len(images)), objective.generator.latent, mix(seed, "health")).to(device)
        generator = torch.Generator().manual_seed(mix(seed, "health mixing"))
        self.mixing = torch.rand(len(images), 1, 1, 1, generator=generator).to(device)

    def measure(self) -> dict[str, float]:
        """The measurements, in float32; the nets, copied, are used as in training and stay as they were."""
        critic = copy.deepcopy(self.objective.scorer()).train()
        generator = copy.deepcopy(self.objective.generator).train()
        device = self.real.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.autocast(device.type, enabled=False):
            torch.manual_seed(0)  # a critic with dropout is noisy in the same way at each check
            with torch.no_grad():
                fake = generator(self.noise).float()
                on_real, on_fake = critic(self.real), critic(fake)
                moved = _batch_dependence(critic, self.real, fake)
            between = self.mixing * self.real + (1 - self.mixing) * fake
            gradient = input_gradient(critic, between).detach().flatten(1)
        scores = torch.cat([on_real, on_fake])
        spread = torch.maximum(scores.std(), ROUNDING * scores.abs().max())
        across = torch.cdist(self.real.flatten(1), fake.flatten(1)).mean().clamp_min(1e-12)
        found = {
            "diversity": _distance(fake) / _distance(self.real).clamp_min(1e-12),
            "gradient_norm": gradient.norm(dim=1).mean(),
            "batch_dependence": moved / spread.clamp_min(1e-30),
            "spread": spread,
            "relative_gap": (on_real.mean() - on_fake.mean()) / across,
        }
        return {f"health/{name}": float(value) for name, value in found.items()}

    def check(self, curve: Curve, last: bool) -> Checked:  # noqa: ARG002
        """Every point is measured."""
        measured = self.measure()
        updates = int(self.objective.updates) * self.objective.batches
        return measured, judge(measured, curve, updates, self.objective.penalised)


def judge(measured: Mapping[str, float], curve: Curve, updates: int, drawn_to_one: bool) -> list[Finding]:
    """What is wrong.

    Args:
        updates: of the critic, so far.
        drawn_to_one: whether the method draws the norm of the critic's input gradient to 1.
    """
    bad = sorted(name for name, value in {**curve[-1], **measured}.items() if not math.isfinite(value))
    names = "diversity", "gradient_norm", "batch_dependence", "spread", "relative_gap"
    diversity, norm, dependence, spread, gap = (measured[f"health/{name}"] for name in names)
    settled = updates >= SETTLED
    checks = (
        (bool(bad), "not finite", f"{', '.join(bad)}: not finite any more"),
        (diversity < ALIKE, "collapse",
         f"the generator's images are nearly alike: their distance is {diversity:.1%} of that of real ones"),
        (dependence > DEPENDENT, "batch mates",
         "the critic's score of an image depends on the images it is scored with: it moves by "
         f"{dependence:.1%} of the spread of scores"),
        (spread < SILENT and settled, "silent critic",
         f"the critic scores all images alike: its scores spread by {spread:.1g}, so it teaches nothing"),
        (drawn_to_one and (norm > STEEP or (norm < FLAT and settled)), "gradient norm",
         f"the norm of the critic's input gradient between real and made images is {norm:.3g}, far from 1"),
        (drawn_to_one and abs(gap) > LARGEST_GAP, "gap",
         f"the gap between scores is {gap:.3g} times what a critic of gradient norm 1 could give between "
         "these images"),
    )  # fmt: skip
    return [Finding(name, text) for wrong, name, text in checks if wrong] + _runaways(curve)


def _runaways(curve: Curve) -> list[Finding]:
    found = []
    *before, now = curve
    for name in ("critic/norm", "generator/norm", "gap"):
        earlier = [abs(point[name]) for point in before if name in point]
        if name not in now or len(earlier) < BEFORE:
            continue
        usual, value = median(earlier), abs(now[name])
        if value > RUNAWAY * usual:
            what = "gap between scores" if name == "gap" else f"gradient of the {name.split('/')[0]}"
            times = value / max(usual, 1e-30)
            text = f"the {what} grows without bound: {value:.3g}, {times:.0f} times its usual value"
            found.append(Finding(f"runaway {name}", text))
    return found


def _distance(images: Tensor) -> Tensor:
    """Mean Euclidean distance between two of the images."""
    return torch.pdist(images.flatten(1)).mean()


def _batch_dependence(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """How far a score moves at most: with other real images, with made ones, with a copy of the image."""
    half = len(real) // 2
    scored = real[:half]
    scores = torch.stack([
        critic(torch.cat([scored, real[half : 2 * half]]))[:half],
        critic(torch.cat([scored, fake[:half]]))[:half],
        torch.cat([critic(torch.cat([image, image]))[:1] for image in scored.split(1)]),
    ])  # fmt: skip
    return (scores.amax(0) - scores.amin(0)).max()
