"""Numbers and names as a reader sees them, and the sentences of the verdict."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal

from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.results import Comparison, LabelMultiplier, MetricRow, PlateauCount
from trabecula.objectives import title
from trabecula.sections.results import Arm, Panel, Results

MODES = {"probe": "linear probe", "finetune": "fine-tuning"}
FAMILY_NAMES = {
    "random": "random initialisation", "imagenet": "ImageNet weights", "weights": "given weights",
}  # fmt: skip
_ARCHITECTURES = {
    "resnet": "ResNet-", "densenet": "DenseNet-", "vgg": "VGG-", "efficientnet_": "EfficientNet-",
    "vit_": "ViT-", "convnext_": "ConvNeXt-", "squeezenet": "SqueezeNet ",
}  # fmt: skip
_VIT = re.compile(r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)(?:_\d{3})?[._]?(?P<rest>.*)")
_METRICS = {
    "auroc": "AUROC", "auroc_macro": "macro AUROC",
    "brier": "Brier score", "ece": "calibration error (ECE)", "f1": "F1",
    "macro_f1": "macro F1", "mcc": "Matthews correlation", "mae": "mean absolute error",
    "quadratic_kappa": "quadratic kappa",
    "ppv": "positive predictive value", "npv": "negative predictive value",
}  # fmt: skip
CLAIMS = {"better": ("▲", "better"), "worse": ("▼", "worse"), "none": ("=", "no difference shown")}
NOT_ESTIMABLE = ("?", "not estimable")
_OF_SHORTCUTS = {"better": ("▲", "tells more"), "worse": ("▼", "tells less")}  # no merit, no fault


def present(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """A value with a true minus sign; "–" if there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.0f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    text = number(value, digits)
    return text if text[0] in "−–" else f"+{text}"


def count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def share(fraction: float) -> str:
    """0.1 -> "10 %"."""
    return f"{fraction * 100:.4g}\N{NO-BREAK SPACE}%"


def probability(p: float | None) -> str:
    if p is None or math.isnan(p):
        return "–"
    if p >= 0.1:
        return f"{p:.2f}"
    # Cut off, not rounded: 0.00996 is below 0.01 and has to look so.
    return (
        "<\N{NO-BREAK SPACE}0.001"
        if p < 0.001
        else str(Decimal(repr(p)).quantize(Decimal("0.0001"), ROUND_DOWN))
    )


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{number(low, digits)} to {number(high, digits)}"


def sized_intervals(results: Results, panel: Panel) -> str:
    """ "95 % intervals (350 test patients)"; without the number where values have different ones."""
    metric = results.headline(panel)
    sizes = {
        row.num_patients
        for row in results.summaries
        if (Panel(row.task, row.mode), row.metric) == (panel, metric)
        if (row.cohort, row.stratum) == ("all", "all")
    }
    size = f" ({count(sizes.pop())} test patients)" if len(sizes) == 1 else ""
    return f"{results.level}\N{NO-BREAK SPACE}% intervals{size}"


