"""What a person reads of a run's folder: what it is, what went in, how it went, what to do with it next.

Reads the artifacts; no weights are loaded, no statistic is computed, and no patient's hash is shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from trabecula.artifacts import classifier, encoder, features, generator, predictions, results, store
from trabecula.artifacts.label_budget import fewest_first
from trabecula.artifacts.results import MetricRow
from trabecula.artifacts.run_record import is_done, is_started, read_log, read_provenance, read_run
from trabecula.artifacts.training import read_training
from trabecula.comparison.arms import taught_by
from trabecula.config import dump, read_toml
from trabecula.files import read_json
from trabecula.objectives import title
from trabecula.recipe import not_run_lines
from trabecula.sections.names import FAMILY_NAMES, architecture_name, metric_name, mode_name
from trabecula.sections.numbers import count, interval, number, share, signed
from trabecula.sections.results import FAMILIES
from trabecula.sections.wording import claim_of, claim_words, stayed_at_chance
from trabecula.summaries.model_card import describe_pixels, image_kind

Row = Mapping[str, Any]

_MONITORS = (("rank", "effective rank", 1), ("spread", "spread", 3), ("knn", "neighbours", 3))
_PARENTS = ("predictions", "features", "classifier", "encoder", "store")  # inputs that runs are made from
_LONG = 12  # lines of a part: more are counted
_INITS = {
    "random": "random weights", "weights": "given weights", "package": "weights of a package",
    "encoder": "another encoder's weights",
}  # fmt: skip


@dataclass
class RunCard:
    """Lines of (what, text), and commands to go on with."""

    title: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def add(self, what: str, text: str) -> None:
        """A line, unless there is nothing to say."""
        if text:
            self.lines.append((what, text))


def record(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    return read_json(file, "trabecula") if file.exists() else {}


def input_path(folder: Path, key: str) -> str:
    """Where an input of this run lay, or of the runs that it was made from; "" if not known."""
    given = read_provenance(folder).get("inputs") or {}
    if given.get(key):
        return str(given[key][0])
    made_from = [Path(path) for parent in _PARENTS for path in given.get(parent) or ()]
    return next(filter(None, (input_path(path, key) for path in made_from)), "")


def _task(folder: Path) -> str:
    """The task by which the patients were split, as an option; RULE where none is known."""
    splits = input_path(folder, "splits")
    task = read_run(Path(splits)).settings.get("task") if splits and is_started(Path(splits)) else None
    return "-s " + quote(f"task={json.dumps(task if isinstance(task, str) and task else 'RULE')}")


def _report(folder: Path) -> str:
    """The report of an evaluation, with the runs behind it and the store of its pictures."""
    given = read_provenance(folder).get("inputs") or {}
    behind = [Path(path) for key in ("predictions", "encoders") for path in given.get(key) or ()]
    features = [path for run in behind if (path := input_path(run, "features"))]
    options = [("runs", path) for path in dict.fromkeys([*map(str, behind), *features])]
    options += [("store", path)] if (path := input_path(folder, "store")) else []
    known = "".join(f" --{key} {quote(path)}" for key, path in options)
    return f"trabecula report --results {_quoted(folder)} {_inputs(folder, 'manifest')}{known} --out REPORT"


def _quoted(folder: Path) -> str:
    """A path as a shell takes it for one word."""
    return quote(str(folder))


def _inputs(folder: Path, *keys: str) -> str:
    """Options for a command: "--store runs/store --splits SPLITS", in capitals what is not known."""
    known = {key: input_path(folder, key) for key in keys}
    return " ".join(f"--{key} {quote(path) if path else key.upper()}" for key, path in known.items())


def duration(folder: Path) -> str:
    """From the first line of the log to the last; a run that was stopped in between took less."""
    times = [line["time"] for line in read_log(folder) if isinstance(line.get("time"), int | float)]
    if len(times) < 2:
        return ""
    minutes, seconds = divmod(round(max(times) - min(times)), 60)
    took = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    on = read_provenance(folder).get("device")
    ended = datetime.fromtimestamp(max(times)).strftime("%Y-%m-%d %H:%M")
    return f"{took}{f' on {on}' if on else ''}, ended {ended}"


def read_card(folder: Path) -> RunCard | None:
    """The card of a run's folder by what is in it; None where there is nothing of its own to show."""
    readers = {
        classifier.CARD_FILE: _classifier, encoder.CARD_FILE: _encoder, predictions.CHOICES: _choices,
        results.METRICS: _evaluation, features.CARD_FILE: _features, store.RECORD_FILE: _store,
        "export.json": _export,
    }  # fmt: skip
    reader = next((reader for name, reader in readers.items() if (folder / name).exists()), None)
    return reader(folder) if reader else None


