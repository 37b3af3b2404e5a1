"""generator + store + splits -> fidelity.json: how real its images are, over training, and whether it copies.

fidelity.json     points, critic, memorisation; see docs/concepts/fidelity.md
audit.json        what `export` puts into the card of a generator that leaves
fd.svg, kid.svg   distances to training and to held-out images, with that between the two across
gap.svg           the critic's overfit gap
points/           one file a snapshot: a killed run goes on after the last
features/         features of the real images, as `embed` writes them

Every set has the same number of images. Curves use training and validation images; test images are used
once, at the end, for the last generator only.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts.encoder import has_critic
from trabecula.artifacts.features import CARD_FILE as FEATURES_CARD
from trabecula.artifacts.features import (
    Features,
    FeaturesCard,
    check_comparable,
    read_features,
    writing_features,
)
from trabecula.artifacts.fidelity import make_audit, nearest_pairs, write_audit, write_fidelity
from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.generator import WEIGHTS_FILE, GeneratorCard, has_generator, read_generator_card
from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, to_float
from trabecula.config import Record
from trabecula.errors import InputError, RunError
from trabecula.figures.charts import chart_file
from trabecula.files import sha256_of
from trabecula.kernels.matmul import inner_products
from trabecula.metrics.fidelity import NEAREST, Fidelity, fidelity
from trabecula.metrics.memorisation import critic_gap, memorisation
from trabecula.nets.devices import choose_device, exact
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.nets.extractors import Extractor, load_extractor
from trabecula.nets.generators.generator import load_generator
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.sections.generators import distance_chart, gap_chart


class Config(Record):
    """Settings of `fidelity`."""

    generator: Path
    """A folder written by `pretrain` with a method that trains a generator; its snapshots make the curves."""
    store: Path
    """The images it learned from, and held-out ones: a folder written by `prepare`."""
    splits: Path
    """splits.csv: its validation images are the held-out ones."""
    extractor: str = "random-conv"
    """random-conv, inception-v3, timm:NAME, torchvision:NAME, or encoder: in whose features to compare."""
    weights: Path | None = None
    """A local weights file, or for extractor = encoder a folder written by `pretrain`."""
    resize: int = Field(0, ge=0)
    """Side to which images are brought for the extractor, px; 0 leaves them as they are."""
    num: int = Field(2024, ge=2)
    """Images in each set, where every part has as many (den Boer 2025, figure 4); else as many as the
    smallest has."""
    pool: int = Field(10_000, ge=2)
    """Training images, at most, among which the nearest to a fake is looked for."""
    nearest: int = Field(NEAREST, ge=1)
    """k of precision, recall, density and coverage (Naeem 2020)."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of the intervals."""
    seed: int = 0
    """Of the fakes, and of which real images are taken."""
    batch_size: int = Field(64, ge=1)
    """Images at a time."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


@dataclass(frozen=True)
class Part:
    """Real images of one part, in the order in which they are taken; `in_all`: with those left out."""

    name: str
    rows: NDArray[np.int64]
    patients: NDArray[np.str_]
    in_all: int


def run(config: Config, out: Run) -> str:
    """Measure each snapshot, then the last generator once more against the test images; write the files."""
    folder = config.generator if config.generator.is_dir() else config.generator.parent
    store, card = Store.open(config.store), read_generator_card(folder)
    generators = _generators(folder, card)
    if (card.channels, card.size) != (store.channels, store.size):
        raise InputError(
            f"{config.store}: images of {store.channels} channels and {store.size} px, the generator in "
            f"{folder} makes {card.channels} and {card.size} px; name the store that it learned from"
        )
    parts, num = _parts(config, card, folder, store)
    device = choose_device(config.device)
    out.used(device=str(device))
    extractor = load_extractor(
        config.extractor, store.channels, store.size, config.weights, config.resize, device
    )
    work = _Measuring(config, out, store, extractor, device, parts, num)
    train, val = work.reals("train"), work.reals("val")
    floor = work.compare(None, "floor", "train", val.values[:num])
    points, critic = [], []
    with Meter("measuring", len(generators), "generators") as meter:
        for images, place in generators:
            done = work.point(images, place)
            points += done["points"]
            critic += done["critic"]
            meter.add(1)
    last_images, last = generators[-1]
    fakes = work.fakes(last)
    tested = work.compare(last_images, "test", "test", fakes) if "test" in parts else []
    if tested:
        tested += work.compare(None, "floor_test", "test", train.values[:num])
    found = memorisation(
        train.values, val.values, fakes, parts["val"].patients, seed=config.seed, level=config.level
    )
    protocol = {
        **extractor.protocol.record(), "num": num, "nearest": config.nearest, "ties": "strict",
        "level": config.level, "seed": config.seed, "store": store.id,
        "frechet": extractor.protocol.frechet_name, "kernel": extractor.protocol.kernel_name,
    }  # fmt: skip
    weights = sha256_of(last / WEIGHTS_FILE)
    held_out_patients = len(np.unique(parts["val"].patients))
    in_all = parts["train"].in_all
    audit = make_audit(found, weights, protocol, len(train.values), held_out_patients, in_all)
    pairs = nearest_pairs(found, train.image_ids)
    record = {
        "arm": card.name, "pretrain_seed": card.seed,
        "extractor": extractor.protocol.name, "protocol": protocol,
        "points": [*floor, *points, *tested], "critic": critic,
        "memorisation": {"finding": audit["finding"], **audit["measures"], "nearest_pairs": pairs},
    }  # fmt: skip
    write_audit(out.path, audit)
    for name, svg in _figures(record).items():
        out.write(name, svg)
    write_fidelity(out.path, record)
    return _summary(record, audit, num)


class _Measuring:
    """What every point needs: the parts, the extractor, and the features of reals, made once."""

    def __init__(
        self, config: Config, out: Run, store: Store, extractor: Extractor, device: torch.device,
        parts: dict[str, Part], num: int,
    ) -> None:  # fmt: skip
        self.config, self.out, self.store, self.extractor = config, out, store, extractor
        self.device, self.parts, self.num = device, parts, num
        self._reals: dict[str, Features] = {}
        self._sampled: tuple[Path, torch.Tensor] | None = None

    def reals(self, name: str) -> Features:
        """Features of a part: read where an earlier run left them, else made and written."""
        if name not in self._reals:
            folder = self.out / "features" / name
            if not (folder / FEATURES_CARD).exists():
                self._embed(self.parts[name], folder)
            self._reals[name] = read_features(folder)
            check_comparable(next(iter(self._reals.values())), self._reals[name])
        return self._reals[name]

    def _embed(self, part: Part, folder: Path) -> None:
        made = []
        with Meter(f"embedding {part.name} images", len(part.rows), "images") as meter:
            for start in range(0, len(part.rows), self.config.batch_size):
                rows = part.rows[start : start + self.config.batch_size]
                made.append(self.extractor(self.store.read(rows)).numpy())
                meter.add(len(rows))
        values = np.concatenate(made)
        if not np.isfinite(values).all():
            raise InputError(
                f"extractor '{self.extractor.protocol.name}' gives features that are not finite for "
                f"{part.name} images; take another extractor"
            )
        card = FeaturesCard(**self.extractor.protocol.record(), num=len(values), store=self.store.id)
        with writing_features(folder, card, self.store.index.iloc[part.rows]) as features:
            features[:] = values

    def fakes(self, place: Path) -> NDArray[np.float32]:
        """Features of a generator's first `num` images of the seed."""
        made = [self.extractor(part).numpy() for part in self._images(place).split(self.config.batch_size)]
        return np.concatenate(made)

    def _images(self, place: Path) -> torch.Tensor:
        if self._sampled is not None and self._sampled[0] == place:
            return self._sampled[1]
        generator, _ = load_generator(place)
        if not all(value.isfinite().all() for value in generator.parameters()):
            raise RunError(
                f"{place}: its weights are not finite; the training diverged, use an earlier snapshot"
            )
        with exact():
            images = generator.to(self.device).sample(self.num, self.config.seed)
        self._sampled = (place, images)
        return images

    def compare(
        self, images: int | None, label: str, part: str, others: NDArray[Any]
    ) -> list[dict[str, Any]]:
        """Rows of one comparison: `num` reals of a part against as many others."""
        reals, patients = self.reals(part).values[: self.num], self.parts[part].patients[: self.num]
        found = fidelity(
            reals,
            others[: self.num],
            patients,
            self.config.nearest,
            level=self.config.level,
            product=inner_products,
        )
        return _rows(images, label, found)

    def point(self, images: int, place: Path) -> dict[str, Any]:
        """Measures of one generator; read where an earlier run left them."""
        file = self.out / "points" / f"{images:09d}.json"
        if file.exists():
            done: dict[str, Any] = json.loads(file.read_text())
            return done
        fakes = self.fakes(place)
        rows = [row for part in ("train", "val") for row in self.compare(images, part, part, fakes)]
        critic = [self._critic(images, place)] if has_critic(place) else []
        file.parent.mkdir(exist_ok=True)
        self.out.write_json(f"points/{file.name}", {"points": rows, "critic": critic})
        self.out.log("point", images=images, **{f"{r['set']}_{r['metric']}": r["value"] for r in rows})
        return {"points": rows, "critic": critic}

    @torch.inference_mode()
    def _critic(self, images: int, place: Path) -> dict[str, Any]:
        """Mean scores on the same images that the distances are of."""
        critic, encoder = load_critic(place).to(self.device), load_encoder(place).to(self.device)

        def scores(pixels: torch.Tensor) -> NDArray[Any]:
            with exact():
                values: torch.Tensor = critic(encoder.normalise(to_float(pixels.to(self.device))))
            return values.float().cpu().numpy()

        size = self.config.batch_size
        of = [
            np.concatenate([scores(self.store.read(rows[i : i + size])) for i in range(0, len(rows), size)])
            for rows in (self.parts[part].rows[: self.num] for part in ("train", "val"))
        ]
        fake = np.concatenate([scores(part) for part in self._images(place).split(size)])
        patients = [self.parts[part].patients[: self.num] for part in ("train", "val")]
        gap = critic_gap(of[0], of[1], fake, patients[0], patients[1], level=self.config.level)
        return {
            "images": images, "train": gap.train, "val": gap.held_out, "fake": gap.fake, "gap": gap.gap,
            "low": _known(gap.low), "high": _known(gap.high), "relative_gap": _known(gap.relative),
        }  # fmt: skip


