"""`trabecula show RUN`: what a person reads of a run's folder, and what is never told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
from typer.testing import CliRunner

import probed_study
from trabecula import cli, embed, evaluate, export, finetune, pretrain, probe, split
from trabecula.artifacts.encoder import read_encoder_card as encoder_card
from trabecula.artifacts.patient_hashes import key_name, site_key
from trabecula.run import execute
from trabecula.summaries import run_card
from trabecula.summaries.run_card import RunCard, read_card, read_study

runner = CliRunner()


@pytest.fixture(scope="module")
def runs(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small chain: two encoders, features, probe, classifier, evaluation, export."""
    root = tmp_path_factory.mktemp("runs")
    manifest, store = hospital / "cohort", hospital / "store"
    parts = split.Config(manifest=manifest, task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    execute("pretrain", pretrain.Config(store=store, architecture="critic:4-8"), root / "random")
    moco = pretrain.Config(
        store=store, splits=root / "split", architecture="timm:test_resnet", objective="moco",
        settings={"queue": 8, "bn_rows": 4, "optimizer": {"lr": 0.25}}, images=64, every=32, batch_size=8,
        precision="float32", seed=5,
    )  # fmt: skip
    execute("pretrain", moco, root / "moco")
    for name in ("random", "moco"):
        execute("embed", embed.Config(encoder=root / name, store=store), root / f"f-{name}")
        few = {"features": root / f"f-{name}", "manifest": manifest, "splits": root / "split"}
        judge = probe.Config(**few, task="kl >= 1", fractions=(0.5, 1.0), seeds=(0, 1))
        execute("probe", judge, root / f"p-{name}")
    fine = finetune.Config(
        encoder=root / "moco", store=store, manifest=manifest, splits=root / "split", task="kl >= 1",
        images=16, every=16, batch_size=8, precision="float32", fraction=0.5, seed=3,
    )  # fmt: skip
    execute("finetune", fine, root / "fine")
    judged = evaluate.Config(
        predictions=(root / "p-moco", root / "p-random"), encoders=(root / "moco", root / "random"),
        manifest=manifest, splits=root / "split", num_resamples=100,
    )  # fmt: skip
    execute("evaluate", judged, root / "results")
    execute("export", export.Config(encoder=root / "moco", onnx=False), root / "export")
    return root


def lines(card: RunCard | None) -> dict[str, str]:
    assert card is not None
    return dict(card.lines)


def shown(*words: object) -> str:
    answer = runner.invoke(cli.app, ["show", *map(str, words)], env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_an_encoders_card_says_what_it_is_and_how_it_went(runs: Path, hospital: Path) -> None:
    card = read_card(runs / "moco")
    told = lines(card)
    assert card is not None
    assert card.title == "test_resnet-moco: an encoder"
    assert told["network"].startswith("test resnet (timm:test_resnet), ")
    assert told["input"] == "grey images of 32 px in [0, 1], mean 0.5, deviation 0.5"
    assert told["start"] == "random weights, seed 5"
    assert told["objective"] == "MoCo"
    assert "queue 8" in told["settings"]
    assert "optimizer sgd lr 0.25" in told["settings"]
    assert told["pool"] == "12 images of 6 patients"
    assert told["seen"] == "64 images, each counted every time, in batches of 8"
    points = json.loads((runs / "moco" / "training.json").read_text())["points"]
    assert f"{points[0]['query/loss']:.3f} to {points[-1]['query/loss']:.3f}" in told["loss"]
    assert f"effective rank {points[-1]['monitor/rank']:.1f} (at the start " in told["monitors"]
    assert told["patients"] == f"6, known to this site's evaluate as marks under key {key_name(site_key())}"
    assert "on cpu, ended" in told["time"]
    assert card.commands[0] == (
        f"trabecula embed --encoder {runs / 'moco'} --store {hospital / 'store'} --out FEATURES"
    )


def test_a_run_of_one_point_has_no_course(tmp_path: Path, runs: Path) -> None:
    shutil.copytree(runs / "moco", tmp_path / "moco")
    training = json.loads((tmp_path / "moco" / "training.json").read_text())
    training["points"] = training["points"][:1]
    (tmp_path / "moco" / "training.json").write_text(json.dumps(training))
    loss = training["points"][0]["query/loss"]
    assert lines(read_card(tmp_path / "moco"))["loss"] == (
        f"query {loss:.3f}, the mean of the whole run: it has one point"
    )


def test_an_arm_without_pretraining_says_so(runs: Path) -> None:
    told = lines(read_card(runs / "random"))
    assert told["objective"] == "none: an arm with random initialisation, no pretraining"
    assert {"seen", "pool", "loss", "monitors", "patients", "warning"} & told.keys() == set()


def copied(runs: Path, out: Path, **changes: Any) -> Path:
    for name in ("encoder.json", "training.json", "log.jsonl"):
        (out / name).write_bytes((runs / "moco" / name).read_bytes())
    values = json.loads((out / "encoder.json").read_text())
    (out / "encoder.json").write_text(json.dumps({**values, **changes}))
    return out


def test_warnings_and_what_labels_taught_are_told(runs: Path, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, labels="kl >= 2", num_labelled_patients=6, objective="classify",
                    init="weights", weights="facebook/dinov2-small@12ab sha256:ffff", pool_fraction=0.5,
                    pool_cohorts=["north"])  # fmt: skip
    training = json.loads((folder / "training.json").read_text())
    training["findings"] = [{"name": "c", "text": "the encoder has collapsed", "first": 32, "last": 64}]
    (folder / "training.json").write_text(json.dumps(training))
    told = lines(read_card(folder))
    assert told["warning"] == "from 32 to 64 images: the encoder has collapsed"
    assert told["objective"].endswith("from the labels of kl >= 2 of 6 training patients: an upper bound")
    assert told["start"] == "given weights: facebook/dinov2-small@12ab, seed 5"
    assert (
        told["pool"]
        .replace("\N{NO-BREAK SPACE}", " ")
        .endswith(", 50 % of the pool's patients, cohorts north")
    )


def test_an_encoder_of_unknown_patients_is_said_to_be_refused(runs: Path, tmp_path: Path) -> None:
    told = lines(read_card(copied(runs, tmp_path, patients=[])))
    assert told["patients"].startswith("not listed: evaluate refuses it")


def test_a_classifiers_card(runs: Path) -> None:
    card = read_card(runs / "fine")
    told = {key: text.replace("\N{NO-BREAK SPACE}", " ") for key, text in lines(card).items()}
    assert card is not None
    assert card.title == "test_resnet-moco for kl >= 1: a classifier"
    assert told["predicts"] == "kl >= 1, binary: kl >= 1"
    assert told["labels"].startswith("50 % (seed 3): ")
    assert told["threshold"].endswith("(chosen on validation)")
    assert told["encoder"].startswith("random weights, seed 5; MoCo")
    assert any(f"--encoders {runs / 'moco'} " in command for command in card.commands)


def test_the_cards_of_other_runs(runs: Path, hospital: Path) -> None:
    embedded = read_card(runs / "f-moco")
    assert embedded is not None
    assert f" --manifest {hospital / 'cohort'} " in embedded.commands[0]  # by way of its store
    probed = read_card(runs / "p-moco")
    assert probed is not None
    assert probed.title == "test_resnet-moco for kl >= 1: linear probe"
    assert [what for what, text in probed.lines if "more seeds" in text] == ["labels", ""]
    assert lines(read_card(hospital / "store"))["images"] == "grey, 32 px, 8 bits"
    assert lines(read_card(runs / "f-moco"))["features"].endswith("pool mean, float32")
    left = lines(read_card(runs / "export"))
    assert left["files"] == "README.md, config.json, encoder.json, model.safetensors"
    assert left["checked"].startswith("timm: largest difference ")
    assert read_card(runs / "split") is None


def test_an_evaluations_card_has_its_main_numbers(runs: Path) -> None:
    card = read_card(runs / "results")
    told = lines(card)
    assert card is not None
    assert card.title == "an evaluation of 2 arms"
    assert told["AUROC"] == "of kl >= 1, linear probe:"
    rows = json.loads((runs / "results" / "metrics.json").read_text())["rows"]
    summed = [r for r in rows if (r["metric"], r["seed"]) == ("auroc", "all")]
    values = {(r["arm"], r["fraction"]): r["value"] for r in summed}
    text = "\n".join(text for _, text in card.lines).replace("\N{NO-BREAK SPACE}", " ")
    for (arm, fraction), value in values.items():
        number = "–" if value is None else f"{value:.3f}"
        assert f"  {arm}, {fraction * 100:g} %: {number} (" in text
    assert told["intervals"] == "95 %, 100 resamples"


def test_an_evaluation_without_claims_says_how_many_were_tested(tmp_path: Path) -> None:
    tested = probed_study.pair("critic-wgan_gp", "critic-random", 0.1, "none")
    gone = {**tested, "p_holm": None}
    scores = [probed_study.score("critic-wgan_gp", 0.7, 0.6, 0.8)]
    for pairs, wanted in (
        ([tested, tested, gone], "none: 2 of 3 comparisons could be tested"),
        ([gone, gone], "none: 0 of 2 comparisons could be tested"),
        ([], "none: 0 of 0 comparisons could be tested"),
    ):
        folder = probed_study.write_study(tmp_path / str(len(list(tmp_path.iterdir()))), scores, pairs)
        assert lines(read_card(folder))["claims"] == wanted


def test_names_are_shown_as_they_stand(runs: Path, tmp_path: Path) -> None:
    """Brackets are markup to the terminal's library."""
    text = shown(copied(runs, tmp_path, name="moco[/b]", labels="kl [red]", objective="classify"))
    assert "moco[/b]: an encoder" in text
    assert "kl [red]" in text


def test_no_mark_of_a_patient_is_ever_printed(runs: Path) -> None:
    marks = encoder_card(runs / "moco").patients
    assert len(marks) == 6
    for name in ("moco", "fine", "f-moco", "results", "export", "export/hub"):
        for text in (shown(runs / name), shown(runs / name, "--settings")):
            assert not any(mark in text for mark in marks), name
    assert "6 marks" in shown(runs / "moco", "--settings")
    assert "6 marks" in shown(runs / "fine", "--settings")


def test_show_prints_the_card_and_the_settings_when_asked(runs: Path) -> None:
    text = shown(runs / "moco")
    assert text.startswith(f"{runs / 'moco'}: pretrain, id ")
    assert "DONE: test_resnet-moco: 64 images seen of 12 from 6 patients" in text
    assert "\nnext:\n  trabecula embed --encoder " in text
    assert "[settings]" not in text
    more = shown(runs / "moco", "--settings")
    assert "[settings]" in more
    assert "batch_size = 8" in more
    snapshot = shown(runs / "export" / "hub")
    assert "test_resnet-moco: an encoder" in snapshot


def test_a_study_tells_its_stages(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("title='Two'\n[stages.a]\nverb='phantom'\n")
    cells = [
        {"id": name, "stage": stage, "verb": verb, "folder": f"cells/{name}", "coordinates": {}, "needs": []}
        for name, stage, verb in (("a", "a", "phantom"), ("b", "b", "evaluate"), ("c", "b", "evaluate"))
    ]
    (tmp_path / "cells.json").write_text(
        json.dumps({"title": "Two", "not_run": {"x": "no file"}, "cells": cells})
    )
    for name in ("a", "b"):
        (tmp_path / "cells" / name).mkdir(parents=True)
        (tmp_path / "cells" / name / "DONE").write_text("done\n")
    card = read_study(tmp_path)
    assert card.lines == [
        ("a", "1 done"), ("b", "1 of 2 done"), ("not run", "x: no file"), ("report", "none yet")
    ]  # fmt: skip
    assert card.commands == [f"trabecula study {tmp_path / 'recipe.toml'} --out {tmp_path}"]
    assert "1 of 2 done" in shown(tmp_path)
    (tmp_path / "cells" / "c").mkdir()
    (tmp_path / "cells" / "c" / "DONE").write_text("done\n")
    assert read_study(tmp_path).commands == [f"trabecula show {tmp_path / 'cells' / 'b'}"]


def test_the_next_command_names_what_the_runs_know(tmp_path: Path) -> None:
    """By way of the runs it was made from; a path with a space stays one word."""
    of = {
        "cohort": {}, "split": {"manifest": "cohort"}, "my store": {"manifest": "cohort"},
        "moco": {"store": "my store", "splits": "split"},
        "features": {"encoder": "moco", "store": "my store"},
        "probe": {"features": "features", "manifest": "cohort", "splits": "split"},
        "results": {"predictions": "probe", "encoders": "moco", "manifest": "cohort", "splits": "split"},
    }  # fmt: skip
    for name, inputs in of.items():
        (tmp_path / name).mkdir()
        given = {key: [str(tmp_path / value)] for key, value in inputs.items()}
        (tmp_path / name / "provenance.json").write_text(json.dumps({"inputs": given}))
    record = {"verb": "split", "settings": {"task": "kl >= 2"}}
    (tmp_path / "split" / "config.json").write_text(json.dumps(record))
    at = {name: quote(str(tmp_path / name)) for name in of}
    assert run_card._report(tmp_path / "results") == (
        f"trabecula report --results {at['results']} --manifest {at['cohort']} --runs {at['probe']} "
        f"--runs {at['moco']} --runs {at['features']} --store {at['my store']} --out REPORT"
    )
    assert at["my store"].startswith("'")
    assert run_card._evaluate(tmp_path / "probe") == (
        f"trabecula evaluate --predictions {at['probe']} --encoders {at['moco']} --manifest {at['cohort']} "
        f"--splits {at['split']} --out RESULTS"
    )
    assert run_card._inputs(tmp_path / "features", "manifest", "splits") == (
        f"--manifest {at['cohort']} --splits {at['split']}"
    )
    assert run_card._task(tmp_path / "features") == "-s 'task=\"kl >= 2\"'"
    assert run_card._task(tmp_path / "cohort") == "-s 'task=\"RULE\"'"


def test_a_torn_log_and_card_are_no_defect(runs: Path, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"time": 1, "eve')
    assert lines(read_card(folder))["pool"] == "12 images of 6 patients"
    (folder / "encoder.json").write_text("{")
    answer = runner.invoke(cli.app, ["show", str(folder)])
    assert answer.exit_code == 2
