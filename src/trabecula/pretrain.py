"""store + objective -> encoder (and generator): learn from images without labels.

The pool is every image of the store, or of several, whose patient is in no validation or test part. An
arm that saw no pretraining is made here too (`objective = "none"`): random weights, or a weights file.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

import trabecula
from trabecula import distributed
from trabecula.artifacts.patient_hashes import key_name, site_key
from trabecula.artifacts.predictions import snapshot_name
from trabecula.artifacts.splits import Splits, read_splits, together
from trabecula.artifacts.store import Store
from trabecula.config import Record, dump
from trabecula.data.batches import WatchedStream
from trabecula.data.joined_stores import open_stores
from trabecula.data.pretraining_pool import (
    Labelled,
    check_contrast,
    evenly,
    labelled_training_part,
    pretraining_pool,
)
from trabecula.errors import InputError
from trabecula.figures.pictures import picture_file
from trabecula.files import save_array
from trabecula.monitors.encoder import COLLAPSE, Monitor
from trabecula.monitors.gan import NUM_IMAGES, Health
from trabecula.nets.critic import Critic, Generator
from trabecula.nets.critic_file import save_critic
from trabecula.nets.devices import Precision, choose_device, precision_on
from trabecula.nets.encoder import Card, Encoder, make_encoder, save_encoder
from trabecula.nets.generator import GeneratorCard, sample, save_generator
from trabecula.nets.published import weights_label
from trabecula.nets.training_patients import check_key, seen_after, strangers
from trabecula.objectives import find
from trabecula.objectives.adversarial import Adversarial
from trabecula.objectives.classify import Classify
from trabecula.objectives.objective import Objective, Setting, outweighed
from trabecula.objectives.settings import of_method, resolved
from trabecula.progress import Meter
from trabecula.random_numbers import RowRandom, mix
from trabecula.run import Run
from trabecula.train.loop import Point, train
from trabecula.transfer.fine_tuning import calibrate

_NOBODY = "; whom they go back to is not known, so its card lists no patients and evaluate refuses it"

NUM_SAMPLES = 64
"""Images drawn from a generator for a person to look at."""
NUM_DRAWN = 6
"""Images of the pool in a method's pictures."""
NUM_CALIBRATED = 1024
"""Images by whose features a classifier's head is scaled before it learns."""