def _evaluation(folder: Path) -> RunCard:
    """Its main metric by arm and share of labels, and the claims."""
    metrics, (comparisons, flow) = results.read_metrics(folder), results.read_counts(folder)
    rows = [row for row in metrics.rows if (row.seed, row.cohort, row.stratum) == ("all", "all", "all")]
    made = RunCard(f"an evaluation of {len({row.arm for row in rows})} arms")
    for task, counts in flow.tasks.items():
        test = counts.parts.get("test") or {}
        size = f"{count(test.get('images'))} images of {count(test.get('patients'))} patients"
        made.add("test part", f"{task}: {size}")
    for arm in flow.incomplete:
        made.add("left out", f"{arm.name}: {arm.reason}")
    groups: dict[tuple[str, str], list[MetricRow]] = {}
    for row in _headlines(rows):
        place = metric_name(row.metric), f"{row.task}, {mode_name(row.mode)}"
        groups.setdefault(place, []).append(row)
    for (metric, where), own in groups.items():
        made.add(metric, f"of {where}:")
        for row in own[:_LONG]:
            value = f"{number(row.value)} ({interval(row.low, row.high)})"
            seeds = f"{count(row.num_seeds)} seed{'s' * (row.num_seeds != 1)}"
            made.add("", f"  {row.arm}, {share(row.fraction)}: {value}, {seeds}")
        made.add("", _more(own))
    claims = [pair for pair in comparisons.pairs if claim_of(pair) in ("better", "worse")]
    for pair in claims[:_LONG]:
        size = f"{signed(pair.difference)} ({interval(pair.low, pair.high)})"
        where = f"{pair.task}, {mode_name(pair.mode)}, {share(pair.fraction)}"
        stuck = stayed_at_chance(flow.plateaus, pair)
        text = f"{pair.arm} than {pair.baseline} by {size}: {where}{f' ({stuck})' if stuck else ''}"
        made.add(claim_words(pair.claim)[1], text)
    tested = sum(bool(claim_of(pair)) for pair in comparisons.pairs)
    none = f"none: {tested} of {len(comparisons.pairs)} comparisons could be tested"
    made.add("claims", _more(claims) if claims else none)
    made.add("intervals", f"{metrics.level * 100:.4g} %, {count(metrics.num_resamples)} resamples")
    made.commands = [_report(folder)]
    return made


