"""Numbers and phrases as a reader sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import probed_study
from trabecula.artifacts.results import Comparison, LabelMultiplier
from trabecula.sections.formats import tex
from trabecula.sections.names import architecture_name, metric_name
from trabecula.sections.numbers import number, probability, signed, span
from trabecula.sections.provenance import without_paths
from trabecula.sections.verdict import verdict_pair
from trabecula.sections.wording import claim_of, multiplier_interval, multiplier_value


@pytest.mark.parametrize(
    ("value", "low", "high", "censored", "note", "words", "bounds"),
    [
        (3.21, 1.84, 9.4, "", "", "3.2×", "1.8× to 9.4×"),
        (3.21, 1.84, None, "", "", "3.2×", "at least 1.8×"),
        (10.0, 2.4, None, "above", "", "more than 10×", "at least 2.4×"),
        (0.1, None, 0.6, "below", "", "less than 0.1×", "at most 0.6×"),
        (0.52, None, None, "", "", "0.52×", "not bounded by the curve"),
        (0.52, None, None, "", "too few", "0.52×", "no interval"),
        (None, None, None, "above", "", "more than the baseline's curve covers", "–"),
        (None, None, None, "", "not estimable", "not estimable", "–"),
    ],
)
def test_multiplier_words(
    value: float, low: float, high: float, censored: str, note: str, words: str, bounds: str
) -> None:
    row = LabelMultiplier("kl2", "probe", "auroc", "moco", "random", 0.1, value, low, high, censored, note)
    assert multiplier_value(row) == words
    assert multiplier_interval(row) == bounds


def compared(**values: Any) -> Comparison:
    return Comparison(**(probed_study.pair("critic-wgan_gp", "critic-random", 0.3, "none") | values))


def test_without_a_test_there_is_no_claim() -> None:
    pair = compared()
    assert claim_of(pair) == "none"
    assert claim_of(replace(pair, p_holm=None)) == ""  # too few patients: not "no difference shown"
    assert claim_of(replace(pair, difference=None)) == claim_of(None) == ""


def test_the_sentence_speaks_of_the_smallest_fraction_that_was_tested() -> None:
    pairs = [compared(fraction=f, p_holm=p) for f, p in ((0.01, None), (0.1, 0.2), (1.0, 0.1))]
    assert verdict_pair(pairs) == pairs[1]
    assert verdict_pair(pairs[:1]) == pairs[0]
    assert verdict_pair([replace(pairs[0], difference=None)]) is None


def test_tex_escapes_each_special_character() -> None:
    assert tex("a_b & 5 % −0.1 <x> {y} \\ 3×") == (
        r"a\_b \& 5 \% $-$0.1 $<$x$>$ \{y\} \textbackslash{} 3$\times$"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--out /home/ann/knees/run1 -s a=1", "--out …/run1 -s a=1"),
        ("C:\\Users\\ann\\x.toml", "…/x.toml"),
        ("recipes/knees.toml --out=/data/x", "recipes/knees.toml --out=…/x"),
        ("~/runs/a", "…/a"),
        ("1/2 of them", "1/2 of them"),
    ],
)
def test_absolute_paths_are_shortened(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_numbers_read_as_people_write_them() -> None:
    assert [number(-0.0004), number(0.5), number(None), signed(0.08, 2), signed(-0.08, 2)] == [
        "0.000", "0.500", "–", "+0.08", "−0.08",
    ]  # fmt: skip
    values = (0.0004, 0.0044, 0.0057, 0.00996, 0.04997, 0.82, None)
    assert [probability(p).replace("\N{NO-BREAK SPACE}", " ") for p in values] == [
        "< 0.001", "0.0044", "0.0057", "0.0099", "0.0499", "0.82", "–",
    ]  # fmt: skip
    assert [span([3]), span([5, 3]), span([])] == ["3", "3 to 5", "–"]


def test_names_read_as_people_write_them() -> None:
    assert [architecture_name(a) for a in ("timm:resnet18", "torchvision:squeezenet1_0", "critic")] == [
        "ResNet-18", "SqueezeNet 1.0", "critic",
    ]  # fmt: skip
    transformers = ("timm:vit_tiny_patch8_224", "timm:vit_small_patch14_dinov2.lvd142m")
    assert [architecture_name(a) for a in transformers] == ["ViT-Tiny/8", "ViT-Small/14 dinov2.lvd142m"]
    assert [metric_name(m) for m in ("auroc", "auroc[edema]", "balanced_accuracy", "mae")] == [
        "AUROC", "AUROC of edema", "balanced accuracy", "mean absolute error",
    ]  # fmt: skip