class Config(Record):
    """Settings of `pretrain`."""

    store: Path
    """Prepared images: a folder written by `prepare`."""
    splits: Path | None = None
    """splits.csv: its validation and test patients are kept out. Needed unless objective is "none"."""
    also: tuple[Path, ...] = ()
    """More stores to learn from, such as another domain's: all images are one pool. Prepared alike."""
    also_splits: tuple[Path, ...] = ()
    """More splits.csv, such as those of the stores in `also`: their validation and test patients are kept
    out of the whole pool too. Patients of one id are taken for one person, whatever the store."""
    manifest: Path | None = None
    """For `task`: the manifest with the labels, that of `store`."""
    task: str = ""
    """A task of tasks.json, a rule such as "kl >= 2", or a label column. `classify` learns from its labels in
    the training part; of the other methods nearest neighbours are asked for them while training goes on, and
    nothing learns from them. Labels of validation and test patients are used by neither."""
    objective: str = "none"
    """The method, such as moco or wgan_gp (`trabecula show` lists all); classify learns from labels; none is
    for an arm without pretraining."""
    settings: dict[str, Any] = {}
    """The method's own settings, over its defaults; `trabecula show moco` lists them."""
    arm: str = ""
    """Name of the arm in tables, without "@"; by default architecture and method, such as critic-wgan_gp."""
    architecture: str = "timm:resnet18"
    """critic, timm:NAME or torchvision:NAME; with init = weights also a name on the Hugging Face hub, such as
    hf:facebook/dinov2-small or timm:resnet50.a1_in1k, or auto for what the folder in `weights` holds."""
    stem: Literal["native", "sum", "repeat"] = "native"
    """How a net made for RGB takes grey images: a stem of its own (native, no weights file fits then), the
    RGB stem's kernels summed (sum), or the image repeated three times (repeat)."""
    pool: Literal["auto", "mean", "mean+max", "flatten", "token"] = "auto"
    """How feature maps become a vector; auto is flatten for the critic (den Boer 2025), mean otherwise."""
    init: Literal["random", "weights", "encoder"] = "random"
    """Where the weights start."""
    weights: Path | None = None
    """For init = weights: a safetensors or state-dict file in timm's or torchvision's layout, or a model's
    folder in the format of transformers, timm or `export`; a model on the hub needs none. For init =
    encoder: a folder written by an earlier `pretrain`."""
    weights_name: str = "imagenet"
    """What the weights file was trained on; arms of "imagenet" are the ImageNet baseline."""
    pool_cohorts: tuple[str, ...] = ()
    """Cohorts whose images are learned from, by the manifest's column `cohort`; empty: all."""
    pool_fraction: float = Field(1.0, gt=0, le=1)
    """Part of the pool's patients, drawn by the seed; smaller parts lie in larger ones."""
    images: int = Field(200_000, ge=0)
    """Budget in images seen; an image counts each time it is drawn."""
    batch_size: int = Field(64, ge=2)
    """Images a batch."""
    every: int = Field(20_000, ge=1)
    """Images between two points of the training curve, each with a checkpoint."""
    snapshots: int = Field(0, ge=0)
    """Images between two snapshots that are kept, 0 for none: `snapshots/000012800` holds what the run's
    own folder holds, as of 12,800 images. They are taken at points, so at least `every`."""
    accumulate: int = Field(1, ge=1)
    """Parts a batch is cut into to save memory, where the method allows it."""
    precision: Precision = "auto"
    """float32, bf16, or auto: bf16 where the hardware multiplies it."""
    seed: int = 0
    """Of weights, order, views and noise."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""

    @field_validator("arm", "weights_name")
    @classmethod
    def _no_snapshots_name(cls, name: str) -> str:
        """A weights file's name becomes part of its arm's name."""
        if "@" in name:
            raise ValueError("an '@' marks snapshots, as in critic-wgan_gp@12800; leave it out")
        return name

    @field_validator("settings")
    @classmethod
    def _whole(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """With the method's defaults: a run's identity holds them, and a mistyped one is found at once."""
        objective = info.data.get("objective", "none")
        return settings if objective == "none" else resolved(objective, settings)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.task) != (self.manifest is not None):
            raise ValueError("task and manifest go together: give both, or neither")
        if self.objective == "classify" and not self.task:
            raise ValueError("classify learns from labels: give task, such as 'kl >= 2', and manifest")
        if 0 < self.snapshots < self.every:
            raise ValueError(
                f"snapshots={self.snapshots} is below every={self.every}, and snapshots are taken at points; "
                f"set every to {self.snapshots} or less"
            )
        return self


_STARTS = {"random": "random weights", "weights": "given weights", "encoder": "another encoder's weights"}


def run(config: Config, out: Run) -> str:
    """Pretrain: encoder.*, training.json[, generator.*, critic.*, samples.npy, snapshots/, *.png]."""
    store = open_stores(config.store, config.also)
    device = choose_device(config.device)
    encoder = _encoder(config, store)
    check_key(encoder.card, config.weights, store)
    if config.objective == "none":
        encoder.card = _card(encoder, config, store, [])
        save_encoder(encoder, out)
        card = encoder.card
        return f"{card.name}: {card.num_features} features of {_STARTS[config.init]}, no pretraining"
    if config.splits is None:
        raise InputError("pretrain: give the splits file, so that validation and test patients stay out")
    splits = together(read_splits(path) for path in (config.splits, *config.also_splits))
    pool, patients = pretraining_pool(store, splits, config.pool_cohorts, config.pool_fraction, config.seed)
    foreign = strangers(store, splits)
    labelled = _labelled(config, store, splits)
    taught = labelled.among(pool) if labelled and config.objective == "classify" else None
    if taught is not None:
        pool, patients = taught.rows, sorted(set(taught.patients))
    settings = of_method(config.objective, config.settings, store.size, taught.task if taught else None)
    objective = find(config.objective)(settings, encoder, Setting(len(pool), config.batch_size, config.seed))
    stream = WatchedStream(
        store, pool, config.batch_size, config.seed, device, taught.y if taught else None,
        rank=distributed.rank(), world_size=distributed.world_size(),
    )  # fmt: skip
    out.log("pool", images=len(pool), patients=len(patients))
    _tell(objective, encoder, device, foreign)
    out.used(device=str(device), precision=precision_on(device, config.precision))
    check_contrast(store, evenly(pool, NUM_IMAGES))
    if isinstance(objective, Classify):
        calibrate(objective, store, evenly(pool, NUM_CALIBRATED), device)
    health = _health(config, objective, store, pool, device)
    monitor = Monitor(objective, store, pool, config.images, device, labelled)
    keep = _Keeper(config, objective, _card(encoder, config, store, patients, settings), store)
    memory: dict[str, Any] = {"curve": [], "findings": {}}
    start = _finite(monitor.measure())
    out.log("start", **start)
    images = _train(config, objective, stream, out, memory, keep, health, monitor)
    products = keep(out.path, images)
    findings = memory.get("findings", {})
    training = {"start": start, "points": memory["curve"], "findings": list(findings.values())}
    out.write_json("training.json", training)
    _draw(objective, store.read(evenly(pool, NUM_DRAWN)).to(device), config.seed, out)
    generator = products.get("generator")
    if isinstance(generator, Generator):
        with out.scratch("samples.npy").open("wb") as file:
            save_array(file, sample(generator.to("cpu"), NUM_SAMPLES, config.seed).numpy())
        out.publish("samples.npy")
    (out / "checkpoint.pt").unlink(missing_ok=True)
    told = f"{encoder.card.name}: {images:,} images seen of {len(pool):,} from {len(patients):,} patients"
    if images > config.images:
        told += f" ({config.images:,} asked for, in whole steps of {objective.batches * config.batch_size:,})"
        out.log("budget", asked=config.images, images=images)
    told += f", with their labels of {config.task}" if taught else ""
    if findings.get(COLLAPSE, {}).get("last") == images:
        told += f"; warning: {findings[COLLAPSE]['text']}"
    return told + foreign + ("" if keep.card.patients else _NOBODY)


def _tell(objective: Objective, encoder: Encoder, device: torch.device, foreign: str) -> None:
    """Say before hours are spent what would else be known after them."""
    told = [f"warning: every image of the pool is learned from{foreign}"] if foreign else []
    if device.type == "cpu" and (note := outweighed(objective, encoder)):
        told.append(f"note: {note}")
    for line in told:
        print(line, file=sys.stderr, flush=True)


def _draw(objective: Objective, images: Tensor, seed: int, out: Run) -> None:
    """Write what the method has to show of these images of the pool."""
    random = RowRandom(mix(seed, "pictures"), len(images), slice(0, len(images)), images.device)
    for name, picture in objective.eval().pictures(images, random).items():
        out.write(f"{name}.png", picture_file(picture))


class _Keeper:
    """Writes what an objective has made so far into a folder.

    Args:
        card: of the encoder before this training, with the patients of this pool in it.
    """

    def __init__(self, config: Config, objective: Objective, card: Card, store: Store) -> None:
        self.config, self.objective, self.card, self.store = config, objective, card, store

    def __call__(self, folder: Path, images: int, snapshot: bool = False) -> dict[str, nn.Module]:
        """A snapshot's encoder is an arm of its own, so that predictions tell it from the others."""
        products = self.objective.products()
        encoder, generator, critic = (products.get(name) for name in ("encoder", "generator", "critic"))
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(encoder, Encoder):
            name = snapshot_name(self.card.name, images) if snapshot else self.card.name
            seen = self.card.images_seen + images
            encoder.card = self.card.model_copy(update={"name": name, "images_seen": seen})
            save_encoder(encoder, folder)
        if isinstance(generator, Generator):
            card = GeneratorCard(
                objective=self.config.objective, channels=self.store.channels, size=self.store.size,
                latent=generator.latent, widths=generator.widths, norm=generator.norm, store=self.store.id,
                images_seen=images, seed=self.config.seed,
                averaged=generator is getattr(self.objective, "averaged", None),
            )  # fmt: skip
            save_generator(generator, card, folder)
        if isinstance(critic, Critic):
            save_critic(critic, folder)
        return products


