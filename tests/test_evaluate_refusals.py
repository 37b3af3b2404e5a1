"""What evaluate refuses: leaks, predictions that are not whole, files that are not there."""

import json

import numpy as np
import pandas as pd
import pytest

from predicted_study import config_of, copied, make_study, spoil
from trabecula import evaluate
from trabecula.artifacts.patient_hashes import key_name, mark
from trabecula.errors import InputError
from trabecula.run import execute


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize("key", ["a site's secret", "another secret"])
def test_an_encoder_that_saw_a_test_patient_is_refused(study, tmp_path, monkeypatch, key):
    monkeypatch.setenv("TRABECULA_SITE_KEY", "a site's secret")
    _, table = copied(study, tmp_path)
    path = tmp_path / "encoder-resnet-moco" / "encoder.json"
    card = json.loads(path.read_text())
    train, test = (table.loc[table["split"] == part, "patient_id"].iloc[0] for part in ("train", "test"))
    card["patients_key"] = key_name(key.encode())
    card["patients"] = mark([train], key.encode())
    path.write_text(json.dumps(card))
    config = config_of(tmp_path, ("resnet-moco",))
    if key != "a site's secret":
        with pytest.raises(InputError, match="hashed under site key"):
            execute("evaluate", config, tmp_path / "out")
        return
    execute("evaluate", config, tmp_path / "fine")
    card["patients"] = mark([train, test], key.encode())
    path.write_text(json.dumps(card))
    row = int(table.index[table["patient_id"] == test][0]) + 2
    with pytest.raises(InputError, match=rf"resnet-moco.*'{test}' \(manifest row {row}\) of the test part"):
        execute("evaluate", config, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_training_patient_called_a_test_patient_is_refused(study, tmp_path):
    _, table = copied(study, tmp_path)
    path = tmp_path / "hospital" / "splits.csv"
    splits = pd.read_csv(path)
    moved = table.loc[table["split"] == "test", "patient_id"].iloc[0]
    splits.loc[splits["patient_id"] == moved, "split"] = "train"
    splits.to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"'{moved}' \(manifest row \d+\) test, the splits say train"):
        execute("evaluate", config_of(tmp_path, ("resnet-moco",)), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(t.index[(t["split"] == "test") & (t["seed"] == 2)][:7]), "7 of 120 test images"),
        (lambda t: t.assign(image_id=t["image_id"].replace("i149", "stranger")), "no image 'stranger'"),
        (lambda t: pd.concat([t, t[:3]]), "3 predictions are made twice"),
        (lambda t: t.assign(p_1=np.where(t["seed"] == 1, np.nan, t["p_1"])), "not probabilities"),
        (lambda t: t.drop(columns="p_3"), "no column 'p_3'"),
        (lambda t: t.drop(columns="seed"), "no column 'seed'"),
        (lambda t: t.assign(p_1=["x", *t["p_1"][1:]]), "could not convert"),
        (lambda t: t.assign(arm="nobody"), "arm 'nobody' has predictions and no encoder"),
        (lambda t: t[t["task"] == "oa"].assign(task="hip"), "no task or column 'hip'"),
    ],
)  # fmt: skip
def test_bad_predictions_are_refused_in_one_line(study, tmp_path, change, message):
    path, _ = copied(study, tmp_path)
    spoil(path, change)
    with pytest.raises(InputError, match=message) as error:
        execute("evaluate", config_of(tmp_path, ("resnet-moco",)), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_missing_folders_and_unknown_names_are_refused(study, tmp_path):
    root, _ = study
    with pytest.raises(InputError, match="no predictions"):
        evaluate.reading.read_predictions([])
    for settings, message in (
        ({"metrics": {"binary": ["auc"]}}, "no metric 'auc'"),
        ({"strata": ["height"]}, "no column 'height'"),
        ({"predictions": [root / "encoder-resnet-moco"]}, "predictions.csv: no such file"),
        ({"encoders": [root / "hospital"]}, r"no encoder there \(encoder.json is missing\)"),
    ):
        with pytest.raises(InputError, match=message):
            execute("evaluate", config_of(root, **settings), tmp_path / message[:5])