def _generators(folder: Path, card: GeneratorCard) -> list[tuple[int, Path]]:
    """(images seen, folder) of each snapshot and of the end, in order; the end alone without snapshots."""
    snapshots = [place for place in sorted((folder / "snapshots").glob("*")) if has_generator(place)]
    found = {read_generator_card(place).images_seen: place for place in snapshots}
    return sorted({**found, card.images_seen: folder}.items())


def _parts(config: Config, card: GeneratorCard, folder: Path, store: Store) -> tuple[dict[str, Part], int]:
    """The real images of each part, and the number that every set has.

    Training images are those of patients whom the generator has seen; validation and test images those of
    patients whom it has not. Training images of the validation part's cohorts come first, and only these are
    compared: a second, unlabelled hospital in the pool would else look like an overfit gap.
    """
    splits = read_splits(config.splits)
    patients = store.index["patient_id"].to_numpy(dtype=str)
    real = np.array([not is_generated(patient) for patient in patients])
    of = np.array([splits.of.get(patient, "train") for patient in patients])
    seen = _seen(card, folder, patients)
    leaked = sorted(set(patients[(of != "train") & seen & real]))
    if leaked:
        raise InputError(
            f"{config.splits}: patient '{leaked[0]}' is in {splits.of[leaked[0]]}, and the generator has "
            f"seen {len(leaked)} of the held-out patients; give the splits that it was trained with"
        )
    order = np.random.default_rng(config.seed).permutation(len(patients))
    parts = {}
    for name in ("train", "val", "test"):
        rows = order[((of == name) & real & (seen if name == "train" else True))[order]]
        parts[name] = Part(name, rows, patients[rows], len(rows))
    alike = _of_cohorts(store, parts["train"].rows, parts["val"].rows)
    first = np.argsort(~alike, kind="stable")
    train = parts["train"]
    parts["train"] = Part("train", train.rows[first], train.patients[first], train.in_all)
    missing = [name for name in ("train", "val") if not len(parts[name].rows)]
    if missing:
        why = {"train": "of a patient whom the generator has seen", "val": "of the validation part"}
        raise InputError(f"{config.store}: holds no image {why[missing[0]]}; give its own store and splits")
    if not len(parts["test"].rows):
        del parts["test"]
    num = min(config.num, int(alike.sum()), *(len(part.rows) for part in parts.values()))
    if num <= config.nearest:
        least = min(parts.values(), key=lambda part: len(part.rows))
        raise InputError(
            f"{config.store}: {least.name} has {len(least.rows)} images, so sets of {num}; "
            f"k = {config.nearest} needs at least {config.nearest + 1}; give the part more patients, "
            "or set a smaller nearest"
        )
    limits = {"train": max(num, config.pool), "val": max(num, config.pool), "test": num}
    return {
        name: Part(name, part.rows[: limits[name]], part.patients[: limits[name]], part.in_all)
        for name, part in parts.items()
    }, num