def _train(
    config: Config,
    objective: Objective,
    stream: WatchedStream,
    out: Run,
    memory: dict[str, Any],
    keep: _Keeper,
    health: Health | None,
    monitor: Monitor,
) -> int:
    with Meter(f"pretraining {config.objective}", config.images, "images") as meter:
        stream.drawn = meter.reach
        for point in train(
            objective, stream, images=config.images, every=config.every, precision=config.precision,
            accumulate=config.accumulate, checkpoint=out / "checkpoint.pt", memory=memory,
        ):  # fmt: skip
            meter.reach(point.images, _note(point))
            before = memory["curve"][-1]["images"] if memory["curve"] else 0
            memory["curve"].append({"images": point.images, **point.scalars})
            _look(health, monitor, memory, point.last, out)
            if config.snapshots and point.images // config.snapshots > before // config.snapshots:
                keep(out / "snapshots" / f"{point.images:09d}", point.images, snapshot=True)
            out.log("point", **memory["curve"][-1])
    return int(memory["curve"][-1]["images"]) if memory["curve"] else 0


def _health(
    config: Config, objective: Objective, store: Store, pool: np.ndarray, device: torch.device
) -> Health | None:
    """Measurements of an adversarial training, on images spread over the pool."""
    if not isinstance(objective, Adversarial):
        return None
    return Health(objective, store.read(evenly(pool, NUM_IMAGES)).to(device), config.seed)


