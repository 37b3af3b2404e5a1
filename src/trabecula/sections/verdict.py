"""The verdict of a report: sentences and marks for every arm, and how often pretraining paid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from trabecula.artifacts.label_budget import fewest_first, is_shots, labels_used
from trabecula.artifacts.results import Comparison
from trabecula.comparison import arms
from trabecula.comparison.reach import reach_of_claims
from trabecula.metrics.bootstrap import MIN_SEEDS
from trabecula.sections import wording
from trabecula.sections.names import architecture_name, metric_name, mode_name
from trabecula.sections.numbers import interval, number, present, share
from trabecula.sections.provenance import without_paths
from trabecula.sections.results import Arm, Panel, Results


def against_random(results: Results) -> list[Comparison]:
    """The headline comparisons of every pretrained arm with its own network's control.

    An arm that learned from labels is not counted: it is an upper bound for pretraining without labels.
    """
    return [
        pair
        for panel in _panels(results)
        for pair in results.comparisons_of(panel, results.headline(panel))
        if results.with_control(pair) and results.by_name[pair.arm].family not in ("random", "imagenet")
        if not results.by_name[pair.arm].labels
    ]


def why_none(results: Results) -> str:
    """Why `against_random` holds nothing, in a few words."""
    if not _panels(results):
        return "every probe asks for a shortcut: there is nothing that pretraining could pay for"
    judged = [arm for arm in results.arms if not arm.labels]
    pretrained = any(arm.family not in ("random", "imagenet") for arm in judged)
    if len(judged) < len(results.arms) and not pretrained:
        return "the only pretraining learned from labels: an upper bound is not counted"
    return without_paths(arms.why_none((arm.family for arm in judged), results.comparisons.not_run))


def upper_bounds(results: Results) -> list[str]:
    """A sentence for each arm whose pretraining learned from labels."""
    return [
        f"{arm.network}, {arm.title}: learned from the {arm.taught_by or f'labels of {arm.labels}'}, more "
        "than an arm of a label fraction has: it is an upper bound and not counted"
        for arm in results.arms
        if arm.labels
    ]


def few_seeds(results: Results) -> str:
    """Which comparisons speak of the very networks that were trained, as too few seeds were; "" for none."""
    modes_of: dict[int, set[str]] = defaultdict(set)
    for pair in against_random(results):
        if wording.claim_of(pair) and pair.num_seeds < MIN_SEEDS:
            modes_of[pair.num_seeds].add(mode_name(pair.mode))
    if not modes_of:
        return ""
    modes = {num: " and ".join(sorted(names)) for num, names in sorted(modes_of.items())}
    few = "; ".join(f"{num} seed{'s' * (num > 1)} of {names}" for num, names in modes.items())
    return (
        f"{few[0].upper()}{few[1:]}: with fewer than {MIN_SEEDS} an interval is over new patients only. "
        "It speaks of these trained networks; another seed may say otherwise"
    )


def tally(results: Results) -> list[dict[str, Any]]:
    """How many comparisons say what, and in how many of them a run stayed at chance."""
    pairs, found = against_random(results), []
    for claim in ("better", "worse", "none", ""):
        symbol, words = wording.claim_words(claim)
        own = [pair for pair in pairs if wording.claim_of(pair) == claim]
        stuck = sum(wording.any_stuck(results.flow.plateaus, pair) for pair in own)
        words += f" ({stuck} with runs that stayed at chance)" if stuck else ""
        found.append({"claim": claim or "unknown", "symbol": symbol, "words": words, "number": len(own)})
    return found


def in_a_line(results: Results) -> str:
    """ "8 comparisons with random initialisation: 5 better, 2 worse, 1 with no difference shown"."""
    total = len(against_random(results))
    if not total:
        return f"no comparison with random initialisation ({why_none(results)})"
    counts = [
        f"{row['number']} {'with ' if row['claim'] == 'none' else ''}{row['words']}"
        for row in tally(results)
        if row["number"] or row["claim"] != "unknown"
    ]
    sentence = f"{total} comparison{'s' * (total > 1)} with random initialisation: {', '.join(counts)}"
    return "; ".join([sentence, *reach_of_claims(against_random(results))])


def verdicts(results: Results) -> list[dict[str, Any]]:
    """Of every panel that is no shortcut probe: per network a sentence and marks for each arm."""
    return [_verdict(results, panel) for panel in _panels(results)]


def _panels(results: Results) -> list[Panel]:
    return [panel for panel in results.panels if not results.is_shortcut(panel)]


def _verdict(results: Results, panel: Panel) -> dict[str, Any]:
    pairs = results.comparisons_of(panel, results.headline(panel))
    absent, networks = results.missing_imagenet(), []
    for architecture in results.architectures:
        control = results.control(architecture)
        lines = [_line(results, panel, arm, pairs) for arm in results.arms_of(architecture) if arm != control]
        lines.sort(key=lambda line: (line["arm"].family == "imagenet", line["arm"].family == "random"))
        not_run = without_paths(absent.get(architecture, ""))
        networks.append({"name": architecture_name(architecture), "lines": lines, "not_run": not_run})
    return {
        "task": panel.task, "mode": mode_name(panel.mode), "metric": metric_name(results.headline(panel)),
        "networks": networks, "plateaus": tuning_counts(results, panel),
        "below_probe": tuning_counts(results, panel, "num_below_probe"),
        "kept_probe": tuning_counts(results, panel, "num_kept_probe"),
        "best_at_end": tuning_counts(results, panel, "num_best_at_end"),
    }  # fmt: skip


def tuning_counts(results: Results, panel: Panel, key: str = "num_plateau") -> list[str]:
    """ "critic, random initialisation (3 of 10 with 1 % of labels, 1 of 10 with 5 %)", one for each arm."""
    found = defaultdict[str, list[str]](list)
    last: dict[str, bool] = {}  # whether an arm's budget before was of shots: a change needs all words
    for row in panel.of(results.flow.plateaus):
        arm = results.by_name.get(row.arm)  # None of a snapshot
        num = getattr(row, key)
        if arm is not None and num:
            counts, shots = found[f"{arm.network}, {arm.title}"], is_shots(row.fraction)
            labels = share(row.fraction) if last.get(arm.name) == shots else labels_used(row.fraction)
            last[arm.name] = shots
            counts.append(f"{num} of {row.num_runs} with {labels}")
    return [f"{arm} ({', '.join(counts)})" for arm, counts in found.items()]


def _line(results: Results, panel: Panel, arm: Arm, pairs: list[Comparison]) -> dict[str, Any]:
    own = [p for p in pairs if p.arm == arm.name and p.same_architecture]
    random = {p.fraction: p for p in own if results.with_control(p)}
    text = _sentence(results, panel, arm, verdict_pair(list(random.values())))
    marks = []
    for fraction in results.fractions(panel) if random else ():
        pair = random.get(fraction)
        claim = wording.claim_of(pair)
        symbol, words = wording.claim_words(claim)
        marks.append({
            "claim": claim or "unknown", "symbol": symbol, "words": words, "share": share(fraction),
            "stuck": wording.stayed_at_chance(results.flow.plateaus, pair) if pair else "",
            "difference": wording.point(pair) if pair and claim else "",
        })  # fmt: skip
    return {"arm": arm, **text, "marks": marks, "others": _others(results, arm, own)}


def verdict_pair(pairs: Sequence[Comparison]) -> Comparison | None:
    """The comparison the sentence speaks of: at the smallest fraction that could be tested, if any."""
    known = [p for p in pairs if present(p.difference)]
    return min(known, key=lambda p: (not wording.claim_of(p), fewest_first(p.fraction)), default=None)


def _sentence(results: Results, panel: Panel, arm: Arm, pair: Comparison | None) -> dict[str, str]:
    """One arm's verdict in plain words: keys `claim`, `lead`, `words`, `ending`, `stuck`, `labels`."""
    metric = results.headline(panel)
    text = dict.fromkeys(("claim", "lead", "words", "ending", "stuck", "labels"), "")
    text["lead"] = f"{arm.title[0].upper()}{arm.title[1:]} of {arm.network}"
    text["words"] = f"{metric_name(metric)} of {panel.task} by {mode_name(panel.mode)}"
    if pair is None:
        text["words"] += f": {_why_not(results, panel, metric, arm)}."
        return text
    claim, stuck = wording.claim_of(pair), wording.stayed_at_chance(results.flow.plateaus, pair)
    row = results.summary(panel, metric, arm.name, pair.fraction)
    text["words"] += f" with {wording.labels_phrase(results, panel.task, pair.fraction)}"
    if row and present(row.value):
        bounds = f" ({results.level} % CI {interval(row.low, row.high, 2)})" if present(row.low) else ""
        text["words"] += f" is {number(row.value, 2)}{bounds},"
    control = "random initialisation of the same network" if arm.family != "random" else "the control"
    text["words"] += f" {wording.difference(pair)} against {control}"
    text["words"] += f"; {wording.adjusted(pair)}:" if claim else ":"
    text["ending"] = {
        "better": "it paid" if arm.family not in ("imagenet", "random") and not arm.labels else "better",
        "worse": "it did worse",
        "none": wording.CLAIMS["none"][1],
    }.get(claim, wording.untested(pair))
    text["ending"] += f" ({pair.note})" if claim and pair.note else ""
    shown = claim in ("better", "worse") and not stuck  # else no effect of the encoder, no labels
    worth = wording.worth(results.multiplier(pair), " the labels") if shown else ""
    text["labels"] = f"Like having {worth}." if worth else ""
    return text | {"claim": claim, "stuck": stuck}


