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

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts import features as features_
from trabecula.artifacts.encoder import has_critic
from trabecula.artifacts.fidelity import make_audit, nearest_pairs, write_audit, write_fidelity
from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.generator import WEIGHTS_FILE, GeneratorCard, has_generator, read_generator_card
from trabecula.artifacts.label_values import in_any_spelling
from trabecula.artifacts.patient_hashes import seen_among
from trabecula.artifacts.splits import PARTS, read_splits
from trabecula.artifacts.store import Store, to_float
from trabecula.config import Record
from trabecula.errors import InputError, RunError
from trabecula.figures.charts import chart_file
from trabecula.files import read_json, sha256_of
from trabecula.kernels.matmul import inner_products
from trabecula.metrics.fidelity import NEAREST, fidelity
from trabecula.metrics.memorisation import critic_gap, memorisation
from trabecula.nets.devices import choose_device, exact
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.nets.extractors import Extractor, load_extractor
from trabecula.nets.generators.generator import load_generator
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.sections.generators import distance_chart, gap_chart

Row = dict[str, Any]
Parts = dict[str, NDArray[np.int64]]


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
    """A local weights file, or for extractor = encoder a folder written by `pretrain`. Without it,
    timm:tf_efficientnet_lite0 has the ImageNet weights of the extra `imagenet`."""
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


def run(config: Config, out: Run) -> str:
    """Measure each snapshot, then the last generator once more against the test images; write the files."""
    folder = config.generator if config.generator.is_dir() else config.generator.parent
    store, card = Store.open(config.store), read_generator_card(folder)
    snapshots = [place for place in sorted((folder / "snapshots").glob("*")) if has_generator(place)]
    places = {read_generator_card(place).images_seen: place for place in snapshots}
    generators = sorted({**places, card.images_seen: folder}.items())
    shape = store.channels, store.size
    if (card.channels, card.size) != shape:
        raise InputError(
            f"{config.store}: images of {store.channels} channels and {store.size} px, the generator in "
            f"{folder} makes {card.channels} and {card.size} px; name the store that it learned from"
        )
    parts, num, in_all = _parts(config, card, folder, store)
    device = choose_device(config.device)
    out.used(device=str(device))
    extractor = load_extractor(config.extractor, *shape, config.weights, config.resize, device)
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
    fakes, tested = work.fakes(place), []
    if "test" in parts:
        tested = work.compare(images, "test", "test", fakes)
        tested += work.compare(None, "floor_test", "test", train.values[:num])
    seed, level = config.seed, config.level
    found = memorisation(train.values, val.values, fakes, val.patient_ids, seed=seed, level=level)
    protocol = {
        **extractor.protocol.record(), "num": num, "nearest": config.nearest, "ties": "strict",
        "level": level, "seed": seed, "store": store.id,
        "frechet": extractor.protocol.frechet_name, "kernel": extractor.protocol.kernel_name,
    }  # fmt: skip
    weights, held_out_patients = sha256_of(place / WEIGHTS_FILE), len(set(val.patient_ids))
    audit = make_audit(found, weights, protocol, len(train.values), held_out_patients, in_all)
    pairs = nearest_pairs(found, train.image_ids)
    record = {
        "arm": card.name, "pretrain_seed": card.seed,
        "extractor": extractor.protocol.name, "protocol": protocol,
        "points": [*floor, *points, *tested], "critic": critic,
        "memorisation": {"finding": audit["finding"], **audit["measures"], "nearest_pairs": pairs},
    }  # fmt: skip
    write_audit(out.path, audit)
    critic_chart = gap_chart(card.name, critic, "relative_gap") if critic else None
    drawn = {f"{metric}.svg": distance_chart(card.name, record, metric) for metric in ("fd", "kid")}
    for name, chart in (drawn | {"gap.svg": critic_chart}).items():
        if chart is not None:
            out.write(name, chart_file(chart))
    write_fidelity(out.path, record)
    return _summary(record, audit, num)


