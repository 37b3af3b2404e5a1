"""The whole path, from a folder of films with a broken one among them to a report, verb by verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula.config import build
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
