"""What a network sees: where its score comes from, what raises it most, and which units go with the label.

    explain.json            every number
    gradcam.png, gradcam/   Grad-CAM of a classifier (or of a critic's score) on chosen images
    maximise.png, climb.svg the images that raise the critic's score most, and the way up
    units.svg               correlation of units of the last layers with the label

Grad-CAM needs `classifier`, or an `encoder` folder with a critic; maximising needs the critic; units need
`encoder`, `manifest` and `task`. Without image_ids the validation images with the highest and the lowest
probability are shown. Units are asked on training and validation images, never on test images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts import explanation as records
from trabecula.artifacts.encoder import check_fit, folder_of, has_critic
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import Splits, read_splits
from trabecula.artifacts.store import Store, rows_of, to_float
from trabecula.artifacts.tasks import Truth, find_task, truth
from trabecula.config import Record, dump
from trabecula.errors import InputError
from trabecula.figures.charts import chart_file
from trabecula.figures.image_sheets import to_uint8
from trabecula.interpretability import gradcam, maximise, scorers, units
from trabecula.metrics.correlation import permuted_labels
from trabecula.nets.devices import choose_device, exact
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.run import Run
from trabecula.sections import explanations

Part = Literal["gradcam", "maximise", "units"]
Explained = tuple[records.ExplainedArm, str]
"""A part of explain.json, and what the summary says of it."""


class Config(Record):
    """Settings of `explain`."""

    store: Path
    """Prepared images."""
    classifier: Path | None = None
    """A folder written by `finetune`: Grad-CAM of its predictions."""
    encoder: Path | None = None
    """A folder written by `pretrain`, or a snapshot: its critic, if it has one, and its units."""
    manifest: Path | None = None
    """manifest.csv with the labels."""
    splits: Path | None = None
    """splits.csv by patient; needed but for Grad-CAM of images by name."""
    task: str = ""
    """Units: a binary or ordinal task of tasks.json, or a rule such as "kl >= 2"."""
    parts: tuple[Part, ...] = ()
    """What is done; empty: all that the inputs allow."""
    image_ids: tuple[str, ...] = ()
    """Grad-CAM: these images; empty: the extremes of the validation part."""
    num_extremes: int = Field(4, ge=1)
    """Grad-CAM: images with the highest probability, and as many with the lowest."""
    target: str = ""
    """Grad-CAM: the class that is explained; empty: the last, which for a binary task is the positive one."""
    layer: str = ""
    """Grad-CAM: the layer; empty: the last stage whose maps have 4 x 4 positions or more."""
    method: records.CamMethod = "gradcam"
    """Grad-CAM: hirescam weighs each position by itself, as a critic does, whose maps are not averaged."""
    layers: tuple[str, ...] = ()
    """Units: the layers; empty: the last three stages, and the critic's score if there is one."""
    starts: int = Field(4, ge=1)
    """Maximise: noise images to start from."""
    steps: int = Field(300, ge=1)
    """Maximise: steps of the ascent."""
    rate: float = Field(0.02, gt=0)
    """Maximise: Adam's rate; a pixel's whole range is 2."""
    permutations: int = Field(999, ge=19)
    """Units: permutations behind the p-values."""
    seed: int = 0
    """Of the noise and the permutations."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Do what the inputs allow; write explain.json and the pictures."""
    store = Store.open(config.store)
    parts = _parts(config)
    out.used(device=str(choose_device(config.device)))
    splits = read_splits(config.splits) if config.splits else Splits({})
    encoder = folder_of(config.encoder) if config.encoder else Path()  # `_parts` has refused what needs them
    found: dict[str, Any] = {}
    summary = []
    with exact():
        for part, explained in (("gradcam", _gradcam), ("maximise", _maximise), ("units", _units)):
            if part in parts:
                found[part], text = explained(config, encoder, store, splits, out)
                summary.append(text)
    records.write_explanation(out.path, records.Explanation(store=store.id, **found))
    return "; ".join(summary)


def _parts(config: Config) -> list[Part]:
    """What is to be done, whose inputs are all there."""
    folder = folder_of(config.encoder) if config.encoder else None
    critic = folder is not None and has_critic(folder)
    units_too = folder is not None and bool(config.manifest and config.splits and config.task)
    able: dict[Part, tuple[bool, str]] = {
        "gradcam": (config.classifier is not None or critic, "--classifier, or --encoder with a critic"),
        "maximise": (critic and config.splits is not None, "--encoder with a critic, and --splits"),
        "units": (units_too, "--encoder, --manifest, --splits and -s task=..."),
    }
    if not config.parts:
        chosen = [part for part, (can, _) in able.items() if can]
        if not chosen:
            raise InputError(
                "explain: nothing to do: give --classifier for Grad-CAM, --encoder with a critic and "
                "--splits for maximising, --encoder, --manifest, --splits and a task for units"
            )
        return chosen
    for part in config.parts:
        can, needed = able[part]
        if not can:
            if folder is not None and part != "units" and not critic:
                load_critic(folder)  # says what is missing there
            raise InputError(f"explain: {part} needs {needed}")
    return list(config.parts)