@dataclass
class _Measuring:
    """What every point needs: the parts, the extractor, and the features of reals, made once."""

    config: Config
    out: Run
    store: Store
    extractor: Extractor
    device: torch.device
    parts: Parts
    num: int
    made: dict[str, features_.Features] = field(default_factory=dict)
    sampled: tuple[Path, torch.Tensor] | None = None

    def reals(self, name: str) -> features_.Features:
        """Features of a part: read where an earlier run left them, else made and written."""
        if name not in self.made:
            folder = self.out / "features" / name
            if not (folder / features_.CARD_FILE).exists():
                self._embed(name, folder)
            self.made[name] = features_.read_features(folder)
            features_.check_comparable(next(iter(self.made.values())), self.made[name])
        return self.made[name]

    def _embed(self, name: str, folder: Path) -> None:
        made, rows = [], self.parts[name]
        with Meter(f"embedding {name} images", len(rows), "images") as meter:
            for start in range(0, len(rows), self.config.batch_size):
                images = self.store.read(rows[start : start + self.config.batch_size])
                made.append(self.extractor(images).numpy())
                meter.add(len(images))
        values, protocol = np.concatenate(made), self.extractor.protocol
        if not np.isfinite(values).all():
            raise InputError(f"extractor '{protocol.name}': {name} features are not finite; take another")
        card = features_.FeaturesCard(**protocol.record(), num=len(values), store=self.store.id)
        with features_.writing_features(folder, card, self.store.index.iloc[rows]) as features:
            features[:] = values

    def fakes(self, place: Path) -> NDArray[np.float32]:
        """Features of a generator's first `num` images of the seed."""
        made = [self.extractor(part).numpy() for part in self._images(place).split(self.config.batch_size)]
        return np.concatenate(made)

    def _images(self, place: Path) -> torch.Tensor:
        if self.sampled is None or self.sampled[0] != place:
            generator, _ = load_generator(place)
            if not all(value.isfinite().all() for value in generator.parameters()):
                raise RunError(f"{place}: weights are not finite, training diverged; use an earlier snapshot")
            with exact():
                self.sampled = place, generator.to(self.device).sample(self.num, self.config.seed)
        return self.sampled[1]

    def compare(self, images: int | None, label: str, part: str, others: NDArray[Any]) -> list[Row]:
        """Rows of one comparison: `num` reals of a part against as many others."""
        reals = self.reals(part)
        values, patients = reals.values[: self.num], reals.patient_ids[: self.num]
        nearest, level = self.config.nearest, self.config.level
        found = fidelity(values, others[: self.num], patients, nearest, level=level, product=inner_products)
        measured = {"fd": found.frechet, "kid": found.kernel.value, **asdict(found.manifold)}
        interval = {"low": _known(found.kernel.low), "high": _known(found.kernel.high)}
        sizes = {key: getattr(found, key) for key in ("num_fakes", "num_reals", "num_patients")}
        shared = {"images": images, "set": label, "low": None, "high": None, **sizes}
        return [
            {**shared, "metric": metric, "value": value, **(interval if metric == "kid" else {})}
            for metric, value in measured.items()
        ]

    def point(self, images: int, place: Path) -> dict[str, Any]:
        """Measures of one generator; read where an earlier run left them."""
        file = self.out / "points" / f"{images:09d}.json"
        if file.exists():
            return read_json(file, "`trabecula fidelity`")
        fakes = self.fakes(place)
        rows = [row for part in ("train", "val") for row in self.compare(images, part, part, fakes)]
        done = {"points": rows, "critic": [self._critic(images, place)] if has_critic(place) else []}
        file.parent.mkdir(exist_ok=True)
        self.out.write_json(f"points/{file.name}", done)
        self.out.log("point", images=images, **{f"{r['set']}_{r['metric']}": r["value"] for r in rows})
        return done

    @torch.inference_mode()
    def _critic(self, images: int, place: Path) -> dict[str, Any]:
        """Mean scores on the same images that the distances are of."""
        critic, encoder = load_critic(place).to(self.device), load_encoder(place).to(self.device)

        def scores(pixels: torch.Tensor) -> NDArray[Any]:
            with exact():
                values: torch.Tensor = critic(encoder.normalise(to_float(pixels.to(self.device))))
            return values.float().cpu().numpy()

        size = self.config.batch_size
        train, val = (
            np.concatenate([scores(self.store.read(rows[i : i + size])) for i in range(0, len(rows), size)])
            for rows in (self.parts[part][: self.num] for part in ("train", "val"))
        )
        fake = np.concatenate([scores(part) for part in self._images(place).split(size)])
        patients = [self.reals(part).patient_ids[: self.num] for part in ("train", "val")]
        gap = critic_gap(train, val, fake, patients[0], patients[1], level=self.config.level)
        return {
            "images": images, "train": gap.train, "val": gap.held_out, "fake": gap.fake, "gap": gap.gap,
            "low": _known(gap.low), "high": _known(gap.high), "relative_gap": _known(gap.relative),
        }  # fmt: skip


