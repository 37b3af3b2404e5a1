"""WGAN-GP with its gradient penalty in float32 and in bf16: as good at equal steps?

    python bench/penalty_quality.py [--seeds 3] [--updates 300] [--widths 16-32-64-128]
    python bench/penalty_quality.py --extractor torchvision:squeezenet1_0 --weights FILE

For each seed the same GAN is trained twice on phantom knees of 64 px, in bf16 but for the penalty of the
first: same start, images, noise and steps. At each point the critic's gap and the norm of its input
gradient between real and made images (means since the last point) and the Frechet distance of samples to
knees of other patients are compared. Widths are narrower than the paper's by default, to be quick.

One JSON line. For each measure and point: its mean in float32 and the spread (standard deviation) of that
over seeds; the mean difference, bf16 minus float32, and its standard error over seeds. Training is
chaotic: a last bit makes two runs of one seed part until they differ as two seeds do. So a difference is
shown where it is beyond its t interval, and matters where it is large beside the spread over seeds.
`undecided` is half the width of the difference's 95 % t interval at the last point: a harm that such a run
could have missed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from turns import Memory

from trabecula.data.batches import Stream
from trabecula.metrics.fidelity import frechet_distance
from trabecula.nets.encoder import make_encoder
from trabecula.nets.extractors import Extractor, load_extractor
from trabecula.objectives.objective import Setting
from trabecula.objectives.wgan_gp import WganGp, WganGpConfig
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import Joints
from trabecula.train.loop import train

SIZE, BATCH, MEASURES = 64, 64, ("gap", "gradient_norm", "frechet")
Arm = Literal["float32", "bf16"]


def knees(num_patients: int, seed: int) -> Tensor:
    """(2 num_patients, 1, SIZE, SIZE) uint8."""
    joints = Joints(num_patients=num_patients, size=SIZE, seed=seed)
    images = [
        draw_knee(joints, patient, side).image for patient in range(num_patients) for side in ("L", "R")
    ]
    return torch.from_numpy(np.stack(images)).unsqueeze(1)


def measure(
    images: Tensor,
    held_out: np.ndarray,
    extract: Extractor,
    penalty: Arm,
    seed: int,
    args: argparse.Namespace,
) -> list[list[float]]:
    """Train once; at each point the values of MEASURES."""
    encoder = make_encoder(f"critic:{args.widths}", channels=1, size=SIZE, seed=seed)
    objective = WganGp(WganGpConfig(penalty_precision=penalty), encoder, Setting(len(images), BATCH, seed))
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=seed)
    seen = args.updates * objective.batches * BATCH
    found = []
    for point in train(objective, stream, images=seen, every=seen // args.points, precision="bf16"):
        made = objective.generator.sample(len(held_out), seed)
        features = torch.cat([extract(part) for part in made.split(BATCH)])
        distance = frechet_distance(features.numpy(), held_out)
        found.append([point.scalars["gap"], point.scalars["gradient_norm"], distance])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--updates", type=int, default=300, help="of the generator; five of the critic to each"
    )
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--widths", default="16-32-64-128")
    parser.add_argument("--patients", type=int, default=500, help="to train on, and as many to compare with")
    parser.add_argument("--extractor", default="random-conv")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds: a spread needs two at least")
    torch.set_num_threads(args.threads)
    images, others = knees(args.patients, 0), knees(args.patients, 1)
    extract = load_extractor(args.extractor, 1, SIZE, args.weights)
    held_out = torch.cat([extract(part) for part in others.split(BATCH)]).numpy()
    arms: tuple[Arm, Arm] = ("float32", "bf16")
    values = np.array(
        [[measure(images, held_out, extract, arm, seed, args) for arm in arms] for seed in range(args.seeds)]
    )  # (seeds, arms, points, measures)
    settings = {**vars(args), "weights": args.weights.name if args.weights else None}
    distance = extract.protocol.frechet_name
    print(json.dumps({"name": "penalty_quality", **settings, "frechet": distance, **result(values)}))


def result(values: np.ndarray) -> dict[str, Any]:
    """The figures for (seeds, arms, points, measures)."""
    exact, difference = values[:, 0], values[:, 1] - values[:, 0]
    num = len(values)
    error = difference.std(axis=0, ddof=1) / num**0.5
    figures = {
        "float32": exact.mean(axis=0),
        "spread": exact.std(axis=0, ddof=1),
        "difference": difference.mean(axis=0),
        "error": error,
    }
    columns = {
        name: {key: [float(f"{v:.4g}") for v in table[:, k]] for key, table in figures.items()}
        for k, name in enumerate(MEASURES)
    }
    half = stats.t.ppf(0.975, num - 1) * error[-1]
    undecided = {name: float(f"{v:.4g}") for name, v in zip(MEASURES, half, strict=True)}
    return {"measures": columns, "undecided": undecided}


if __name__ == "__main__":
    main()