def _of_cohorts(store: Store, rows: NDArray[np.int64], like: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of `rows` is of a cohort that `like` has; all, where no cohorts are named or none is."""
    if "cohort" not in store.index:
        return np.ones(len(rows), dtype=bool)
    cohorts = store.index["cohort"].to_numpy(dtype=str)
    found = np.isin(cohorts[rows], np.unique(cohorts[like]))
    return found if found.any() else np.ones(len(rows), dtype=bool)


def _seen(card: GeneratorCard, folder: Path, patients: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(n,) whether the generator's card lists the patient."""
    key = site_key()
    if not card.patients:
        raise InputError(
            f"{folder}: its card lists no patients, so training and held-out images cannot be separated; "
            "measure a generator whose pool is known"
        )
    if card.patients_key != key_name(key):
        raise InputError(
            f"{folder}: its patients were hashed with another site key ({card.patients_key}), so training "
            "and held-out images could not be separated; set TRABECULA_SITE_KEY to that site's key"
        )
    listed = set(card.patients)
    ids = sorted(set(patients))
    marks = dict(zip(ids, mark(ids, key), strict=True))
    return np.array([marks[patient] in listed for patient in patients])


def _rows(images: int | None, label: str, found: Fidelity) -> list[dict[str, Any]]:
    kernel = found.kernel
    values: list[tuple[str, float, float | None, float | None]] = [
        ("fd", found.frechet, None, None),
        ("kid", kernel.value, _known(kernel.low), _known(kernel.high)),
        *((name, value, None, None) for name, value in asdict(found.manifold).items()),
    ]
    return [
        {
            "images": images, "set": label, "metric": metric, "value": value, "low": low, "high": high,
            "num_fakes": found.num_fakes, "num_reals": found.num_reals, "num_patients": found.num_patients,
        }
        for metric, value, low, high in values
    ]  # fmt: skip


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(record: dict[str, Any]) -> dict[str, str]:
    arm, critic = record["arm"], record["critic"]
    drawn = {f"{metric}.svg": distance_chart(arm, record, metric) for metric in ("fd", "kid")}
    drawn["gap.svg"] = gap_chart(arm, critic, "relative_gap") if critic else None
    return {name: chart_file(chart) for name, chart in drawn.items() if chart is not None}


def _summary(record: dict[str, Any], audit: dict[str, Any], num: int) -> str:
    def value(part: str) -> str:
        rows = [p for p in record["points"] if (p["set"], p["metric"]) == (part, "fd")]
        return f"{rows[-1]['value']:.4g}"

    name = record["protocol"]["frechet"]
    return (
        f"{name} of {num:,} images {value('train')} to training, {value('val')} to held-out images, "
        f"{value('floor')} between the two; {audit['finding']}"
    )
