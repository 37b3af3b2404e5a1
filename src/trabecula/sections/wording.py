"""What comparisons and label multipliers say, in words."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.artifacts.label_budget import labels_used
from trabecula.artifacts.results import Comparison, LabelMultiplier, TuningCount
from trabecula.sections.numbers import count, interval, present, probability, signed, span, times
from trabecula.sections.results import Panel, Results

CLAIMS = {"better": ("▲", "better"), "worse": ("▼", "worse"), "none": ("=", "no difference shown")}
NOT_ESTIMABLE = ("?", "not estimable")
_OF_SHORTCUTS = {"better": ("▲", "tells more"), "worse": ("▼", "tells less")}  # no merit, no fault


def claim_of(pair: Comparison | None) -> str:
    """ "better", "worse", "none", or "" where it could not be estimated or tested."""
    return pair.claim if pair and present(pair.difference) and present(pair.p_holm) else ""


def claim_words(claim: str, shortcut: bool = False) -> tuple[str, str]:
    """(symbol, words); of a shortcut probe a higher score is not called better."""
    if shortcut and claim in _OF_SHORTCUTS:
        return _OF_SHORTCUTS[claim]
    return CLAIMS.get(claim, NOT_ESTIMABLE)


def because(note: str | None) -> str:
    """A note beside the words "not estimable", which it need not say again."""
    return (note or "").replace("not estimable: ", "").removeprefix("not estimable")


def stayed_at_chance(plateaus: Sequence[TuningCount], pair: Comparison) -> str:
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


def any_stuck(plateaus: Sequence[TuningCount], row: Comparison | LabelMultiplier) -> bool:
    """Whether a fine-tuning of either arm of a comparison, or of a label multiplier, stayed at chance."""
    return any(_stuck(plateaus, row, side)[0] for side in ("arm", "baseline"))


def _stuck(plateaus: Sequence[TuningCount], row: Comparison | LabelMultiplier, side: str) -> tuple[int, int]:
    """Of one side of a comparison: runs that stayed at chance, and all runs."""
    place = (row.task, row.mode, row.fraction, row[side])
    found = [r for r in plateaus if (r.task, r.mode, r.fraction, r.arm) == place]
    return sum(r.num_plateau for r in found), sum(r.num_runs for r in found)


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


def adjusted(pair: Comparison) -> str:
    return f"Holm-adjusted p\N{NO-BREAK SPACE}{probability(pair.p_holm)}"


def untested(pair: Comparison) -> str:
    """ "not estimable", with the reason."""
    why = because(pair.note)
    return NOT_ESTIMABLE[1] + (f" ({why})" if why else "")


def read_difference(results: Results, pair: Comparison) -> str:
    """ "+0.08 (0.03 to 0.13), Holm-adjusted p 0.0044: better", and fine-tunings that stayed at chance."""
    claim, stuck = claim_of(pair), stayed_at_chance(results.flow.plateaus, pair)
    p = f", {adjusted(pair)}" if claim else ""
    reading = claim_words(claim)[1] if claim else untested(pair)
    return f"{difference(pair)}{p}: {reading}" + (f" ({stuck})" if stuck else "")


def multiplier_value(row: LabelMultiplier) -> str:
    """ "3.2×"; a censored one "more than 10×" or "less than 0.1×"."""
    words = {"above": "more than ", "below": "less than "}.get(row.censored, "")
    if row.value is None:
        return f"{words}the baseline's curve covers" if words else NOT_ESTIMABLE[1]
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


def worth(row: LabelMultiplier | None, what: str = "") -> str:
    """ "3.2× the labels (1.8× to 9.4×)", with `what` after the number; "" where it is not known."""
    if row is None or (row.value is None and not row.censored):
        return ""
    bounds = multiplier_interval(row)
    return f"{multiplier_value(row)}{what}" + (f" ({bounds})" if bounds != "–" else "")


def labels_phrase(results: Results, task: str, fraction: float) -> str:
    """ "10 % of labels (231 patients)": training patients really drawn, a range where seeds differ."""
    drawn = [s.num_train_patients for s in results.flow.subsets if s.task == task and s.fraction == fraction]
    labels = "all labels" if fraction == 1 else labels_used(fraction)
    patients = span(drawn)
    return labels if patients == "–" else f"{labels} ({patients} training patients)"


def sized_intervals(results: Results, panel: Panel) -> str:
    """ "95 % intervals (350 test patients)"; without the number where values have different ones."""
    metric = results.headline(panel)
    sizes = {
        row.num_patients
        for row in panel.of(results.summaries)
        if (row.metric, row.cohort, row.stratum) == (metric, "all", "all")
    }
    size = f" ({count(sizes.pop())} test patients)" if len(sizes) == 1 else ""
    return f"{results.level}\N{NO-BREAK SPACE}% intervals{size}"
