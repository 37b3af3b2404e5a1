"""What a report says beside a comparison of fine-tunings that stayed at chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import probed_study
from evaluated_study import write_manifest
from report_page import visible
from trabecula import report
from trabecula.artifacts.results import Comparison, TuningCount
from trabecula.run import execute
from trabecula.sections.wording import any_stuck, stayed_at_chance
from trabecula.summaries.run_card import read_card

PLACE = {"task": "kl2", "mode": "finetune", "fraction": 0.25}
WORSE = "3 of 3 runs stayed at chance: an optimisation failure, no proof of a worse encoder"


def compared(claim: str) -> Comparison:
    return Comparison(**probed_study.pair("critic-wgan_gp", "critic-random", -0.1, claim))


def counted(*rows: dict[str, Any]) -> list[TuningCount]:
    return [TuningCount(**row) for row in rows]


def stuck(arm: str, num: int, runs: int = 3, **other: Any) -> dict[str, Any]:
    return {**PLACE, "arm": arm, "num_runs": runs, "num_plateau": num, **other}


@pytest.mark.parametrize(
    ("arm", "baseline", "claim", "words"),
    [
        (0, 0, "worse", ""),
        (3, 0, "worse", WORSE),
        (1, 0, "worse", "1 of 3 runs stayed at chance: in part an optimisation failure"),
        (0, 3, "worse", "3 of 3 runs of the baseline stayed at chance"),  # the better one was stuck
        (0, 3, "better", "3 of 3 runs of the baseline stayed at chance: an optimisation failure, no proof "
                         "of a better encoder"),
        (1, 2, "better", "1 of 3 runs and 2 of 3 runs of the baseline stayed at chance: in part an "
                         "optimisation failure"),
        (2, 0, "better", "2 of 3 runs stayed at chance"),
        (3, 0, "none", "3 of 3 runs stayed at chance: an optimisation failure"),
        (0, 1, "none", "1 of 3 runs of the baseline stayed at chance"),
    ],
)  # fmt: skip
def test_words_say_which_side_was_stuck(arm: int, baseline: int, claim: str, words: str) -> None:
    rows = counted(stuck("critic-wgan_gp", arm), stuck("critic-random", baseline))
    assert stayed_at_chance(rows, compared(claim)) == words


def test_a_side_without_counts_is_not_called_stuck() -> None:
    pair, only = compared("worse"), counted(stuck("critic-random", 3))
    assert stayed_at_chance(only, pair) == "3 of 3 runs of the baseline stayed at chance"
    assert any_stuck(only, pair)
    assert not any_stuck(counted(stuck("critic-random", 0)), pair)


@pytest.mark.parametrize("other", [{"task": "side"}, {"mode": "finetune:best"}, {"fraction": 1.0}])
def test_runs_of_another_place_say_nothing(other: dict[str, Any]) -> None:
    assert stayed_at_chance(counted(stuck("critic-wgan_gp", 3, **other)), compared("worse")) == ""


def made(root: Path, plateaus: list[dict[str, Any]]) -> tuple[str, Path]:
    """The last line and the report of a worse fine-tuning and a better one, the first with plateaus."""
    fractions = {0.25: ("worse", -0.15), 1.0: ("better", 0.08)}
    scores = [
        probed_study.score(arm, value, value - 0.03, value + 0.03, fraction=fraction)
        for fraction in fractions
        for arm, value in (("critic-random", 0.7), ("critic-wgan_gp", 0.6))
    ]
    pairs = [
        probed_study.pair("critic-wgan_gp", "critic-random", gap, claim, fraction=fraction)
        for fraction, (claim, gap) in fractions.items()
    ]
    folder = probed_study.write_study(root / "results", scores, pairs)
    worth = {"value": 0.5, "low": 0.3, "high": 0.8, "censored": "", "note": ""}
    told = json.loads((folder / "comparisons.json").read_text())
    told["label_multipliers"] = [
        {k: p[k] for k in ("task", "mode", "fraction", "metric", "arm", "baseline")} | worth for p in pairs
    ]
    (folder / "comparisons.json").write_text(json.dumps(told))
    flow = json.loads((folder / "flow.json").read_text())
    (folder / "flow.json").write_text(json.dumps(flow | {"plateaus": plateaus}))
    config = report.Config(results=folder, manifest=write_manifest(root / "data"))
    return execute("report", config, root / "report"), root / "report"


def test_the_mark_stands_beside_the_comparison(tmp_path: Path) -> None:
    said, out = made(tmp_path, [stuck("critic-wgan_gp", 3), stuck("critic-random", 0)])
    assert said == (
        "report.html: 2 comparisons with random initialisation: 1 better, "
        "1 worse (1 with runs that stayed at chance), 0 with no difference shown; "
        "2 claims are for these 3 trained networks of each arm only, not for new ones"
    )
    page = (out / "report.html").read_text()
    text = visible(page)
    assert f"it did worse ({WORSE}) ." in text
    assert "1 worse (1 with runs that stayed at chance)" in text
    assert "Like having" not in text  # how well training went is worth no labels
    assert '▼</span> −0.15<span class="hidden"> worse</span> <span aria-hidden="true">⚠</span>' in page
    assert f'<span class="hidden"> ({WORSE})</span></li>' in page
    assert page.count("▼ ⚠") == 1  # in the table of differences
    assert "▲ ⚠" not in page
    assert page.count(WORSE) == 3  # sentence, mark, table
    for name, worse in (("md", f"| worse ({WORSE}) |"), ("tex", f"& worse ({WORSE}) ")):
        table = (out / f"tables/comparisons.{name}").read_text()
        assert table.count(worse) == table.count("stayed at") == 1
    multipliers = (out / "tables/label_multipliers.md").read_text().splitlines()
    assert [line.endswith("| runs that stayed at chance |") for line in multipliers if "0.5×" in line] == [
        True, False,
    ]  # fmt: skip
    assert text.count("0.3× to 0.8× runs that stayed at chance") == 1
    card = read_card(tmp_path / "results")
    claims = [words for label, words in (card.lines if card else ()) if label == "worse"]
    assert len(claims) == 1
    assert claims[0].endswith(f"({WORSE})")


def test_without_such_runs_nothing_is_marked_and_no_number_changes(tmp_path: Path) -> None:
    said, plain = made(tmp_path / "plain", [stuck("critic-wgan_gp", 0)])
    assert "1 better, 1 worse, 0 with no difference shown; 2 claims are for these 3 trained networks" in said
    page = visible((plain / "report.html").read_text())
    assert "Like having 0.5× the labels (0.3× to 0.8×)." in page
    _, marked = made(tmp_path / "marked", [stuck("critic-wgan_gp", 3)])
    for name in ("results", "comparisons", "label_multipliers"):
        assert (plain / f"tables/{name}.csv").read_bytes() == (marked / f"tables/{name}.csv").read_bytes()
    rows = [(out / "tables/comparisons.md").read_text().replace(f" ({WORSE})", "") for out in (plain, marked)]
    assert rows[0] == rows[1]


def test_fine_tunings_below_or_at_their_starts_probe_are_named(tmp_path: Path) -> None:
    counts = [
        stuck("critic-wgan_gp", 0, num_below_probe=2),
        stuck("critic-random", 0, num_kept_probe=3),
        stuck("critic-random", 0, fraction=1.0, num_kept_probe=1, num_best_at_end=2),
    ]
    said, out = made(tmp_path, counts)
    text = visible((out / "report.html").read_text())
    assert "stayed at chance" not in said
    assert "Fine-tunings that stayed at chance" not in text
    assert (
        "worse on validation than a linear probe of the network they started from: "
        "critic, WGAN-GP pretraining (2 of 3 with 25 % of labels)." in text
    )
    assert (
        "because no checkpoint was better on validation: "
        "critic, random initialisation (3 of 3 with 25 % of labels, 1 of 3 with 100 %)." in text
    )
    assert "more images might help: critic, random initialisation (2 of 3 with 100 % of labels)." in text