def _headlines(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """One metric a task: the first there of those that the report leads with."""
    worst_first = ("balanced_accuracy", "auroc_macro", "auroc")
    best = {row.task: metric for metric in worst_first for row in rows if row.metric == metric}
    return [row for row in rows if row.metric == best.get(row.task)]


def _more(rows: Sequence[Any]) -> str:
    return f"  and {len(rows) - _LONG} more" if len(rows) > _LONG else ""


def read_study(folder: Path) -> RunCard:
    """A study's folder: its stages, what is done, what was not run, and where the report lies."""
    cells = record(folder / "cells.json")
    made = RunCard(str(cells.get("title") or "a study"))
    stages: dict[str, list[bool]] = {}
    for cell in cells.get("cells", ()):
        stages.setdefault(cell["stage"], []).append(is_done(folder / cell["folder"]))
    for stage, done in stages.items():
        made.add(stage, f"{len(done)} done" if all(done) else f"{sum(done)} of {len(done)} done")
    recipe = folder / "recipe.toml"
    for text in not_run_lines(read_toml(recipe) if recipe.exists() else {}, cells.get("not_run") or {}):
        made.add("not run", text)
    made.add("report", str(folder / "report.html") if (folder / "report.html").exists() else "none yet")
    evaluations = [cell["folder"] for cell in cells.get("cells", ()) if cell["verb"] == "evaluate"]
    made.commands = [f"trabecula show {_quoted(folder / its)}" for its in evaluations[:1]]
    if not stages or not all(map(all, stages.values())):
        made.commands = [f"trabecula study {_quoted(recipe)} --out {_quoted(folder)}"]
    return made


def _encoder(folder: Path) -> RunCard:
    card = dump(encoder.read_encoder_card(folder))
    training = read_training(folder)
    made = RunCard(f"{card.get('name')}: an encoder")
    network = f"{architecture_name(card['architecture'])} ({card['architecture']})"
    made.add("network", f"{network}, {count(card['num_features'])} features, pool {card['pool']}")
    made.add("input", _input(card))
    made.add("start", _start(card))
    made.add("objective", _objective(card))
    made.add("settings", _main_settings(card.get("settings") or {}))
    made.add("pool", _pool(folder, card))
    if card.get("images_seen"):
        batch = f", in batches of {card['batch_size']}" if card.get("batch_size") else ""
        made.add("seen", f"{count(card['images_seen'])} images, each counted every time{batch}")
    made.add("time", duration(folder))
    made.add("loss", _losses(training))
    made.add("monitors", _monitors(training))
    for finding in training.get("findings") or ():
        span = f"from {count(finding['first'])} to {count(finding['last'])} images"
        made.add("warning", f"{span}: {finding['text']}")
    made.add("patients", _patients(card))
    others = {generator.CARD_FILE: "a generator", encoder.CRITIC_FILE: "its critic",
              generator.SAMPLES_FILE: "samples", "snapshots": "snapshots on the way"}  # fmt: skip
    made.add("also here", ", ".join(text for name, text in others.items() if (folder / name).exists()))
    labelled = f"{_inputs(folder, 'store', 'manifest', 'splits')} {_task(folder)}"
    made.commands = [
        f"trabecula embed --encoder {_quoted(folder)} {_inputs(folder, 'store')} --out FEATURES",
        f"trabecula finetune --encoder {_quoted(folder)} {labelled} --out CLASSIFIER",
        f"trabecula export --encoder {_quoted(folder)} --out EXPORT",
    ]
    return made


def _input(card: Row) -> str:
    kind, mean, std = describe_pixels(card)
    stem = "" if card.get("stem", "native") == "native" else f", stem {card['stem']}"
    return f"{kind} images of {card['size']} px in [0, 1], mean {mean}, deviation {std}{stem}"


def _start(card: Row) -> str:
    """ "random weights, seed 0"; "given weights: facebook/dinov2-small@..."."""
    start = _INITS.get(card.get("init", "random"), str(card.get("init")))
    weights = str(card.get("weights") or "").partition(" sha256:")[0]
    return start + (f": {weights}" if weights else "") + f", seed {card.get('seed', 0)}"


def _objective(card: Row) -> str:
    if card.get("objective", "none") == "none":
        family = card.get("family", "random")
        kind = FAMILY_NAMES.get(family, family) if family in FAMILIES else str(family)
        return f"none: an arm with {kind}, no pretraining"
    taught = f", from the {by}: an upper bound" if (by := taught_by(card)) else ""
    return title(card["objective"]) + taught


def _main_settings(settings: Mapping[str, Any]) -> str:
    """The method's own numbers, and each optimizer's name and rate; views and the rest are left out."""
    shown = {key: _short(value) for key, value in settings.items()}
    parts = [f"{key} {text}" for key, text in shown.items() if text]
    for key, group in settings.items():
        if isinstance(group, Mapping) and "lr" in group:
            name = f"{group['name']} " if "name" in group else ""
            parts.append(f"{key} {name}lr {_short(group['lr'])}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    """A number or a text; "" of anything else."""
    if value is None or isinstance(value, Mapping | list | tuple):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pool(folder: Path, card: Row) -> str:
    drawn = [line for line in read_log(folder) if line.get("event") == "pool"]
    parts = [f"{count(pool['images'])} images of {count(pool['patients'])} patients" for pool in drawn[-1:]]
    if card.get("pool_fraction", 1) < 1:
        parts.append(f"{share(card['pool_fraction'])} of the pool's patients")
    if card.get("pool_cohorts"):
        parts.append(f"cohorts {', '.join(card['pool_cohorts'])}")
    return ", ".join(parts)


def _losses(training: Row) -> str:
    """The first and the last mean of each loss."""
    points = training.get("points") or []
    names = list(dict.fromkeys(key for point in points for key in point if key.endswith("loss")))
    parts = []
    for name in names:
        values = [point[name] for point in points if name in point]
        label = f"{name.removesuffix('/loss')} " if name.endswith("/loss") else ""
        alone = ", the mean of the whole run: it has one point"
        parts.append(f"{label}{number(values[0])}{f' to {number(values[-1])}' if len(points) > 1 else alone}")
    return ", ".join(parts[:3])


def _monitors(training: Row) -> str:
    """Each monitor's last value, and where it began."""
    start, points = training.get("start") or {}, training.get("points") or []
    parts = []
    for key, name, digits in _MONITORS:
        values = [point[f"monitor/{key}"] for point in points if f"monitor/{key}" in point]
        if values:
            began = start.get(f"monitor/{key}")
            before = f" (at the start {number(began, digits)})" if began is not None else ""
            parts.append(f"{name} {number(values[-1], digits)}{before}")
    return ", ".join(parts)


def _patients(card: Row) -> str:
    """How many are known; never their marks."""
    if num := len(card.get("patients") or ()):
        return f"{num:,}, known to this site's evaluate as marks under key {card.get('patients_key')}"
    unlisted = "not listed: evaluate refuses it, as nobody can tell whether it saw a test patient"
    return unlisted if card.get("images_seen") else ""


def _classifier(folder: Path) -> RunCard:
    card = record(folder / classifier.CARD_FILE)
    origin, choice, began = card["origin"], card["choice"], card["encoder"]
    made = RunCard(f"{origin['arm']} for {origin['task']}: a classifier")
    rule = card["task"].get("positive") or ", ".join(card["class_names"])
    # such as "kl2, binary: kl >= 2"
    made.add("predicts", f"{origin['task']}, {card['task'].get('kind', '')}: {rule}")
    head = card.get("head", "linear")
    network = f"{architecture_name(began['architecture'])} ({began['architecture']})"
    made.add("network", f"{network}, head {head.get('name') if isinstance(head, Mapping) else head}")
    made.add("input", _input({**began, "size": card["size"]}))
    made.add("encoder", f"{_start(began)}; {_objective(began)}")
    made.add("labels", _labels(origin, choice))
    thresholds = ", ".join(f"{float(value):.4g}" for value in choice.get("threshold") or ())
    made.add("threshold", f"{thresholds} (chosen on validation)" if thresholds else "")
    made.add("trained", f"{count(choice['images_seen'])} images seen" if choice.get("images_seen") else "")
    made.add("time", duration(folder))
    made.add("note", str(choice.get("note") or ""))
    made.commands = [
        f"trabecula predict --classifier {_quoted(folder)} --store STORE --out PREDICTED",
        _evaluate(folder),
        f"trabecula export --classifier {_quoted(folder)} --out EXPORT",
    ]
    return made


def _evaluate(folder: Path) -> str:
    encoder = input_path(folder, "encoder")
    inputs = f"--encoders {quote(encoder) if encoder else 'ENCODER'} {_inputs(folder, 'manifest', 'splits')}"
    return f"trabecula evaluate --predictions {_quoted(folder)} {inputs} --out RESULTS"


def _labels(origin: Row, choice: Row) -> str:
    keys = ("train_images", "train_patients", "val_images", "val_patients")
    images, patients, val_images, val_patients = (count(int(choice[f"num_{key}"])) for key in keys)
    part = f"{share(float(origin['fraction']))} (seed {origin['seed']})"
    return f"{part}: {images} images of {patients} patients, {val_images} of {val_patients} to choose by"


def _choices(folder: Path) -> RunCard:
    """A probe, or a fine-tuning whose classifier was not kept."""
    rows = predictions.choice_rows(folder)
    if not rows:
        return RunCard("predictions of no model")
    first = rows[0]
    made = RunCard(f"{first['arm']} for {first['task']}: {mode_name(first['mode'])}")
    seen: dict[float, list[Row]] = {}
    for row in rows:
        seen.setdefault(float(row["fraction"]), []).append(row)
    for _, own in sorted(seen.items(), key=lambda item: fewest_first(item[0])):
        more = f", and {len(own) - 1} more seeds" if len(own) > 1 else ""
        made.add("" if made.lines else "labels", _labels(own[0], own[0]) + more)
    notes = Counter(row["note"] for row in rows if row.get("note"))
    for note, num in notes.most_common(_LONG):
        made.add("note", f"{note} ({num} of {len(rows)})" if len(rows) > 1 else note)
    made.add("time", duration(folder))
    made.commands = [_evaluate(folder)]
    return made


def _features(folder: Path) -> RunCard:
    card = record(folder / features.CARD_FILE)
    made = RunCard(f"{card.get('arm')}: features of {count(card.get('num'))} images")
    made.add("features", f"{count(card.get('num_features'))}, pool {card.get('pool')}, {card.get('dtype')}")
    made.add("region", "" if card.get("region", "all") == "all" else str(card["region"]))
    inputs = f"{_inputs(folder, 'manifest', 'splits')} {_task(folder)}"
    made.commands = [f"trabecula probe --features {_quoted(folder)} {inputs} --out PROBE"]
    return made


def _store(folder: Path) -> RunCard:
    card = dump(store.read_store_record(folder))
    made = RunCard(f"a store of {count(card.get('num_images'))} images")
    made.add("images", f"{image_kind(card['channels'])}, {card.get('size')} px, {card.get('bits')} bits")
    rejected = card.get("num_rejected") or 0
    made.add("rejected", f"{rejected:,}, see {store.REJECTED_FILE}" if rejected else "none")
    inputs = f"--store {_quoted(folder)} --splits SPLITS"  # a store knows no splits
    made.commands = [f"trabecula pretrain {inputs} -s objective=moco --out ENCODER"]
    return made


def _export(folder: Path) -> RunCard:
    card = record(folder / "export.json")
    made = RunCard(f"{card.get('arm')}: what may leave")
    made.add("files", ", ".join(sorted(path.name for path in (folder / "hub").glob("*"))))
    for name, difference in (card.get("differences") or {}).items():
        if difference is None:
            made.add("not checked", f"{name}: it was not installed")
        else:
            made.add("checked", f"{name}: largest difference {difference:.1g} of the largest feature")
    for line in card.get("impossible") or ():
        made.add("not possible", line)
    return made