def _parts(config: Config, card: GeneratorCard, folder: Path, store: Store) -> tuple[Parts, int, int]:
    """Rows of real images by part, in order; how many every set has; the images that the pool is taken of.

    Training images are of patients whom the generator has seen, others of patients whom it has not. Those of
    the validation part's cohorts come first, and only these are compared: a second, unlabelled hospital in
    the pool would else look like an overfit gap.
    """
    splits = read_splits(config.splits)
    patients = store.index["patient_id"].to_numpy(dtype=str)
    real = np.array([not is_generated(patient) for patient in patients])
    of = np.array([splits.part(str(patient)) or "train" for patient in patients])
    seen = _seen(card, folder, patients)
    leaked = sorted(set(patients[(of != "train") & seen & real]))
    if leaked:
        raise InputError(
            f"{config.splits}: patient '{leaked[0]}' is in {splits.part(str(leaked[0]))}, and the generator "
            f"has seen {len(leaked)} of the held-out patients; give the splits that it was trained with"
        )
    order = np.random.default_rng(config.seed).permutation(len(patients))
    parts = {name: order[((of == name) & real & (seen | (name != "train")))[order]] for name in PARTS}
    alike = _of_cohorts(store, parts["train"], parts["val"])
    parts["train"] = parts["train"][np.argsort(~alike, kind="stable")]
    needed = {"train": "of a patient whom the generator has seen", "val": "of the validation part"}
    for name, whose in needed.items():
        if not len(parts[name]):
            raise InputError(f"{config.store}: holds no image {whose}; give its own store and splits")
    if not len(parts["test"]):
        del parts["test"]
    num = min(config.num, int(alike.sum()), *map(len, parts.values()))
    if num <= config.nearest:
        least = min(parts, key=lambda name: len(parts[name]))
        raise InputError(
            f"{config.store}: {least} has {len(parts[least])} images, so sets of {num}; "
            f"k = {config.nearest} needs at least {config.nearest + 1}; give the part more patients, "
            "or set a smaller nearest"
        )
    limits = {"train": max(num, config.pool), "val": max(num, config.pool), "test": num}
    return {name: rows[: limits[name]] for name, rows in parts.items()}, num, len(parts["train"])


def _of_cohorts(store: Store, rows: NDArray[np.int64], like: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of `rows` is of a cohort that `like` has; all, where no cohorts are named or none is."""
    if "cohort" not in store.index:
        return np.ones(len(rows), dtype=bool)
    cohorts = store.index["cohort"].to_numpy(dtype=str)
    found = np.array(in_any_spelling(cohorts[rows], set(cohorts[like])), dtype=bool)
    return found if found.any() else np.ones(len(rows), dtype=bool)


def _seen(card: GeneratorCard, folder: Path, patients: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(n,) whether the generator's card lists the patient."""
    if not card.patients:
        raise InputError(f"{folder}: its card lists no patients; measure a generator whose pool is known")
    found = seen_among(patients, dict(card))
    if found is None:
        raise InputError(
            f"{folder}: its patients were hashed with another site key ({card.patients_key}), so training "
            "and held-out images could not be separated; set TRABECULA_SITE_KEY to that site's key"
        )
    return np.isin(patients, found)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(record: dict[str, Any], audit: dict[str, Any], num: int) -> str:
    last = {row["set"]: f"{row['value']:.4g}" for row in record["points"] if row["metric"] == "fd"}
    return (
        f"{record['protocol']['frechet']} of {num:,} images {last['train']} to training, {last['val']} to "
        f"held-out images, {last['floor']} between the two; {audit['finding']}"
    )