def span(values: Sequence[int | None]) -> str:
    """The range of a count over seeds: "231", or "229 to 231"."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = min(known), max(known)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def metric_name(metric: str) -> str:
    name, _, label = metric.partition("[")
    shown = _METRICS.get(name, name.replace("_", " "))
    return f"{shown} of {label.removesuffix(']')}" if label else shown


def mode_name(mode: str) -> str:
    """ "finetune:best head" -> "fine-tuning, best head"."""
    kind, sign, variant = mode.partition(":")
    corner = corner_of(mode)
    if corner is not None:
        return f"{MODES[kind]} of the corners alone ({corner} of a side each)"
    return MODES.get(kind, kind) + (f", {variant}" if sign else "")


def plateaus(results: Results, panel: Panel) -> list[str]:
    """ "critic, random initialisation (3 of 10 with 1 % of labels, 1 of 10 with 5 %)", one for each arm."""
    names, found = arm_names(results), defaultdict[str, list[str]](list)
    for row in results.plateaus:
        arm = results.by_name.get(row.arm)  # None of a snapshot
        if arm is None or (row.task, row.mode) != (panel.task, panel.mode) or not row.num_plateau:
            continue
        counts = found[f"{architecture_name(arm.architecture)}, {names[arm.name]}"]
        labels = "" if counts else " of labels"
        counts.append(f"{row.num_plateau} of {row.num_runs} with {share(row.fraction)}{labels}")
    return [f"{arm} ({', '.join(counts)})" for arm, counts in found.items()]


def stayed_at_chance(plateaus: Sequence[PlateauCount], pair: Comparison) -> str:
    """ "3 of 3 runs stayed at chance: an optimisation failure, no proof of a worse encoder", or "".

    Fine-tunings whose training loss stayed at that of a constant answer, in either arm of a comparison.
    """
    sides = {side: _stuck(plateaus, pair, side) for side in ("arm", "baseline")}
    of = {"arm": "", "baseline": " of the baseline"}
    counts = [f"{stuck} of {runs} runs{of[side]}" for side, (stuck, runs) in sides.items() if stuck]
    if not counts:
        return ""
    claim, ending = claim_of(pair), ""
    if claim in ("worse", "better"):
        stuck, runs = sides["arm" if claim == "worse" else "baseline"]  # of the side that lost
        if stuck == runs > 0:
            ending = f": an optimisation failure, no proof of a {claim} encoder"
        elif stuck:
            ending = ": in part an optimisation failure"
    elif any(stuck == runs > 0 for stuck, runs in sides.values()):
        ending = ": an optimisation failure"
    return f"{' and '.join(counts)} stayed at chance{ending}"


def any_stuck(plateaus: Sequence[PlateauCount], row: Comparison | LabelMultiplier) -> bool:
    """Whether a fine-tuning of either arm of a comparison, or of a label multiplier, stayed at chance."""
    return any(_stuck(plateaus, row, side)[0] for side in ("arm", "baseline"))


def _stuck(plateaus: Sequence[PlateauCount], row: Comparison | LabelMultiplier, side: str) -> tuple[int, int]:
    """Of one side of a comparison: runs that stayed at chance, and all runs."""
    place = (row.task, row.mode, row.fraction, row[side])
    found = [r for r in plateaus if (r.task, r.mode, r.fraction, r.arm) == place]
    return sum(r.num_plateau for r in found), sum(r.num_runs for r in found)


def architecture_name(architecture: str) -> str:
    """ "timm:resnet18" -> "ResNet-18"; "timm:vit_tiny_patch8_224" -> "ViT-Tiny/8"."""
    bare = architecture.partition(":")[2] or architecture
    if vit := _VIT.fullmatch(bare):
        return f"ViT-{vit['size'].capitalize()}/{vit['patch']} {vit['rest']}".strip()
    for prefix, name in _ARCHITECTURES.items():
        if bare.startswith(prefix):
            version = re.sub(r"(?<=\d)_(?=\d)", ".", bare.removeprefix(prefix))
            return name + version.replace("_", " ")
    return bare.replace("_", " ")


def objective_name(objective: str) -> str:
    return title(objective)


def arm_names(results: Results) -> dict[str, str]:
    """A name per arm within its architecture; the arm's own is added where two would read alike, and to
    random arms whose control is incomplete.
    """
    drafts = {arm.name: _draft(arm) for arm in results.arms}
    kinds = [(arm.architecture, drafts[arm.name]) for arm in results.arms]

    def plain(arm: Arm, kind: tuple[str, str]) -> bool:
        return kinds.count(kind) == 1 and not (arm.family == "random" and arm.control_reason)

    return {
        arm.name: drafts[arm.name] + ("" if plain(arm, kind) else f" ({arm.name})")
        for arm, kind in zip(results.arms, kinds, strict=True)
    }


def _draft(arm: Arm) -> str:
    if arm.family in FAMILY_NAMES:
        return FAMILY_NAMES[arm.family]
    if arm.objective in ("", "none"):
        return arm.name
    bound = f", upper bound: saw labels of {arm.labels}" if arm.labels else ""
    return f"{objective_name(arm.objective)} pretraining{pool_words(arm)}{bound}"


def pool_words(arm: Arm) -> str:
    """ ", 10 % of the pool", ", cohort check-like alone", or "" for the whole pool."""
    words = [f"{share(arm.pool_fraction)} of the pool"] if arm.pool_fraction < 1 else []
    if arm.pool_cohorts:
        words.append(f"cohort{'s' * (len(arm.pool_cohorts) > 1)} {' and '.join(arm.pool_cohorts)} alone")
    return "".join(f", {text}" for text in words)


def claim_of(pair: Comparison | None) -> str:
    """ "better", "worse", "none", or "" where it could not be estimated or tested."""
    return pair.claim if pair and present(pair.difference) and present(pair.p_holm) else ""


def claim_words(claim: str, shortcut: bool = False) -> tuple[str, str]:
    """(symbol, words); of a shortcut probe a higher score is not called better."""
    if shortcut and claim in _OF_SHORTCUTS:
        return _OF_SHORTCUTS[claim]
    return CLAIMS.get(claim, NOT_ESTIMABLE)


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}×" if value < 10 else f"{value:.3g}×"


def multiplier_value(row: LabelMultiplier) -> str:
    """ "3.2×"; a censored one "more than 10×" or "less than 0.1×"."""
    if row.value is None:
        return {
            "above": "more than the baseline's curve covers",
            "below": "less than the baseline's curve covers",
        }.get(row.censored, "not estimable")
    words = {"above": "more than ", "below": "less than "}.get(row.censored, "")
    return words + times(row.value)


def multiplier_interval(row: LabelMultiplier) -> str:
    """A bound that lies beyond the baseline's learning curve is null, and none is shown for it."""
    low, high = row.low, row.high
    if low is None and high is None:
        if row.value is None:
            return "–"
        return "no interval" if row.note else "not bounded by the curve"
    if high is None:
        return f"at least {times(low)}"
    return f"at most {times(high)}" if low is None else f"{times(low)} to {times(high)}"


