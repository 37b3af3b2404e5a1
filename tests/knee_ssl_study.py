"""Studies of self-supervision in the form that evaluate and pretrain write, made up: knees, chests, pools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compared_arms import cards_with_controls
from encoder_cards import write_card
from evaluated_study import write_run
from trabecula.config import digest

FRACTIONS = (0.01, 0.1)
PATIENTS = {0.01: (23, 6), 0.1: (231, 58)}
SEEDS = tuple(range(10))
KNEES = {"kind": "ordinal", "classes": ["0", "1", "2", "3", "4"], "metric": "balanced_accuracy", "task": "kl"}
CHESTS = {
    "kind": "multilabel",
    "classes": ["effusion", "mass"],
    "metric": "auroc_macro",
    "task": "findings",
}
OBJECTS = {**KNEES, "kind": "multiclass", "classes": ["church", "tench", "truck"], "task": "objects"}


def arm(name: str, objective: str = "", gain: float = 0.05, **more: Any) -> dict[str, Any]:
    """One arm: `network-rest`; without a method random weights, or ImageNet's where its name says so."""
    network = {"r18": "timm:resnet18", "vit": "timm:vit_tiny_patch8_224", "critic": "critic"}
    family = "pretrained" if objective else "imagenet" if "imagenet" in name else "random"
    return {
        "arm": name, "architecture": network[name.split("-")[0]], "family": family,
        "objective": objective or "none", "images_seen": 6400 if objective else 0, "pretrain_seed": 0,
        "num_patients_seen": 600 if objective else 0, "pool_fraction": 1.0, "gain": gain, **more,
    }  # fmt: skip


METHODS = (
    arm("r18-random", gain=0.0),
    arm("r18-imagenet", gain=0.03),
    arm("r18-moco", "moco", 0.06),
    arm("r18-barlow", "barlow", -0.04),
    arm("critic-random", gain=0.0),
)
MASKS = (
    arm("vit-random", gain=0.0),
    arm("vit-mae50", "mae", 0.02, settings={"mask_ratio": 0.5}),
    arm("vit-mae25", "mae", 0.01, settings={"mask_ratio": 0.25}),
)
DOMAINS = (
    arm("r18-random", gain=0.0),
    arm("r18-imagenet", gain=0.03),
    arm("r18-moco-mixed", "moco", 0.04, stores=["own", "other"]),
    arm("r18-moco-chest", "moco", 0.01, store="other"),
    arm("r18-moco", "moco", 0.06),
)
SIZES = (
    arm("r18-random", gain=0.0),
    *(
        arm(f"r18-moco-{source}{n}", "moco", 0.01 + n / 1e5, pool_fraction=n / 4000, store=source, pool=n,
            settings={"queue": min(n, 512), "momentum": 0.99})
        for source in ("own", "other") for n in (500, 1000, 4000)
    ),
)  # fmt: skip


def level(one: Mapping[str, Any], mode: str, fraction: float) -> float:
    value = 0.25 + 0.05 * FRACTIONS.index(fraction) + 0.1 * (mode == "finetune")
    return round(value + one["gain"], 4)


