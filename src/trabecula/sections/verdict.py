"""The verdict of a report: sentences and marks for every arm, and how often pretraining paid."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from trabecula.artifacts.results import Comparison
from trabecula.comparison import arms
from trabecula.metrics.bootstrap import MIN_SEEDS
from trabecula.sections import wording
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
    reason = arms.why_none((arm.family for arm in judged), results.comparisons.not_run)
    return without_paths(reason)


def upper_bounds(results: Results) -> list[str]:
    """A sentence for each arm whose pretraining learned from labels."""
    names = wording.arm_names(results)
    taught = {row.arm: row.taught_by for row in results.flow.arms}
    return [
        f"{wording.architecture_name(arm.architecture)}, {names[arm.name]}: learned from the "
        f"{taught[arm.name] or f'labels of {arm.labels}'}, more than an arm of a label fraction has: it is "
        "an upper bound and not counted"
        for arm in results.arms
        if arm.labels
    ]


def few_seeds(results: Results) -> str:
    """Which comparisons speak of the very networks that were trained, as too few seeds were; "" for none."""
    modes_of: dict[int, set[str]] = defaultdict(set)
    for pair in against_random(results):
        if wording.claim_of(pair) and pair.num_seeds < MIN_SEEDS:
            modes_of[pair.num_seeds].add(wording.mode_name(pair.mode))
    if not modes_of:
        return ""
    few = "; ".join(
        f"{num} seed{'s' * (num > 1)} of {' and '.join(sorted(modes_of[num]))}" for num in sorted(modes_of)
    )
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
        stuck = sum(wording.any_stuck(results.plateaus, pair) for pair in own)
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
    return f"{total} comparison{'s' * (total > 1)} with random initialisation: {', '.join(counts)}"


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
        networks.append(
            {
                "name": wording.architecture_name(architecture),
                "lines": lines,
                "not_run": without_paths(absent.get(architecture, "")),
            }
        )
    return {
        "task": panel.task,
        "mode": wording.mode_name(panel.mode),
        "metric": wording.metric_name(results.headline(panel)),
        "networks": networks,
        "plateaus": wording.plateaus(results, panel),
    }


def _line(results: Results, panel: Panel, arm: Arm, pairs: list[Comparison]) -> dict[str, Any]:
    own = [p for p in pairs if p.arm == arm.name and p.same_architecture]
    random = {p.fraction: p for p in own if results.with_control(p)}
    name = wording.arm_names(results)[arm.name]
    pair = wording.verdict_pair(list(random.values()))
    text = wording.sentence(results, panel, arm, pair, name)
    if pair is not None and text["claim"] and pair.note:
        text["ending"] += f" ({pair.note})"
    marks = []
    for fraction in results.fractions(panel) if random else ():
        claim = wording.claim_of(random.get(fraction))
        symbol, words = wording.claim_words(claim)
        shown = wording.point(random[fraction]) if claim else ""
        pair = random.get(fraction)
        stuck = wording.stayed_at_chance(results.plateaus, pair) if pair else ""
        marks.append({"claim": claim or "unknown", "symbol": symbol, "words": words, "stuck": stuck,
                      "share": wording.share(fraction), "difference": shown})  # fmt: skip
    return {"arm": arm, "name": name, **text, "marks": marks, "others": _others(results, arm, own)}


def _others(results: Results, arm: Arm, own: list[Comparison]) -> list[str]:
    """Sentences on the other baselines: ImageNet weights, and random weights trained in another way.

    Of arms that differ in their pool alone only the one of the largest has the latter; the others stand in
    the table of comparisons.
    """
    names, said = wording.arm_names(results), []
    smaller = {row.arm for row in results.pools}
    for baseline in dict.fromkeys(p.baseline for p in own if not results.with_control(p)):
        family = results.by_name[baseline].family
        if family == "random" and arm.name in smaller:
            continue
        other = wording.verdict_pair([p for p in own if p.baseline == baseline])
        if other:
            called = "ImageNet weights" if family == "imagenet" else names[baseline]
            said.append(wording.against(results, other, called))
    return said