def labels_phrase(results: Results, task: str, fraction: float) -> str:
    """ "10 % of labels (231 patients)": training patients really drawn, a range where seeds differ."""
    drawn = [s.num_train_patients for s in results.flow.subsets if s.task == task and s.fraction == fraction]
    labels = "all labels" if fraction == 1 else f"{share(fraction)} of labels"
    patients = span(drawn)
    return labels if patients == "–" else f"{labels} ({patients} training patients)"


def verdict_pair(pairs: Sequence[Comparison]) -> Comparison | None:
    """The comparison the sentence speaks of: at the smallest fraction that could be tested, if any."""
    known = [p for p in pairs if present(p.difference)]
    known.sort(key=lambda p: (not claim_of(p), p.fraction))
    return known[0] if known else None


def sentence(results: Results, panel: Panel, arm: Arm, pair: Comparison | None, name: str) -> dict[str, str]:
    """One arm's verdict in plain words: keys `claim`, `lead`, `words`, `ending`, `stuck`, `labels`."""
    metric = results.headline(panel)
    lead = f"{name[0].upper()}{name[1:]} of {architecture_name(arm.architecture)}"
    what = f"{metric_name(metric)} of {panel.task} by {mode_name(panel.mode)}"
    if pair is None:
        note = _why_not(results, panel, metric, arm)
        return {
            "claim": "",
            "lead": lead,
            "words": f"{what}: {note}.",
            "ending": "",
            "stuck": "",
            "labels": "",
        }
    with_labels = labels_phrase(results, panel.task, pair.fraction)
    row = results.summary(panel, metric, arm.name, pair.fraction)
    value = ""
    if row and present(row.value):
        bounds = f" ({results.level} % CI {interval(row.low, row.high, 2)})" if present(row.low) else ""
        value = f" is {number(row.value, 2)}{bounds},"
    claim = claim_of(pair)
    ending = {
        "better": "it paid" if arm.family not in ("imagenet", "random") and not arm.labels else "better",
        "worse": "it did worse",
        "none": CLAIMS["none"][1],
    }.get(claim, untested(pair))
    control = "random initialisation of the same network" if arm.family != "random" else "the control"
    words = f"{what} with {with_labels}{value} {difference(pair)} against {control}"
    words += f"; {_adjusted(pair)}:" if claim else ":"
    stuck = stayed_at_chance(results.plateaus, pair)
    worth = claim in ("better", "worse") and not stuck  # no effect of the encoder, no labels
    labels = _labels(results.multiplier(pair)) if worth else ""
    return {
        "claim": claim, "lead": lead, "words": words, "ending": ending, "stuck": stuck, "labels": labels,
    }  # fmt: skip