def write_study(
    folder: Path,
    arms: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any] = KNEES,
    modes: Sequence[str] = ("probe", "finetune"),
    seeds: Sequence[int] = SEEDS,
) -> Path:
    folder.mkdir(parents=True)
    rows, pairs, multipliers = [], [], []
    for one in arms:
        for mode in modes:
            for fraction in FRACTIONS:
                head = {"task": asked["task"], "arm": one["arm"], "mode": mode, "fraction": fraction,
                        "metric": asked["metric"]}  # fmt: skip
                rows += _rows(head, one, level(one, mode, fraction), seeds)
                for base in arms:
                    if base["architecture"] == one["architecture"] and _is_baseline(base, one):
                        pairs.append(_pair(head, one, base))
                        multipliers.append(_multiplier({**head, "baseline": base["arm"]}))
    parts = {
        name: {"images": 2 * n, "patients": n, "per_class": dict.fromkeys(asked["classes"], n)}
        for name, n in (("train", 2310), ("val", 577), ("test", 402))
    }
    record = {"kind": asked["kind"], "classes": asked["classes"], "exclusions": {}, "parts": parts}
    subsets = [
        {"task": asked["task"], "fraction": f, "seed": s, "num_train_images": 2 * PATIENTS[f][0],
         "num_train_patients": PATIENTS[f][0], "num_val_images": 2 * PATIENTS[f][1],
         "num_val_patients": PATIENTS[f][1],
         "note": "few validation patients: what is chosen on them is partly chance" * (f == 0.01)}
        for f in FRACTIONS for s in seeds
    ]  # fmt: skip
    cards = [{k: v for k, v in one.items() if k not in ("gain", "pool", "store", "stores")} for one in arms]
    files: dict[str, Any] = {
        "metrics.json": {"level": 0.95, "alpha": 0.01, "num_resamples": 2000, "rows": rows},
        "comparisons.json": {"pairs": pairs, "label_multipliers": multipliers, "not_run": [], "pools": []},
        "curves.json": {"roc": [], "reliability": [], "learning": []},
        "flow.json": {
            "tasks": {asked["task"]: record},
            "subsets": subsets,
            "arms": cards_with_controls(cards),
        },
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def _is_baseline(base: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    ranks = ("random", "imagenet", "pretrained")
    return ranks.index(base["family"]) < min(ranks.index(one["family"]), 2)


def _rows(
    head: Mapping[str, Any], one: Mapping[str, Any], value: float, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    shared = {
        **head, "architecture": one["architecture"], "family": one["family"], "cohort": "all",
        "stratum": "all", "num_images": 804, "num_patients": 402, "num_events": None, "note": "",
    }  # fmt: skip
    total = {"seed": "all", "pretrain_seed": 0, "value": value, "low": round(value - 0.03, 4),
             "high": round(value + 0.03, 4), "sd_seeds": 0.0123, "num_seeds": len(seeds)}  # fmt: skip
    single = {"pretrain_seed": 0, "low": None, "high": None, "sd_seeds": None, "num_seeds": 1}
    return [{**shared, **total}] + [
        {**shared, **single, "seed": s, "value": round(value + 0.01 * (s - 4.5), 4)} for s in seeds
    ]


def _pair(head: Mapping[str, Any], one: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    gap = round(one["gain"] - base["gain"], 4)
    claim = "better" if gap > 0.025 else "worse" if gap < -0.025 else "none"
    return {
        **head, "baseline": base["arm"], "baseline_family": base["family"], "same_architecture": True,
        "difference": gap, "low": round(gap - 0.02, 4), "high": round(gap + 0.02, 4),
        "p": 0.0004 if claim != "none" else 0.4, "p_holm": 0.0012 if claim != "none" else 0.8,
        "num_patients": 402, "num_seeds": 10, "claim": claim, "note": "",
    }  # fmt: skip


def _multiplier(head: dict[str, Any]) -> dict[str, Any]:
    return {**head, "value": 3.21, "low": 1.84, "high": None, "censored": "", "note": ""}


def write_runs(
    folder: Path, arms: Sequence[Mapping[str, Any]], store: Path, asked: Mapping[str, Any] = KNEES
) -> tuple[Path, ...]:
    """A run folder a pretrained arm, with card, log and training, and one of probes with their choices."""
    own = digest(json.loads((store / "store.json").read_text()))
    runs = []
    for number, one in enumerate(arms):
        if one["family"] != "pretrained":
            continue
        run = write_run(folder / one["arm"], "pretrain", number)
        ids = {"own": own, "other": "ff" * 32}
        write_card(
            run, one["arm"], objective=one["objective"], settings=one.get("settings", {}),
            store=ids[one.get("store", "own")], stores=[ids[name] for name in one.get("stores", ())],
        )  # fmt: skip
        training = {"start": {"monitor/rank": 80.0, "monitor/spread": 0.17},
                    "points": [{"images": 6400, "encoder/loss": 1.5, "monitor/rank": 60.0,
                                "monitor/spread": 0.4}], "findings": one.get("findings", [])}  # fmt: skip
        (run / "training.json").write_text(json.dumps(training))
        pool = {"event": "pool", "images": one.get("pool", 4000), "patients": 600}
        (run / "log.jsonl").write_text(f'{{"event": "start"}}\n{json.dumps(pool)}\n{{"event": "po')
        if one["objective"] == "mae":
            Image.fromarray(np.full((8, 8), 99, np.uint8)).save(run / "reconstructions.png")
        runs.append(run)
    probes = write_run(folder / "probes", "probe", 99)
    lines = ["task,arm,mode,fraction,seed,pretrain_seed,threshold,strength,images_seen,note"]
    for one in arms:
        for fraction in FRACTIONS:
            for seed in SEEDS:
                head = f"{asked['task']},{one['arm']}"
                lines.append(f"{head},probe,{fraction},{seed},0,,{10.0 ** (seed - 5):g},,")
                lines.append(f"{head},finetune,{fraction},{seed},0,,,{100 + 10 * seed},")
    (probes / "choices.csv").write_text("\n".join(lines) + "\n")
    return (*runs, probes)


def spectrum() -> dict[str, Any]:
    """What `spectrum` writes of a pool that is nearly all of grade 3."""
    shares = {"0": 0.01, "1": 0.01, "2": 0.02, "3": 0.91, "4": 0.05}
    rows = [
        {"class": grade, "count": round(1000 * value), "share": value, "low": value / 2, "high": value + 0.02}
        for grade, value in shares.items()
    ]
    corrected = [{"class": g, "share": 0.2, "low": 0.1, "high": 0.3} for g in shares]
    told = {"correction": "by the calls on 100 labelled images of 50 patients"}
    told["warning"] = "91% of the images are called 3"
    sizes = {"num_images": 1000, "num_patients": 400}
    arm = {"task": "kl", "arm": "r18-imagenet", "seed": 0}
    audit = {**arm, **sizes, "called": rows, "corrected": corrected, **told}
    return {"format": 1, "audits": [audit]}


def write_spectrum(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "spectrum.json").write_text(json.dumps(spectrum()))
    return folder