def _look(health: Health | None, monitor: Monitor, memory: dict[str, Any], last: bool, out: Run) -> None:
    """Measure at a point; what is found is said once, on the terminal and in the log, and kept."""
    point = memory["curve"][-1]
    measured, found = monitor.look(memory["curve"], last)
    if health is not None:
        more, wrong = health.look(memory["curve"])
        measured, found = {**measured, **more}, [*found, *wrong]
    point.update(_finite(measured))
    findings = memory.setdefault("findings", {})
    for finding in found:
        known = findings.get(finding.name)
        if known is None:
            print(f"warning: at {point['images']:,} images {finding.text}", file=sys.stderr, flush=True)
            out.log("finding", images=point["images"], name=finding.name, text=finding.text)
        first = known["first"] if known else point["images"]
        findings[finding.name] = {
            "name": finding.name, "text": finding.text, "first": first, "last": point["images"],
        }  # fmt: skip


def _finite(measured: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measured.items() if math.isfinite(value)}


def _note(point: Point) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in point.scalars.items() if "loss" in name)


def _encoder(config: Config, store: Store) -> Encoder:
    encoder = make_encoder(
        architecture=config.architecture, channels=store.channels, size=store.size, stem=config.stem,
        pool=config.pool, init=config.init, weights=config.weights, seed=config.seed,
        weights_name=config.weights_name,
    )  # fmt: skip
    name = config.arm or f"{encoder.card.architecture.split(':')[-1]}-{_label(config, encoder.card)}"
    family = "pretrained" if config.objective != "none" else encoder.card.family
    encoder.card = encoder.card.model_copy(update={"name": name, "family": family})
    return encoder


def _label(config: Config, card: Card) -> str:
    if config.objective != "none":
        return config.objective
    return weights_label(card.weights) if config.init == "weights" else config.init


def _labelled(config: Config, store: Store, splits: Splits) -> Labelled | None:
    if config.manifest is None:
        return None
    return labelled_training_part(store.parts[0], splits, config.manifest, config.task)


def _card(
    encoder: Encoder, config: Config, store: Store, patients: list[str], settings: Record | None = None
) -> Card:
    """The card that says what the encoder will have seen, but for the number of images."""
    card, seen = encoder.card, seen_after(encoder.card, store, patients)
    taught = config.objective == "classify" and config.task not in card.labels.split("; ")
    return card.model_copy(
        update={
            "objective": config.objective if config.objective != "none" else card.objective,
            "settings": dump(settings) if settings is not None else card.settings,
            "labels": "; ".join(filter(None, [card.labels, config.task if taught else ""])),
            "num_labelled_patients": max(
                card.num_labelled_patients, len(patients) if config.objective == "classify" else 0
            ),
            "batch_size": config.batch_size if settings is not None else card.batch_size,
            "store": store.id,
            "stores": tuple(part.id for part in store.parts) if len(store.parts) > 1 else (),
            "preprocessing": store.preprocessing,
            "prepared": store.prepared,
            "seed": config.seed,
            "version": trabecula.__version__,
            "patients": tuple(sorted(seen)),
            "patients_key": key_name(site_key()) if seen or patients or card.images_seen else "",
            "pool_fraction": config.pool_fraction if patients else card.pool_fraction,
            "pool_cohorts": config.pool_cohorts if patients else card.pool_cohorts,
        }
    )