def _gradcam(config: Config, encoder: Path, store: Store, splits: Splits, out: Run) -> Explained:
    device = choose_device(config.device)
    if config.classifier is not None:
        seen = scorers.of_classifier(config.classifier, store, config.target, device)
    elif config.target:
        raise InputError(f"target '{config.target}': a critic has one score and no classes; leave it out")
    else:
        seen = scorers.of_critic(encoder, store, device)
    layer = gradcam.choose_layer(seen.encoder.backbone, config.layer)
    rows, values, groups = _shown(config, store, splits, seen)
    pictures = scorers.recentred(store.read(rows), seen.crop)
    maps = []
    for part in to_float(pictures).split(scorers.BATCH):
        made = gradcam.grad_cam(seen.score, seen.encoder.backbone, layer, part.to(device), config.method)
        maps.append(made.relu().cpu())  # without what speaks against the score
    coarse = torch.cat(maps)
    heats = gradcam.upsample(coarse, store.size).numpy()
    labels = _labels(config, store, seen, rows)
    shown = zip(rows, values, groups, labels, heats, strict=True)
    cams = records.GradCam(
        arm=seen.arm, images_seen=seen.encoder.card.images_seen, pretrain_seed=seen.encoder.card.seed,
        task=seen.task_name, target=seen.target, method=config.method, layer=layer,
        grid=(coarse.shape[1], coarse.shape[2]),
        images=tuple(
            records.CamImage(
                image_id=store.index["image_id"].iloc[row], file=f"gradcam/{i:03d}.png", group=group,
                value=float(value), label=label, peak=float(heat.max()),
                share=float((heat > heat.max() / 2).mean()) if heat.max() > 0 else 0.0,
            )
            for i, (row, value, group, label, heat) in enumerate(shown)
        ),
    )  # fmt: skip
    displayed = np.stack([to_uint8(image.numpy()) for image in pictures])
    (out / "gradcam").mkdir(exist_ok=True)
    for name, content in explanations.gradcam_files(dump(cams), displayed, heats).items():
        out.write(name, content)
    other = "-s layer=..." if cams.method == "hirescam" else "-s method=hirescam, or -s layer=..."
    empty = sum(image.peak <= 0 for image in cams.images)
    hint = f" ({empty} show nothing: try {other})" if empty else ""
    return cams, f"Grad-CAM of {len(cams.images)} images at {cams.layer}{hint}"


