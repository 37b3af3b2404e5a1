"""Which checkpoint of a fine-tuning should be taken? `python bench/checkpoint_rule.py runs/head-start`

Fine-tunes encoders of the study `recipes/head-start-small.toml` on its binary task without stopping, and
notes at each validation check the losses of validation images and the AUROC of test images. Then each rule
chooses among these checks, with a patience of five checks without a lower loss: the linear probe that
training started from (`probe`), the lowest validation loss (`0`), the latest within 1 or 2 standard errors
over patients of it (`1`, `2`), and no choice, the end of the budget (`end`). Prints a CSV line a run. The
test part is that of the study, whose cohort is the data's `train` part alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from embedded_study import cell
from numpy.typing import NDArray

from trabecula.data.batches import Stream
from trabecula.metrics.classification import auroc
from trabecula.train.loop import train
from trabecula.transfer import fine_tuning
from trabecula.transfer.probe_start import below

WAYS = (("probe", 1e-4), ("probe", 3e-4), ("random", 3e-4))
ARMS = ("critic-random", "critic-wgan_gp", "resnet18-random", "resnet18-moco")
PATIENCE, CPU = 5, torch.device("cpu")
Looks = list[tuple[NDArray[np.float64], float]]  # losses of the validation images, test AUROC


def looks(
    material: fine_tuning.Material, start: str, lr: float, images: int, test: NDArray[np.int64], seed: int
) -> Looks:
    """What each check of one training found; the first is before training."""
    tuning = fine_tuning.Tuning(images=images, head_start=start, optimizer={"name": "adam", "lr": lr})
    labelled, train_part = material.labelled, material.subset.train
    objective, y = fine_tuning.make_objective(tuning, material, seed), labelled.y[train_part]
    if start == "probe":
        material.probe_start("auto", 1.0, CPU).put_into(objective)
    else:
        objective.prepare(material.images(train_part, CPU, 1.0))
    objective.to(memory_format=torch.channels_last)
    held_out = fine_tuning.Validation(
        material.store, material.rows[test], labelled.y[test], labelled.patient_ids[test]
    )

    def look() -> tuple[NDArray[np.float64], float]:
        each = fine_tuning.check(objective, material.validation, CPU).each
        _, p = fine_tuning.validation_losses(objective, held_out, CPU)
        return each, float(auroc(held_out.y, p[:, 1])[0])

    found = [look()]
    batch = min(tuning.batch_size, len(y))
    stream = Stream(material.store, material.rows[train_part], batch, seed, CPU, {"labels": y})
    for _ in train(objective, stream, images=images, every=max(len(y), 10 * batch)):
        found.append(look())
    return found


def chosen(found: Looks, first: int, patients: NDArray[np.str_], tolerance: float) -> float:
    """Test AUROC of the check that the rule takes; first: 0 where the start counts, else 1."""
    best = kept = first
    for i in range(first + 1, len(found)):
        if found[i][0].mean() < found[best][0].mean():
            best = kept = i
        elif tolerance and not below(found[i][0], found[best][0], patients, tolerance):
            kept = i
        if i - best >= PATIENCE:
            break
    return found[kept][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--fraction", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--test-images", type=int, default=400)
    options = parser.parse_args()
    store, manifest, splits = (cell(options.study, name) for name in ("prepare", "cohort", "split"))
    print("fraction,arm,seed,way,num_val_patients,probe,0,1,2,end")
    for seed in range(options.seeds):
        for arm in options.arms:
            few = fine_tuning.FewLabels(
                encoder=cell(options.study, f"pretrain-{arm}"), store=store, manifest=manifest,
                splits=splits, task="kl2", fraction=options.fraction,
            )  # fmt: skip
            material = fine_tuning.read_material(few, seed)
            labelled = material.labelled
            test = np.flatnonzero(material.splits.rows("test", labelled.patient_ids))[: options.test_images]
            patients = material.validation.patients
            for start, lr in WAYS:
                found = looks(material, start, lr, options.images, test, seed)
                first = int(start == "random")
                areas = [chosen(found, first, patients, tolerance) for tolerance in (0, 1, 2)]
                values = [*([] if first else [found[0][1]]), *areas, found[-1][1]]
                place = f"{options.fraction:g},{arm},{seed},{start} {lr:g},{len(set(patients))}"
                print(place + "," * first, *(f"{value:.4f}" for value in values), sep=",", flush=True)


if __name__ == "__main__":
    main()
