"""The whole path, from a folder of films with a broken one among them to a report, verb by verb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute, verb_module


def go(base: Path, verb: str, out: str, **values: Any) -> str:
    return execute(verb, build(verb_module(verb).Config, values, verb), base / out)


def test_a_folder_becomes_a_report(tmp_path: Path) -> None:
    go(tmp_path, "phantom", "films", num_patients=40, num_unlabelled_patients=4, size=32)
    table = tmp_path / "films" / "table.csv"
    said = go(
        tmp_path, "cohort", "cohort", root=tmp_path / "films" / "images", table=table,
        tasks={"kl2": {"kind": "binary", "labels": ["kl"], "positive": "kl >= 2"}},
    )  # fmt: skip
    assert said.startswith("88 images of 44 patients; kl2: 80 labelled")
    said = go(
        tmp_path, "split", "split", manifest=tmp_path / "cohort", task="kl2", train=0.5, val=0.2, test=0.3
    )
    splits = pd.read_csv(tmp_path / "split" / "splits.csv", dtype=str)
    broken = splits[splits["split"] == "test"]["patient_id"].iloc[0]
    (tmp_path / "films" / "images" / f"{broken}L.png").write_bytes(b"no picture")

    common = {"manifest": tmp_path / "cohort", "splits": tmp_path / "split"}
    said = go(tmp_path, "prepare", "store", manifest=tmp_path / "cohort", size=32)
    assert said.startswith("87 images")
    store = {"store": tmp_path / "store"}
    predictions = []
    for arm in ("random", "wgan_gp"):
        settings = {} if arm == "random" else {"objective": "wgan_gp", "settings": {"critic_steps": 2}}
        go(
            tmp_path, "pretrain", arm, architecture="critic", splits=tmp_path / "split", images=64,
            batch_size=16, every=32, **store, **settings,
        )  # fmt: skip
        go(tmp_path, "embed", f"{arm}-features", encoder=tmp_path / arm, **store)
        go(
            tmp_path, "probe", f"{arm}-probe", features=tmp_path / f"{arm}-features", task="kl2",
            fractions=[0.5, 1.0], seeds=[0, 1], **common,
        )  # fmt: skip
        go(
            tmp_path,
            "finetune",
            f"{arm}-tuned",
            encoder=tmp_path / arm,
            task="kl2",
            images=64,
            **store,
            **common,
        )
        predictions += [tmp_path / f"{arm}-probe", tmp_path / f"{arm}-tuned"]

    encoders = [tmp_path / "random", tmp_path / "wgan_gp"]
    go(
        tmp_path, "evaluate", "results", predictions=predictions, encoders=encoders, num_resamples=200,
        **store, **common,
    )  # fmt: skip
    flow = json.loads((tmp_path / "results" / "flow.json").read_text())["tasks"]["kl2"]
    assert flow["exclusions"] == {"label missing": 8, "not in the store": 1}
    rows = json.loads((tmp_path / "results" / "metrics.json").read_text())["rows"]
    auroc = [r for r in rows if r["metric"] == "auroc" and r["seed"] == "all"]
    assert {(r["arm"], r["mode"], r["fraction"]) for r in auroc} == {
        (arm, mode, fraction)
        for arm in ("critic-random", "critic-wgan_gp")
        for mode, fraction in (("probe", 0.5), ("probe", 1.0), ("finetune", 1.0))
    }
    assert all(r["num_images"] == 2 * r["num_patients"] - 1 for r in auroc)  # the broken film's other knee
    go(
        tmp_path, "report", "report", results=tmp_path / "results", manifest=tmp_path / "cohort",
        samples=encoders, runs=[*encoders, *predictions], **store,
    )  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Samples of the generator of critic-wgan_gp" in page
    assert broken not in page


def hips(base: Path, num_patients: int, num_unlabelled_patients: int) -> None:
    """Films, cohort with the task kl2, and store."""
    drawn = {"num_patients": num_patients, "num_unlabelled_patients": num_unlabelled_patients, "size": 32}
    go(base, "phantom", "films", kind="hips", **drawn)
    tasks = {"kl2": {"kind": "binary", "labels": ["kl"], "positive": "kl >= 2"}}
    films = {"root": base / "films" / "images", "table": base / "films" / "table.csv"}
    go(base, "cohort", "cohort", **films, tasks=tasks)


def reads(base: Path, task: str, splits: str, encoder: str = "random", region: str = "all") -> float:
    """AUROC of a probe for a task on what an encoder sees of a region."""
    shared = {"manifest": base / "cohort", "splits": base / splits}
    name = f"{task}-{splits}-{encoder}-{region}"
    store = {"store": base / "store"}
    features = go(base, "embed", f"f-{name}", encoder=base / encoder, region=region, **store)
    assert ("corners alone" in features) == (region == "corners")
    go(
        base, "probe", f"p-{name}", features=base / f"f-{name}", task=task, fractions=[1.0], seeds=[0],
        **shared,
    )  # fmt: skip
    go(
        base, "evaluate", f"r-{name}", predictions=[base / f"p-{name}"], encoders=[base / encoder],
        num_resamples=100, **shared, **store,
    )  # fmt: skip
    rows = json.loads((base / f"r-{name}" / "metrics.json").read_text())["rows"]
    (value,) = (
        row["value"]
        for row in rows
        if row["metric"] in ("auroc", "auroc_macro") and (row["seed"], row["cohort"]) == ("all", "all")
    )
    return float(value)


def test_an_unlabelled_cohort_serves_pretraining_alone(tmp_path: Path) -> None:
    """Two cohorts of hips: 80/10/10 of the labelled one by patient, everybody of the other one in train."""
    hips(tmp_path, 30, 20)
    manifest, films = {"manifest": tmp_path / "cohort"}, tmp_path / "films" / "table.csv"
    go(tmp_path, "split", "split", **manifest, task="kl2")
    splits = pd.read_csv(tmp_path / "split" / "splits.csv", dtype=str).set_index("patient_id")["split"]
    cohort_of = pd.read_csv(films, dtype=str).groupby("patient_id")["cohort"].first()
    counts = splits.groupby([cohort_of[splits.index].to_numpy(), splits.to_numpy()]).size().to_dict()
    assert counts == {
        ("check-like", "train"): 24, ("check-like", "val"): 3, ("check-like", "test"): 3,
        ("oai-like", "train"): 20,
    }  # fmt: skip

    go(tmp_path, "prepare", "store", **manifest, size=32)
    index = pd.read_csv(tmp_path / "store" / "index.csv", dtype=str)
    assert (index["flipped"] == (index["side"] == "R").astype(int).astype(str)).all()
    store, parts = {"store": tmp_path / "store"}, {"splits": tmp_path / "split"}
    tiny = {"architecture": "critic", "images": 32, "batch_size": 16, "settings": {"critic_steps": 2}}
    said = go(tmp_path, "pretrain", "gan", objective="wgan_gp", **tiny, **store, **parts)
    assert "of 88 from 44 patients" in said  # 24 labelled and 20 unlabelled patients, two hips each
    said = go(
        tmp_path, "split", "check", **manifest, check=True, encoders=[tmp_path / "gan"],
        pools=[tmp_path / "store"], **parts,
    )  # fmt: skip
    assert said.startswith("no leak in 100 images, 1 encoders, 1 pools")

    go(tmp_path, "embed", "features", encoder=tmp_path / "gan", **store)
    few = {"fractions": [1.0], "seeds": [0]}
    go(tmp_path, "probe", "probe", features=tmp_path / "features", task="kl2", **few, **manifest, **parts)
    shared = {"encoders": [tmp_path / "gan"], "num_resamples": 100, **manifest, **store}
    go(tmp_path, "evaluate", "results", predictions=[tmp_path / "probe"], **shared, **parts)
    flow = json.loads((tmp_path / "results" / "flow.json").read_text())["tasks"]["kl2"]
    assert flow["exclusions"] == {"label missing": 40}
    assert {part: counts["patients"] for part, counts in flow["parts"].items()} == {
        "train": 24, "val": 3, "test": 3,
    }  # fmt: skip


def test_a_probe_says_whether_the_cohorts_can_be_told_apart(tmp_path: Path) -> None:
    """The cohort as a task needs val and test patients of both, and an encoder that has not seen them."""
    hips(tmp_path, 60, 60)
    manifest, store = {"manifest": tmp_path / "cohort"}, {"store": tmp_path / "store"}
    go(tmp_path, "prepare", "store", **manifest, size=32)
    parts = {"train": 0.5, "val": 0.2, "test": 0.3}
    said = go(tmp_path, "split", "sources", **manifest, task="cohort", **parts)
    assert "test 36 patients (36 / 36 images of check-like / oai-like)" in said
    go(tmp_path, "pretrain", "random", architecture="critic", **store)
    assert reads(tmp_path, "cohort", "sources") > 0.8
    assert reads(tmp_path, "cohort", "sources", region="corners") > 0.6  # brightness shows there too

    tiny = {"architecture": "critic", "images": 32, "batch_size": 16, "settings": {"critic_steps": 2}}
    gan = {"objective": "wgan_gp", **tiny, **store}
    go(tmp_path, "split", "usual", **manifest, task="kl2", **parts)
    go(tmp_path, "pretrain", "gan", splits=tmp_path / "usual", **gan)
    with pytest.raises(InputError, match="encoder 'critic-wgan_gp' was pretrained on patient"):
        reads(tmp_path, "cohort", "sources", encoder="gan")
    go(tmp_path, "split", "divided", **manifest, task="kl2", unlabelled="divide", **parts)
    go(tmp_path, "pretrain", "spared", splits=tmp_path / "divided", **gan)
    assert reads(tmp_path, "cohort", "divided", encoder="spared") > 0.8
    assert 0 <= reads(tmp_path, "kl2", "divided", encoder="spared") <= 1


def test_a_probe_of_the_corners_finds_a_label_that_stands_in_one(tmp_path: Path) -> None:
    """Nothing of the grade is in the corners, until the films of grade 2 and up are marked there."""
    hips(tmp_path, 80, 0)
    manifest = {"manifest": tmp_path / "cohort"}
    go(tmp_path, "split", "split", **manifest, task="kl2", train=0.5, val=0.2, test=0.3)
    go(tmp_path, "prepare", "store", **manifest, size=32)
    go(tmp_path, "pretrain", "random", architecture="critic", store=tmp_path / "store")
    assert 0.2 < reads(tmp_path, "kl2", "split", region="corners") < 0.8
    go(tmp_path, "embed", "whole", encoder=tmp_path / "random", store=tmp_path / "store")
    corners = tmp_path / "p-kl2-split-random-corners"
    with pytest.raises(InputError, match="made with other region than the features the probes learned from"):
        go(tmp_path, "predict", "predicted", classifier=corners, features=tmp_path / "whole")
    table = pd.read_csv(tmp_path / "films" / "table.csv", dtype=str)
    for file in table["file"][table["kl"].astype(int) >= 2]:
        with Image.open(tmp_path / "films" / file) as image:
            marked = np.array(image)
        marked[:5, :5] = marked[:5, -5:] = 255
        Image.fromarray(marked).save(tmp_path / "films" / file)
    for name in (
        "store",
        "f-kl2-split-random-corners",
        "p-kl2-split-random-corners",
        "r-kl2-split-random-corners",
    ):
        shutil.rmtree(tmp_path / name)
    go(tmp_path, "prepare", "store", **manifest, size=32)
    assert reads(tmp_path, "kl2", "split", region="corners") > 0.95