def _shown(
    config: Config, store: Store, splits: Splits, seen: scorers.Scorer
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Rows to be shown, their probabilities or scores, and why they are shown."""
    if config.image_ids:
        rows = rows_of(store, config.image_ids)
        return rows, seen.read(rows), ["named"] * len(rows)
    if config.splits is None:
        raise InputError("explain: Grad-CAM needs image_ids, or --splits to find extremes of validation")
    val = np.flatnonzero(splits.rows("val", store.index["patient_id"]))
    if not len(val):
        raise InputError(f"{config.splits}: no validation patient has an image in {config.store}")
    values = seen.read(val)
    order = np.argsort(values, kind="stable")
    lowest = order[: min(config.num_extremes, len(order) // 2)]
    highest = order[::-1][: min(config.num_extremes, len(order) - len(lowest))]
    chosen = np.concatenate([highest, lowest])
    return val[chosen], values[chosen], ["highest"] * len(highest) + ["lowest"] * len(lowest)


def _labels(config: Config, store: Store, seen: scorers.Scorer, rows: NDArray[np.int64]) -> list[str]:
    """The true class of each row under the classifier's task, "" where unknown or without a manifest."""
    if seen.task is None or seen.task.kind == "multilabel" or config.manifest is None:
        return [""] * len(rows)
    labelled = truth(seen.task, read_manifest(config.manifest))
    of = {str(i): labelled.class_names[y] for i, y in zip(labelled.image_ids, labelled.y, strict=True)}
    return [of.get(store.index["image_id"].iloc[row], "") for row in rows]


def _maximise(config: Config, folder: Path, store: Store, splits: Splits, out: Run) -> Explained:
    device = choose_device(config.device)
    encoder, critic = scorers.load_pair(folder, store, device)
    real = {part: np.flatnonzero(splits.rows(part, store.index["patient_id"])) for part in ("train", "val")}
    scores = {part: scorers.critic_scores(encoder, critic, store, rows) for part, rows in real.items()}
    both, rows = np.concatenate(list(scores.values())), np.concatenate(list(real.values()))
    if not len(both):
        raise InputError(f"{config.splits}: no training or validation patient has an image in {config.store}")
    start = maximise.noise_images(config.starts, store.channels, store.size, config.seed).to(device)
    climb = maximise.maximise(critic, start, config.steps, config.rate)
    curves = climb.scores.double().cpu().numpy()  # (steps + 1, starts)
    record = records.Maximised(
        arm=encoder.card.name, images_seen=encoder.card.images_seen, pretrain_seed=encoder.card.seed,
        steps=config.steps, rate=config.rate,
        real={part: _distribution(values) for part, values in scores.items() if len(values)},
        starts=tuple(
            records.Ascent(
                first=float(curve[0]), score=float(curve.max()), step=int(at),
                above_real=float(100 * (both < curve.max()).mean()), climb=tuple(map(float, curve)),
            )
            for curve, at in zip(curves.T, climb.best.cpu(), strict=True)
        ),
    )  # fmt: skip
    median = rows[np.argsort(both, kind="stable")[(len(both) - 1) // 2]]
    typical = to_uint8(store.read([int(median)])[0].numpy())
    before, after = (((x + 1) * 127.5).round().byte().cpu().numpy() for x in (start, climb.images))
    out.write("maximise.png", explanations.maximise_file(dump(record), before, after, typical))
    out.write("climb.svg", chart_file(explanations.climb_chart(dump(record))))
    best = max(record.starts, key=lambda ascent: ascent.score)
    raised = f"score raised from {best.first:.3g} to {best.score:.4g}"
    return record, f"{raised}, above {best.above_real:.4g} % of real images"


def _distribution(values: NDArray[np.float64]) -> records.ScoreDistribution:
    quantiles = {f"{q:g}": float(np.quantile(values, q)) for q in (0.0, 0.05, 0.5, 0.95, 1.0)}
    mean, sd = float(values.mean()), float(values.std())
    return records.ScoreDistribution(num=len(values), mean=mean, sd=sd, quantiles=quantiles)


def _units(config: Config, folder: Path, store: Store, splits: Splits, out: Run) -> Explained:
    device = choose_device(config.device)
    encoder = load_encoder(folder).to(device).eval()
    check_fit(encoder.card, store, config.store)
    critic = load_critic(folder).to(device) if has_critic(folder) else None
    labelled, task = _asked(config, store, splits)
    shapes = units.choose_shapes(encoder, config.layers, critic)
    permuted = permuted_labels(labelled.y, labelled.patient_ids, config.permutations, config.seed)
    rows = rows_of(store, labelled.image_ids)
    read = partial(units.activations_of, encoder, critic, store, rows, list(shapes))
    found = units.correlate(read, shapes, labelled.y, permuted)
    record = records.UnitCorrelations(
        arm=encoder.card.name, images_seen=encoder.card.images_seen, pretrain_seed=encoder.card.seed,
        task=task, num_images=len(labelled), num_patients=len(set(labelled.patient_ids)),
        permutations=config.permutations, paper=units.PAPER_BOUND, rows=units.summarise(found, shapes),
    )  # fmt: skip
    out.write("units.svg", chart_file(explanations.units_chart(dump(record))))
    top = max(record.rows, key=lambda row: abs(row.largest or 0))
    known = f"{top.largest:+.3f}, p {top.p:.3f}" if top.largest is not None else "none"
    return record, f"largest correlation of a unit with {task}: {known}"


def _asked(config: Config, store: Store, splits: Splits) -> tuple[Truth, str]:
    """The labelled training and validation images of a task with classes in order, and its name."""
    assert config.manifest is not None  # for the type checker: `_parts` has made sure
    manifest = read_manifest(config.manifest)
    task = find_task(config.task, manifest)
    if task.kind not in ("binary", "ordinal"):
        raise InputError(f"task '{config.task}' is {task.kind}: give one of classes in order, as 'kl >= 2'")
    labelled = truth(task, manifest).among(set(store.index["image_id"]), config.store, "not in the store")
    kept = splits.rows("train", labelled.patient_ids) | splits.rows("val", labelled.patient_ids)
    if len(set(labelled.y[kept])) < 2:
        raise InputError(f"task '{config.task}': fewer than two classes in train and val; check the splits")
    chosen = labelled.among(set(labelled.image_ids[kept]), config.store, "test images")
    return chosen, task.name or config.task