def _why_not(results: Results, panel: Panel, metric: str, arm: Arm) -> str:
    fractions = results.fractions(panel)
    found = {
        name: [row for f in fractions if (row := results.summary(panel, metric, name, f))]
        for name in (arm.name, arm.control or "")
    }
    rows = found[arm.name]
    if not rows:
        return "not run"
    if arm.control_reason:
        return f"not compared ({arm.control_reason})"
    if arm.control and not found[arm.control]:
        return f"not compared ({arm.control} has no such result)"
    notes = [wording.because(r.note) for r in rows if r.value is None and r.note]
    return "not estimable" + (f" ({notes[0]})" if notes and notes[0] else "")


def _others(results: Results, arm: Arm, own: list[Comparison]) -> list[str]:
    """Sentences on the other baselines: ImageNet weights, and random weights trained in another way.

    Of arms that differ in their pool alone only the one of the largest has the latter.
    """
    found, smaller = [], {row.arm for row in results.comparisons.pools}
    for baseline in dict.fromkeys(p.baseline for p in own if not results.with_control(p)):
        other = results.by_name[baseline]
        pair = verdict_pair([p for p in own if p.baseline == baseline])
        if pair and not (other.family == "random" and arm.name in smaller):
            name = "ImageNet weights" if other.family == "imagenet" else other.title
            reading = wording.read_difference(results, pair)
            found.append(f"Against {name} at {labels_used(pair.fraction)}: {reading}.")
    return found
