"""Kill a study with SIGKILL at ten random moments, run it again each time, and compare every byte.

    python bench/kill_resume.py [--kills 10] [--seed 0] [--workers 2]

A small but real study: phantom knees, a WGAN-GP critic and a MoCo encoder against their random arms, probe,
fine-tuning, evaluation, report. Checkpoints are written at every point, so that kills land between them. One
JSON line: the kills that came while cells were at work, the files compared, and those that differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """
title = "Killed and resumed"
threads = 1
[stages.phantom]
num_patients = 60
size = 64
[stages.cohort]
root = "@phantom/images"
table = "@phantom/table.csv"
[stages.split]
manifest = "@cohort"
task = "kl >= 2"
train = 0.5
val = 0.2
test = 0.3
[stages.prepare]
manifest = "@cohort"
size = 64
[stages.pretrain]
store = "@prepare"
splits = "@split"
[stages.embed]
encoder = "@pretrain"
store = "@prepare"
[stages.probe]
features = "@embed"
manifest = "@cohort"
splits = "@split"
task = "kl >= 2"
fractions = [0.5, 1.0]
seeds = [0, 1]
[stages.finetune]
encoder = "@pretrain"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl >= 2"
images = 640
every = 64
axes.seed = [0, 1]
keep = false
[stages.evaluate]
predictions = ["@probe", "@finetune"]
encoders = ["@pretrain"]
manifest = "@cohort"
store = "@prepare"
splits = "@split"
num_resamples = 200
[stages.report]
results = "@evaluate"
manifest = "@cohort"
[axes.arm.critic-random]
pretrain = { architecture = "critic" }
[axes.arm.critic-wgan_gp]
pretrain = { architecture = "critic", objective = "wgan_gp", images = 1280, every = 160, batch_size = 32 }
[axes.arm.resnet10t-random]
pretrain = { architecture = "timm:resnet10t" }
[axes.arm.resnet10t-moco]
pretrain = { architecture = "timm:resnet10t", objective = "moco", images = 640, every = 64, batch_size = 32, settings = { queue = 32, bn_rows = 16 } }
"""  # noqa: E501

COMPARED = (
    "predictions.csv", "choices.csv", "metrics.json", "comparisons.json", "curves.json", "flow.json",
    "encoder.safetensors", "generator.safetensors", "training.json", "features.npy", "manifest.csv",
    "splits.csv", "report.html",
)  # fmt: skip


def start(recipe: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trabecula.cli", "study", str(recipe), "--out", str(out)]
    environment = {**os.environ, "TRABECULA_SAVE_S": "0", "TRABECULA_SITE_KEY": "a key for this bench"}
    return subprocess.Popen(
        [*command, "--workers", str(workers)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(recipe: Path, out: Path, workers: int) -> None:
    process = start(recipe, out, workers)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said.decode())


def digests(study: Path) -> dict[str, str]:
    return {
        str(path.relative_to(study)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(study.glob("cells/*/*"))
        if path.name in COMPARED
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        recipe = root / "recipe.toml"
        recipe.write_text(RECIPE)
        began = time.monotonic()
        finish(recipe, root / "calm", options.workers)
        whole_s = time.monotonic() - began
        landed = 0
        for _ in range(options.kills):
            process = start(recipe, root / "killed", options.workers)
            time.sleep(moments.uniform(0.1, 1.0) * whole_s / 3)
            landed += process.poll() is None
            process.kill()
            process.communicate()
        finish(recipe, root / "killed", options.workers)
        calm, killed = digests(root / "calm"), digests(root / "killed")
        differing = sorted(k for k in calm.keys() | killed.keys() if calm.get(k) != killed.get(k))
        record = {
            "name": "kill_resume", "kills": options.kills, "landed": landed, "files": len(calm),
            "differing": differing, "undisturbed_s": round(whole_s, 1),
        }  # fmt: skip
        print(json.dumps(record))
        if differing or not calm:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
