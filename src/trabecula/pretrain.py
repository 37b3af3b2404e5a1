"""store + objective -> encoder, generator: learn from images, by a method of the table in `objectives`.

The pool is every image of the store, or of several, whose patient is in no validation or test part. An
arm that saw no pretraining is made here too (`objective = "none"`): random weights, or a weights file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from trabecula import distributed
from trabecula.artifacts.encoder import EncoderCard, Family, Init, PoolChoice, Stem
from trabecula.artifacts.splits import read_splits, together
from trabecula.artifacts.store import open_stores
from trabecula.config import Record, dump
from trabecula.data import pretraining_pool as pools
from trabecula.data.batches import Stream, images_in_order
from trabecula.errors import InputError
from trabecula.monitors import find as find_monitor
from trabecula.monitors.monitor import Watched
from trabecula.nets.backbone import build_backbone, resolve
from trabecula.nets.devices import Precision, choose_device, precision_on
from trabecula.nets.encoder import StartingPoint, make_encoder, pooling, starting_point
from trabecula.nets.published import is_hub_name, names_imagenet, stands_for_weights
from trabecula.objectives import TABLE, find
from trabecula.objectives.objective import Setting, outweighed
from trabecula.run import Run
from trabecula.train.checkpoint import CHECKPOINT
from trabecula.train.pretraining import draw, train_and_keep

NUM_CHECKED, NUM_PREPARED, NUM_DRAWN = 64, 1024, 6
"""Images of the pool: checked for content, shown to a method before it learns, and in its pictures."""


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
    """A task of tasks.json, a rule such as "kl >= 2", or a label column. A method that learns from labels
    takes those of the training part; of other methods nearest neighbours are asked for them while training
    goes on, and nothing learns from them. Labels of validation and test patients are used by neither."""
    objective: str = "none"
    """The method, such as moco or wgan_gp (`trabecula show` lists all); none is for an arm without
    pretraining."""
    settings: dict[str, Any] = {}
    """The method's own settings, over its defaults; `trabecula show moco` lists them."""
    arm: str = ""
    """Name of the arm in tables, without "@"; by default architecture and method, such as critic-wgan_gp."""
    architecture: str = "timm:resnet18"
    """critic, timm:NAME or torchvision:NAME; with init = weights also a name on the Hugging Face hub, such as
    hf:facebook/dinov2-small or timm:resnet50.a1_in1k, or auto for what the folder in `weights` holds."""
    stem: Stem = "native"
    """How a net made for RGB takes grey images: a stem of its own (native, no weights file fits then), the
    RGB stem's kernels summed (sum), or the image repeated three times (repeat)."""
    pool: PoolChoice = "auto"
    """How feature maps become a vector; auto is flatten for the critic (den Boer 2025), mean otherwise."""
    init: Init = "random"
    """Where the weights start: random; a file, a folder or a model on the hub (weights); ImageNet weights of
    timm:tf_efficientnet_lite0, from the extra `imagenet` (package); or an earlier run (encoder)."""
    weights: Path | None = None
    """For init = weights: a safetensors or state-dict file in timm's or torchvision's layout, or a model's
    folder in the format of transformers, timm or `export`; a model on the hub needs none. For init =
    encoder: a folder written by an earlier `pretrain`."""
    weights_name: str = ""
    """What the weights are called, by default as their file or folder. A plain file is the ImageNet baseline
    only where this says imagenet."""
    weights_prefix: str = ""
    """Prefix of the network's keys in the weights file, such as "teacher.backbone.", where several fit; by
    default the only one that fits."""
    pool_cohorts: tuple[str, ...] = ()
    """Cohorts whose images are learned from, by the manifest's column `cohort`; empty: all."""
    pool_fraction: float = Field(1.0, gt=0, le=1)
    """Part of the pool's patients, drawn by the seed; smaller parts are in larger ones."""
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

    @model_validator(mode="before")
    @classmethod
    def _settings_in_their_place(cls, values: Any) -> Any:
        """A method's setting among those of `pretrain` is refused with where it belongs."""
        name = str(dict(values).get("objective"))
        if name in TABLE:
            for key in dict(values).keys() & find(name).Config.model_fields.keys() - cls.model_fields.keys():
                raise ValueError(f"'{key}' is a setting of {name}; write settings.{key} in its place")
        return values

    @field_validator("settings")
    @classmethod
    def _whole(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """With the method's defaults: a run's identity holds them, and a mistyped one is found at once."""
        objective = info.data.get("objective", "none")
        return settings if objective == "none" else find(objective).resolved(settings)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in ("arm", "weights_name"):  # a weights file's name becomes part of its arm's name
            if "@" in getattr(self, key):
                raise ValueError(f"'{key}': an '@' marks snapshots, as in critic-gan@12800; leave it out")
        if bool(self.task) != (self.manifest is not None):
            raise ValueError("task and manifest go together: give both, or neither")
        if self.objective != "none" and "labels" in find(self.objective).fields and not self.task:
            needed = "give task, such as 'kl >= 2', and manifest"
            raise ValueError(f"{self.objective} learns from labels: {needed}")
        if self.weights_prefix and self.init != "weights":
            raise ValueError("weights_prefix is of a weights file: set init = weights, or leave it out")
        if 0 < self.snapshots < self.every:
            raise ValueError(f"snapshots are taken at points: set every to {self.snapshots} or less")
        return self


def run(config: Config, out: Run) -> str:
    """Pretrain: encoder.*, training.json[, generator.*, critic.*, samples.npy, snapshots/, *.png]."""
    store, device = open_stores(config.store, config.also), choose_device(config.device)
    encoder = make_encoder(
        architecture=config.architecture, channels=store.channels, size=store.size, stem=config.stem,
        pool=config.pool, init=config.init, weights=config.weights, seed=config.seed,
        weights_name=config.weights_name, weights_prefix=config.weights_prefix,
    )  # fmt: skip
    start = starting_point(config.architecture, config.init, config.weights, config.weights_name)
    encoder.card = encoder.card.model_copy(update=_arm_of(config, start))
    pools.check_key(encoder.card, config.weights, store)
    _tell_of_weights(config, encoder.card, out)
    if config.objective == "none":
        encoder.save(out.path, card := pools.card_after(encoder.card, store, config.seed))
        whose = {"random": "random", "encoder": "another encoder's"}.get(config.init, "given")
        return f"{card.name}: {card.num_features} features of {whose} weights, no pretraining"
    if config.splits is None:
        raise InputError("pretrain: give the splits file, so that validation and test patients stay out")
    splits = together(read_splits(path) for path in (config.splits, *config.also_splits))
    limits = config.pool_cohorts, config.pool_fraction, config.seed
    rows, patients = pools.pretraining_pool(store, splits, *limits)
    foreign, labelled = pools.strangers(store, splits), None
    if config.manifest is not None:
        labelled = pools.labelled_training_part(store.parts[0], splits, config.manifest, config.task)
    method = find(config.objective)
    pool = pools.with_fields(config.objective, method.fields, store, rows, patients, labelled)
    settings = method.settings(config.settings, store.size, labelled.task if labelled else None)
    objective = method(settings, encoder, Setting(len(pool.rows), config.batch_size, config.seed)).to(device)
    out.log("pool", images=len(pool.rows), patients=len(pool.patients))
    # before hours are spent, what would else be known after them
    if foreign:
        print(f"warning: every image of the pool is learned from{foreign}", file=sys.stderr, flush=True)
    if device.type == "cpu" and (note := outweighed(objective, encoder)):
        print(f"note: {note}", file=sys.stderr, flush=True)
    out.used(device=str(device), precision=precision_on(device, config.precision))
    pools.check_contrast(store, pools.evenly(pool.rows, NUM_CHECKED))
    some = pools.evenly(pool.rows, NUM_PREPARED)
    objective.prepare(images_in_order(store, some, device, 256, equal=True))
    card = pools.card_after(
        encoder.card, store, config.seed, pool, config.task,
        objective=config.objective, settings=dump(settings),
        batch_size=config.batch_size, pool_fraction=config.pool_fraction, pool_cohorts=config.pool_cohorts,
    )  # fmt: skip
    watched = Watched(store, pool.rows, config.images, config.seed, device, labelled)
    stream = Stream(
        store, pool.rows, config.batch_size, config.seed, device, pool.fields,
        rank=distributed.rank(), world_size=distributed.world_size(),
    )  # fmt: skip
    images, warnings = train_and_keep(
        objective, stream, [find_monitor(name)(objective, watched) for name in method.monitors], card, out,
        images=config.images, every=config.every, snapshots=config.snapshots, precision=config.precision,
        accumulate=config.accumulate,
    )  # fmt: skip
    draw(objective, store.read(pools.evenly(pool.rows, NUM_DRAWN)).to(device), config.seed, out)
    (out / CHECKPOINT).unlink(missing_ok=True)
    unknown = "; its patients are not known, so its card lists none and evaluate refuses it"
    summary = _summary(config, card, pool, images, objective.batches * config.batch_size, out)
    return summary + warnings + foreign + ("" if card.patients else unknown)


def _tell_of_weights(config: Config, card: EncoderCard, out: Run) -> None:
    """Say what was left off the keys of a weights file, and how a file becomes the ImageNet baseline."""
    if config.init != "weights":
        return
    if card.weights_prefix:
        out.log("weights", prefix=card.weights_prefix)
        whose = config.weights or config.architecture
        text = f"note: the keys of {whose} were read without their prefix '{card.weights_prefix}'"
        print(text, file=sys.stderr, flush=True)
    if card.family == "weights" and not config.weights_name and "imagenet" in str(config.weights).lower():
        text = "its name alone does not make it the ImageNet baseline; set weights_name = imagenet if it is"
        print(f"note: {config.weights}: {text}", file=sys.stderr, flush=True)


def workload(config: Config) -> dict[str, int]:
    """What a run will do, as far as its settings say it: quantity -> count."""
    if config.objective == "none" or config.images == 0:
        return {"encoders without pretraining": 1}
    return {"pretrainings": 1, "images seen": config.images}


def check(config: Config, made: Mapping[str, Record]) -> None:
    """Refuse stores, yet to be made, that the network cannot take, or of one pool but not prepared alike."""
    store, also = (made.get(name) for name in ("store", "also"))
    for key in ("size", "channels", "bits", "fit", "intensity"):
        given, needed = getattr(also, key, None), getattr(store, key, None)
        if None not in (given, needed) and given != needed:
            differing = f"{key} is {json.dumps(given)}, wanted {json.dumps(needed)}"
            raise InputError(f"'also': {differing}; prepare both stores with the same settings")
    if config.init == "package":  # known before anything is made
        starting_point(config.architecture, config.init, config.weights, config.weights_name)
    channels, size = getattr(store, "channels", None), getattr(store, "size", None)
    if None not in (channels, size) and not stands_for_weights(config.architecture):
        _build(config.architecture, channels, size, config.stem, config.pool)


@cache
def _build(architecture: str, channels: Any, size: Any, stem: Stem, pool: PoolChoice) -> None:
    """Only the network itself knows what it takes: build it, once for all runs that share it."""
    pooling(build_backbone(architecture, channels, size, stem), pool)


def arm(config: Config) -> dict[str, Any]:
    """Name, architecture and family that the encoder's card will have, of absent weights by the settings."""
    weights: Family = "imagenet" if names_imagenet(config.weights_name) else "weights"
    families: dict[Init, Family] = {
        "random": "random", "weights": weights, "package": "imagenet", "encoder": "pretrained",
    }  # fmt: skip
    given = {"weights": "weights", "package": "imagenet"}.get(config.init)
    label = (config.weights_name or given) if given else config.init
    start = StartingPoint(config.architecture, families[config.init], label)
    with suppress(InputError):
        start = start._replace(architecture=resolve(config.architecture))
    if not is_hub_name(config.architecture) or config.weights is not None:
        with suppress(InputError):
            start = starting_point(config.architecture, config.init, config.weights, config.weights_name)
    return _arm_of(config, start)


def _arm_of(config: Config, start: StartingPoint) -> dict[str, Any]:
    trained = config.objective != "none"
    label = config.objective if trained else start.label
    named = not trained or find(config.objective).trains_encoder
    name = "-".join(filter(None, (start.architecture.split(":")[-1] if named else "", label)))
    family = "pretrained" if trained else start.family
    return {"name": config.arm or name, "architecture": start.architecture, "family": family}


def _summary(config: Config, card: EncoderCard, pool: pools.Pool, images: int, step: int, out: Run) -> str:
    text = f"{card.name}: {images:,} images seen of {len(pool.rows):,} from {len(pool.patients):,} patients"
    if images > config.images:
        text += f" ({config.images:,} asked for, in whole steps of {step:,})"
        out.log("budget", asked=config.images, images=images)
    return text + (f", with their labels of {config.task}" if "labels" in pool.fields else "")
