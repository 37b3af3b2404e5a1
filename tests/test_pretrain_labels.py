"""pretrain with labels: an encoder that learns from them, and neighbours that are only asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from trabecula import finetune, pretrain, split
from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.patient_hashes import mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.config import build
from trabecula.data.leaks import check
from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder, make_encoder
from trabecula.run import execute


@pytest.fixture(scope="module")
def splits(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "split"
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, out)
    return out


def config(hospital: Path, splits: Path, **settings: Any) -> pretrain.Config:
    values = {
        "store": hospital / "store", "splits": splits, "manifest": hospital / "cohort", "task": "kl >= 1",
        "architecture": "critic:4-8", "objective": "classify", "images": 64, "every": 16, "batch_size": 8,
        "precision": "float32",
    }  # fmt: skip
    return pretrain.Config(**{**values, **settings})


def relabelled(hospital: Path, out: Path, patients: list[str]) -> Path:
    """A manifest in which these patients have other labels."""
    out.mkdir()
    table = pd.read_csv(hospital / "cohort" / "manifest.csv", dtype=str, keep_default_na=False)
    table["path"] = [str((hospital / "cohort" / path).resolve()) for path in table["path"]]
    known = table["patient_id"].isin(patients)
    table.loc[known, "kl"] = [str((int(kl) + 1) % 3) for kl in table.loc[known, "kl"]]
    table.to_csv(out / "manifest.csv", index=False)
    return out


def test_no_held_out_patient_is_learned_from(hospital: Path, splits: Path, tmp_path: Path) -> None:
    """The card lists the training part alone, and says which labels."""
    said = execute("pretrain", config(hospital, splits), tmp_path / "run")
    card, parts = read_encoder_card(tmp_path / "run"), read_splits(splits)
    assert (card.family, card.objective, card.labels) == ("pretrained", "classify", "kl >= 1")
    assert (card.settings["kind"], card.settings["num_classes"]) == ("single", 2)
    assert (card.num_labelled_patients, card.batch_size, card.parent) == (6, 8, "")
    assert list(card.patients) == sorted(mark(parts.patients("train"), site_key()))
    held_out = set(mark([*parts.patients("val"), *parts.patients("test")], site_key()))
    assert not held_out & set(card.patients)
    assert "12 from 6 patients, with their labels of kl >= 1" in said
    manifest = read_manifest(hospital / "cohort")
    assert check(manifest, splits, [tmp_path / "run"]).leaks == []


def test_labels_of_held_out_patients_change_no_bit(hospital: Path, splits: Path, tmp_path: Path) -> None:
    parts = read_splits(splits)
    others = {"held": [*parts.patients("val"), *parts.patients("test")], "train": parts.patients("train")}
    execute("pretrain", config(hospital, splits), tmp_path / "run")
    for name, patients in others.items():
        manifest = relabelled(hospital, tmp_path / f"{name}-cohort", list(patients))
        execute("pretrain", config(hospital, splits, manifest=manifest), tmp_path / name)
        for file in ("encoder.safetensors", "training.json"):
            same = (tmp_path / "run" / file).read_bytes() == (tmp_path / name / file).read_bytes()
            assert same == (name == "held"), (name, file)


def test_patients_without_a_split_or_a_label_teach_nothing(
    hospital: Path, splits: Path, tmp_path: Path
) -> None:
    """Self-supervision may use a patient who is in no part; labels are the training part's alone."""
    parts = read_splits(splits)
    left_out, unlabelled = parts.patients("train")[:2]
    lines = "".join(f"{patient},{part}\n" for patient, part in parts.of.items() if patient != left_out)
    (tmp_path / "splits.csv").write_text("patient_id,split\n" + lines)
    manifest = relabelled(hospital, tmp_path / "cohort", [])
    table = pd.read_csv(manifest / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[table["patient_id"] == unlabelled, "kl"] = ""
    table.to_csv(manifest / "manifest.csv", index=False)
    execute("pretrain", config(hospital, tmp_path / "splits.csv", manifest=manifest), tmp_path / "run")
    assert list(read_encoder_card(tmp_path / "run").patients) == sorted(
        mark(parts.patients("train")[2:], site_key())
    )


def test_an_encoder_keeps_what_labels_it_saw(hospital: Path, splits: Path, tmp_path: Path) -> None:
    execute("pretrain", config(hospital, splits), tmp_path / "first")
    settings = {"objective": "wgan_gp", "settings": {"critic_steps": 1}, "task": "", "manifest": None}
    start = {"init": "encoder", "weights": tmp_path / "first"}
    execute("pretrain", config(hospital, splits, arm="then", **settings, **start), tmp_path / "second")
    second = read_encoder_card(tmp_path / "second")
    assert (second.labels, second.num_labelled_patients) == ("kl >= 1", 6)
    weights = (tmp_path / "first" / "encoder.safetensors").read_bytes()
    assert second.parent == hashlib.sha256(weights).hexdigest()
    execute("pretrain", config(hospital, splits, arm="both", task="kl", **start), tmp_path / "third")
    assert read_encoder_card(tmp_path / "third").labels == "kl >= 1; kl"
    assert read_encoder_card(tmp_path / "third").settings["num_classes"] == 3


def test_it_resumes_to_the_same_bytes_and_is_fine_tuned(
    hospital: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("pretrain", config(hospital, splits), tmp_path / "whole")
    from trabecula.train import loop

    real, calls = loop._one_step, []

    def killed(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(loop, "_one_step", killed)
    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    with pytest.raises(KeyboardInterrupt):
        execute("pretrain", config(hospital, splits), tmp_path / "killed")
    execute("pretrain", config(hospital, splits), tmp_path / "killed")
    assert len(calls) == 5 + 4  # eight steps, four of them in the checkpoint
    for name in ("encoder.safetensors", "encoder.json", "training.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    tuned = finetune.Config(
        encoder=tmp_path / "whole", store=hospital / "store", manifest=hospital / "cohort", splits=splits,
        task="kl", images=16, batch_size=8, precision="float32",
    )  # fmt: skip
    assert "4-8-classify, kl, 100\N{NO-BREAK SPACE}% of labels" in execute(
        "finetune", tuned, tmp_path / "tuned"
    )


def test_neighbours_are_asked_and_nothing_learns_from_them(
    hospital: Path, splits: Path, tmp_path: Path
) -> None:
    """Another method with a task gives the encoder it gives without, and says what neighbours said."""
    gan = {"objective": "wgan_gp", "settings": {"critic_steps": 1}}
    execute("pretrain", config(hospital, splits, **gan), tmp_path / "with")
    execute("pretrain", config(hospital, splits, **gan, task="", manifest=None), tmp_path / "without")
    weights = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]
    assert read_encoder_card(tmp_path / "with").labels == ""
    told = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("with", "without")]
    assert set(told[0]["start"]) == {"monitor/rank", "monitor/rankme", "monitor/spread", "monitor/knn"}
    assert set(told[1]["start"]) == {"monitor/rank", "monitor/rankme", "monitor/spread"}
    assert "monitor/knn" in told[0]["points"][-1]
    log = [json.loads(line) for line in (tmp_path / "with" / "log.jsonl").read_text().splitlines()]
    assert [line["monitor/knn"] for line in log if line["event"] == "start"] == [
        told[0]["start"]["monitor/knn"]
    ]
    assert [line for line in log if line["event"] == "point"][-1]["monitor/rank"] > 2


def test_a_collapsed_encoder_is_told_at_the_end(
    hospital: Path,
    splits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Planted: a last layer that gives its bias whatever it is shown, and a rate that leaves it there."""
    optimizer = {"name": "adam", "lr": 1e-12}
    moco = {"queue": 8, "bn_rows": 4, "optimizer": optimizer, "views": {"blur": 0}}
    values = {"objective": "moco", "settings": moco, "task": "", "manifest": None}
    said = execute("pretrain", config(hospital, splits, **values), tmp_path / "well")
    assert "warning" not in said + capsys.readouterr().err

    def planted(*args: Any, **settings: Any) -> Encoder:
        encoder = make_encoder(*args, **settings)
        layers = [part for part in encoder.modules() if isinstance(part, nn.Conv2d)]
        nn.init.zeros_(layers[-1].weight)
        assert layers[-1].bias is not None
        nn.init.constant_(layers[-1].bias, 0.5)
        return encoder

    monkeypatch.setattr(pretrain, "make_encoder", planted)
    said = execute("pretrain", config(hospital, splits, **values), tmp_path / "ill")
    told = "the encoder has collapsed: its features of 12 images are almost identical"
    assert f"; warning: {told}" in said
    (finding,) = json.loads((tmp_path / "ill" / "training.json").read_text())["findings"]
    assert (finding["name"], finding["first"], finding["last"]) == ("encoder collapse", 64, 64)
    assert capsys.readouterr().err.count(told) == 1
    log = [json.loads(line) for line in (tmp_path / "ill" / "log.jsonl").read_text().splitlines()]
    assert [line["name"] for line in log if line["event"] == "finding"] == ["encoder collapse"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": ""}, "task and manifest go together: give both, or neither"),
        ({"manifest": None}, "task and manifest go together"),
        ({"task": "", "manifest": None}, "classify learns from labels: give task, such as 'kl >= 2'"),
    ],
)
def test_missing_labels_are_told_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    values = {"store": "s", "splits": "p", "objective": "classify", "task": "kl", "manifest": "m"}
    with pytest.raises(InputError, match=message):
        build(pretrain.Config, {**values, **settings}, "pretrain")


def test_labels_that_will_not_do_are_one_line(hospital: Path, splits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'num_classes' comes from the task; leave it out"):
        execute("pretrain", config(hospital, splits, settings={"num_classes": 5}), tmp_path / "a")
    nobody = tmp_path / "splits.csv"
    parts = read_splits(splits).of
    nobody.write_text("patient_id,split\n" + "".join(f"{p},test\n" for p in list(parts)[:-1]))
    with pytest.raises(InputError, match="no image with a label of task 'kl >= 1' is in the training part"):
        execute("pretrain", config(hospital, nobody), tmp_path / "b")
    manifest = relabelled(hospital, tmp_path / "cohort", [])
    table = pd.read_csv(manifest / "manifest.csv", dtype=str, keep_default_na=False)
    train = table["patient_id"].isin(read_splits(splits).patients("train"))
    table.loc[train, "kl"] = "2"
    table.to_csv(manifest / "manifest.csv", index=False)
    with pytest.raises(InputError, match=r"12 images of the pool .* not of two classes"):
        execute("pretrain", config(hospital, splits, manifest=manifest), tmp_path / "c")
    assert np.count_nonzero(train) == 12
