"""`trabecula show` reads well: at 80 columns, wide, in a pipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from trabecula.config import Record, assign, build, describe
from trabecula.objectives import TABLE, find
from trabecula.run import verb_module
from trabecula.show import print_card, print_recipe, print_run, print_settings
from trabecula.verbs import VERBS

WIDTHS = (80, 100, 160)


class Crop(Record):
    """One view."""

    scale: tuple[float, float] = (0.2, 4 / 3)
    """Smallest and largest area."""


class Settings(Record):
    """Settings of a thing."""

    store: Path
    """What is read, which is told in so many words that no terminal of eighty columns has a line for it."""
    kind: Literal["a", "b"] = "a"
    """Its kind."""
    first: Crop = Crop()
    second: Crop = Crop(scale=(0.5, 1.0))
    note: str | None = None
    """Anything."""


def test_a_setting_is_a_line_of_toml_with_its_meaning_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_settings(Settings, "thing")
    assert capsys.readouterr().out == (
        "thing: Settings of a thing.\n"
        "\n"
        "store  # path; needed\n"
        "    What is read, which is told in so many words that no\n"
        "    terminal of eighty columns has a line for it.\n"
        'kind = "a"  # one of "a", "b"\n'
        "    Its kind.\n"
        "\n"
        "first.scale = [0.2, 1.33333]  # list of number\n"
        "    Smallest and largest area.\n"
        "\n"
        "second.scale = [0.5, 1.0]  # as first.scale\n"
        "\n"
        "note  # text; not set\n"
        "    Anything.\n"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["vicreg", "wgan_gp", "pretrain", "finetune"])
def test_every_setting_is_told_within_the_width_and_its_line_can_be_given_back(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    cls = find(name).Config if name in TABLE else verb_module(name).Config
    print_settings(cls, name)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > width or line != line.rstrip()] == []
    assert [line for line in lines if len(line) > 100 and line.startswith(" ")] == []
    told = [re.split(r"  # ", line)[0] for line in lines if "  # " in line]
    assert {line.split(".")[0].split(" ")[0] for line in told} == set(cls.model_fields)
    given = [line for line in told if " = " in line]
    needed = {line: "x" for line in told if line in cls.model_fields and cls.model_fields[line].is_required()}
    again, default = build(cls, assign(dict(needed), given), "here"), build(cls, needed, "here")
    assert describe(cls, given=again) == describe(cls, given=default)
    views = "views_b.crop_ratio = [0.75, 1.33333]  # as views_a.crop_ratio"
    assert (views in lines) == (name == "vicreg")


def test_all_settings_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in TABLE:
        print_settings(find(name).Config, name)
    for verb in VERBS:
        print_settings(verb_module(verb).Config, verb)
    assert "keys of pretrain's `settings`" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [("show", "vicreg"), ("show",), ("show", "{recipe}")])
def test_a_reader_that_has_seen_enough_is_no_error(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    asked = [word.format(recipe=tmp_path / "r.toml") for word in words]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "trabecula.cli", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), told) == (1, b"")


RECIPE = """
title = "Numbers"
[stages.number]
verb = "study_verbs.number"
style.digits = 2
[stages.add]
verb = "study_verbs.add"
start = "@number"
axes.plus = [0, 10]
[axes.arm.one]
number = { value = 1, style = { digits = 3 } }
add.steps = 7
[axes.arm.plain]
[axes.arm.control]
skip_if_missing = "weights/x.safetensors"
number.value = 3
[axes.arm.imagenet]
skip_if_missing = "weights/x.safetensors"
number.path = "weights/x.safetensors"
"""
NOT_RUN = "imagenet: weights/x.safetensors is not there; left out with it: its control control"


def test_a_recipe_tells_what_each_value_of_an_axis_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "r.toml").write_text(RECIPE)
    print_recipe(tmp_path / "r.toml")
    assert capsys.readouterr().out == (
        "Numbers\n"
        "\n"
        "stage number  # study_verbs.number\n"
        "    style.digits = 2\n"
        "\n"
        "stage add  # study_verbs.add\n"
        '    start = "@number"\n'
        "    axis plus: 0, 10\n"
        "\n"
        "axis arm\n"
        "    one\n"
        "        number: value = 1, style.digits = 3\n"
        "        add: steps = 7\n"
        "    plain: the stages as they are\n"
        "\n"
        f"not run: {NOT_RUN}\n"
        "threads of each cell: 1\n"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_a_recipe_ends_at_an_equals_sign(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_recipe(Path(__file__).parents[1] / "recipes" / "knee-ssl-paper.toml")
    lines = capsys.readouterr().out.splitlines()
    assert "settings.queue = 32768" in " ".join(lines)
    assert [line for line in lines if len(line) > width or line.endswith("=") or "\u00a0" in line] == []
    assert [line for line in lines if line.strip().startswith("=")] == []


def test_a_run_with_many_inputs_names_some_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [f"runs/cell-{i}" for i in range(41)]
    (tmp_path / "config.json").write_text(
        json.dumps({"verb": "report", "id": "a" * 64, "settings": {"title": None, "size": {"of": [1, 2]}}})
    )
    (tmp_path / "provenance.json").write_text(json.dumps({"inputs": {"runs": runs, "samples": []}}))
    (tmp_path / "DONE").write_text("many words " * 12)
    print_run(tmp_path)
    told = capsys.readouterr().out
    assert "runs/cell-5 and 35 more\n" in told
    assert "samples" not in told
    assert told.endswith("\n[settings]\nsize.of = [1, 2]\n")
    assert max(len(line) for line in told.splitlines()[1:]) <= 80


def test_a_studys_card_tells_once_of_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    why = "weights/x.safetensors is not there"
    cells = [{"stage": "number", "verb": "number", "folder": "cells/a", "coordinates": {}}]
    (tmp_path / "cells.json").write_text(
        json.dumps({"title": "Two", "not_run": {"control": why, "imagenet": why}, "cells": cells})
    )
    print_run(tmp_path)
    assert capsys.readouterr().out == (
        "\nTwo\n"
        " number   0 of 1 done\n"
        " not run  imagenet: weights/x.safetensors is not there; left out with it: its\n"
        "          control control\n"
        " report   none yet\n"
        "\nnext:\n"
        f"  trabecula study {tmp_path / 'recipe.toml'} --out {tmp_path}\n\n"
    )


def test_a_cards_own_indents_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trabecula.summaries.run_card import RunCard

    monkeypatch.setenv("COLUMNS", "50")
    print_card(RunCard("a title", [("AUROC", "of kl:"), ("", "  an arm with a name and a value: 0.7")]))
    assert capsys.readouterr().out == (
        "\na title\n AUROC  of kl:\n          an arm with a name and a value: 0.7\n\n"
    )
