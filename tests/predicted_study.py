"""A made-up study on disk: 150 patients with two knees, four arms, two tasks, predictions as files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from encoder_cards import write_card
from trabecula import evaluate
from trabecula.config import build

NUM_PATIENTS, SEEDS = 150, range(5)
ARMS = {
    "resnet-random": ("timm:resnet18", "random", 0.6),
    "resnet-moco": ("timm:resnet18", "pretrained", 2.0),
    "resnet-same": ("timm:resnet18", "pretrained", 0.6),
    "vgg-imagenet": ("timm:vgg16", "imagenet", 1.0),
}
FILES = ("metrics.json", "comparisons.json", "curves.json", "flow.json")


def hospital(folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    patients = np.repeat([f"p{i:03d}" for i in range(NUM_PATIENTS)], 2)
    burden = np.repeat(rng.normal(size=NUM_PATIENTS), 2) + rng.normal(size=2 * NUM_PATIENTS)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i:03d}" for i in range(patients.size)],
            "patient_id": patients,
            "path": "x.png",
            "side": ["L", "R"] * NUM_PATIENTS,
            "cohort": np.repeat(["east", "west"], NUM_PATIENTS),
            "kl": np.digitize(burden, [-0.8, 0.4, 1.6]),
            "sex": np.repeat(rng.choice(["F", "M"], NUM_PATIENTS), 2),
        }
    )
    table.loc[4, "kl"] = None
    folder.mkdir(parents=True)
    table["kl"] = table["kl"].astype("Int64")
    table.to_csv(folder / "manifest.csv", index=False)
    tasks = {
        "oa": {"kind": "binary", "labels": ["kl"], "positive": "kl >= 2"},
        "grade": {"kind": "ordinal", "labels": ["kl"], "classes": ["0", "1", "2", "3"]},
    }
    (folder / "tasks.json").write_text(json.dumps(tasks))
    ids = table["patient_id"].unique()
    part = np.where(
        np.arange(ids.size) % 5 < 2, "train", np.where(np.arange(ids.size) % 5 == 2, "val", "test")
    )
    pd.DataFrame({"patient_id": ids, "split": part}).to_csv(folder / "splits.csv", index=False)
    table["split"] = table["patient_id"].map(dict(zip(ids, part, strict=True)))
    return table[table["kl"].notna()].astype({"kl": int})


def predict(table: pd.DataFrame, folder: Path, arm: str, signal: float, rng: np.random.Generator) -> None:
    rows, choices = [], []
    columns = ["image_id", "cohort", "split"]
    shown = table[table["split"] != "train"]
    for fraction in (0.1, 1.0):
        for seed in SEEDS:
            shared = {"arm": arm, "mode": "probe", "fraction": fraction, "seed": seed, "pretrain_seed": 0}
            score = signal * (0.7 + 0.3 * fraction) * (shown["kl"] - 1.5) + rng.normal(size=len(shown))
            p = 1 / (1 + np.exp(-score))
            rows.append(shown[columns].assign(task="oa", **shared, p_0=1 - p, p_1=p))
            logits = -((score.to_numpy()[:, None] - np.array([-1.5, -0.5, 0.5, 1.5])) ** 2)
            q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            rows.append(
                shown[columns].assign(task="grade", **shared, **{f"p_{k}": q[:, k] for k in range(4)})
            )
            counts = {"num_train_images": int(120 * fraction), "num_train_patients": int(60 * fraction)}
            counts |= {"num_val_images": int(60 * fraction), "num_val_patients": int(30 * fraction)}
            for task, threshold in (("oa", "0.5"), ("grade", "")):
                choices.append(
                    {"task": task, **shared, "threshold": threshold, "strength": 1, **counts, "note": ""}
                )
    folder.mkdir()
    pd.concat(rows).to_csv(folder / "predictions.csv", index=False, float_format="%.8g")
    pd.DataFrame(choices).to_csv(folder / "choices.csv", index=False)


def make_study(root: Path):
    """The files of a study under `root`, and its labelled images."""
    rng = np.random.default_rng(7)
    table = hospital(root / "hospital", rng)
    for arm, (architecture, family, signal) in ARMS.items():
        predict(table, root / f"predictions-{arm}", arm, signal, rng)
        write_card(root / f"encoder-{arm}", arm, architecture=architecture, family=family)
    return root, table


def config_of(root: Path, arms=tuple(ARMS), **settings):
    values = {
        "predictions": [root / f"predictions-{arm}" for arm in arms],
        "encoders": [root / f"encoder-{arm}" for arm in arms],
        "manifest": root / "hospital",
        "splits": root / "hospital" / "splits.csv",
        "num_resamples": 300,
    }
    return build(evaluate.Config, values | settings, "test")


def row_of(results, **wanted):
    wanted = {"seed": "all", "cohort": "all", "stratum": "all"} | wanted
    rows = [r for r in results["metrics.json"]["rows"] if all(r[k] == v for k, v in wanted.items())]
    assert len(rows) == 1, wanted
    return rows[0]


def copied(study, tmp_path, arm="resnet-moco"):
    """Predictions of one arm to be spoilt, and what stands beside them."""
    root, table = study
    for name in (f"predictions-{arm}", f"encoder-{arm}", "hospital"):
        (tmp_path / name).mkdir()
        for file in (root / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    return tmp_path / f"predictions-{arm}" / "predictions.csv", table


def spoil(path: Path, change) -> None:
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)
