"""The tables of a results page: `python bench/page_tables.py runs/knees/tables auroc:kl2:probe ...`

One table (Markdown) for each METRIC:TASK:MODE, from the `results.csv` and `comparisons.csv` that `report`
writes: each arm's mean (SD over seeds) [95 % interval] by labels, and under a pretrained arm its paired
difference from the random arm of the same network, with the Holm-adjusted p; bold where `evaluate` calls it
better.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from trabecula.artifacts.label_budget import fewest_first, labels_used

NETWORKS = {
    "resnet18": "ResNet-18", "resnet10t": "ResNet-10t", "squeezenet1_0": "SqueezeNet 1.0",
    "tf_efficientnet_lite0": "EfficientNet-Lite0", "vit_tiny_patch8_224": "ViT-Tiny", "critic": "critic",
}  # fmt: skip
PRETRAININGS = {
    "random": "random", "imagenet": "ImageNet", "wgan_gp": "WGAN-GP", "moco": "MoCo",
    "barlow": "Barlow Twins", "vicreg": "VICReg", "cnn_jepa": "CNN-JEPA", "mae": "MAE",
    "kl2": "supervised, KL >= 2",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("wanted", nargs="+", metavar="METRIC:TASK:MODE")
    args = parser.parse_args()
    results = pd.read_csv(args.tables / "results.csv")
    pairs = pd.read_csv(args.tables / "comparisons.csv")
    results = results[(results.seed == "all") & (results.cohort == "all") & (results.stratum == "all")]
    pairs = pairs[(pairs.baseline_family == "random") & pairs.same_architecture]
    for wanted in args.wanted:
        metric, task, mode = wanted.split(":", 2)
        own, versus = (
            t[(t.metric == metric) & (t.task == task) & (t["mode"] == mode)] for t in (results, pairs)
        )
        if own.empty:
            raise SystemExit(f"{args.tables}: no rows of metric '{metric}', task '{task}', mode '{mode}'")
        print(f"**{metric}, {task}, {mode}**\n\n{table(own, versus)}\n")


def table(results: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Markdown; an arm is named NETWORK-PRETRAINING; those of one network stand together."""
    fractions = sorted(set(results.fraction), key=fewest_first)
    lines = [
        "| network | initialisation | " + " | ".join(labels_used(f) for f in fractions) + " |",
        "|---|---|" + "---|" * len(fractions),
    ]
    for network, arms in results.groupby(results.architecture.map(_network), sort=False):
        for arm in sorted(dict.fromkeys(arms.arm), key=lambda arm: not arm.endswith("random")):
            rows = arms[arms.arm == arm].set_index("fraction")
            cells = (_value(rows.loc[f]) if f in rows.index else "" for f in fractions)
            last = arm.rsplit("-", 1)[-1]
            lines.append(f"| {network} | {PRETRAININGS.get(last, last)} | " + " | ".join(cells) + " |")
            versus = pairs[pairs.arm == arm]
            if versus.empty:
                continue
            # of several random arms the first in the table
            found = versus[versus.baseline == versus.baseline.iloc[0]].set_index("fraction")
            cells = (_difference(found.loc[f]) if f in found.index else "" for f in fractions)
            lines.append("| | *minus random* | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _network(architecture: str) -> str:
    name = architecture.split(":")[-1]
    return NETWORKS.get(name, name)


def _value(row: pd.Series) -> str:
    sd = f" ({row.sd_seeds:.3f})" if row.num_seeds > 1 else ""
    return f"{row.value:.3f}{sd} [{row.low:.3f}, {row.high:.3f}]"


def _difference(row: pd.Series) -> str:
    value = f"{row.difference:+.3f}"
    value = f"**{value}**" if row.claim == "better" else value
    if pd.isna(row.p_holm):
        return f"{value}, not estimable"
    p = "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.2f}" if row.p_holm > 0.02 else f"{row.p_holm:.4f}"
    return f"{value} [{row.low:.3f}, {row.high:.3f}], p {p}" + (", worse" if row.claim == "worse" else "")


if __name__ == "__main__":
    main()