def against(results: Results, pair: Comparison, name: str) -> str:
    """ "Against ImageNet weights at 10 % of labels: +0.08 (0.03 to 0.13), Holm-adjusted p 0.004: better."."""
    return f"Against {name} at {share(pair.fraction)} of labels: {read_difference(results, pair)}."


def read_difference(results: Results, pair: Comparison) -> str:
    """ "+0.08 (0.03 to 0.13), Holm-adjusted p 0.0044: better", and fine-tunings that stayed at chance."""
    claim, stuck = claim_of(pair), stayed_at_chance(results.plateaus, pair)
    p = f", {_adjusted(pair)}" if claim else ""
    reading = claim_words(claim)[1] if claim else untested(pair)
    return f"{difference(pair)}{p}: {reading}" + (f" ({stuck})" if stuck else "")


def _adjusted(pair: Comparison) -> str:
    return f"Holm-adjusted p\N{NO-BREAK SPACE}{probability(pair.p_holm)}"


def untested(pair: Comparison) -> str:
    """ "not estimable", with the reason."""
    why = because(pair.note)
    return NOT_ESTIMABLE[1] + (f" ({why})" if why else "")


def point(pair: Comparison) -> str:
    """ "+0.08", rounded as `difference` rounds it."""
    return signed(pair.difference, _digits(pair))


def difference(pair: Comparison) -> str:
    """ "+0.08 (0.03 to 0.13)", with a third digit where two would hide the sign."""
    bounds = f" ({interval(pair.low, pair.high, _digits(pair))})" if claim_of(pair) else ""
    return point(pair) + bounds


def _digits(pair: Comparison) -> int:
    values = [pair[k] for k in ("difference", "low", "high") if present(pair[k])]
    return 2 if all(v == 0 or abs(v) >= 0.005 for v in values) else 3


def _labels(row: LabelMultiplier | None) -> str:
    if row is None or (row.value is None and not row.censored):
        return ""
    bounds = multiplier_interval(row)
    return f"Like having {multiplier_value(row)} the labels" + (f" ({bounds})." if bounds != "–" else ".")


def because(note: str | None) -> str:
    """A note beside the words "not estimable", which it need not say again."""
    return (note or "").replace("not estimable: ", "").removeprefix("not estimable")


def _why_not(results: Results, panel: Panel, metric: str, arm: Arm) -> str:
    def rows_of(name: str) -> list[MetricRow]:
        found = (results.summary(panel, metric, name, f) for f in results.fractions(panel))
        return [row for row in found if row]

    rows = rows_of(arm.name)
    if not rows:
        return "not run"
    if arm.control_reason:
        return f"not compared ({arm.control_reason})"
    if arm.control and not rows_of(arm.control):
        return f"not compared ({arm.control} has no such result)"
    notes = [because(r.note) for r in rows if r.value is None and r.note]
    return "not estimable" + (f" ({notes[0]})" if notes and notes[0] else "")
