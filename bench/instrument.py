"""Does a study find what is there, and only that? `python bench/instrument.py --workers 2`

Each repeat is a small study of make-believe knees through the product's own verbs, from phantom to
evaluate: a fresh cohort, split and few-label subsets, and the critic at 64 px as "pretrained" arm and as
random arm, new random weights every time. What is counted is the claim in comparisons.json.

effect          the pretrained arm was taught the grades of another hospital, which it is to be found to know
null_noise      the same encoder; the grades are pure chance (phantom effect 0), so no arm can be better.
                Each hospital serves `--grades` studies: its own grades, then fresh ones by chance; the bar
                holds for those with their own grades alone, and for all
null_weights    "pretrained" is another random network; each label seed has its own network in either arm
one_network     as null_weights with one network an arm for all label seeds: reported, no bar (see below)

Prints one JSON line a kind and exits with 1 when a bar is missed. Two particular random networks do differ
a little; intervals over patients and label subsets are right to notice. Whether random networks *as such*
differ needs the network as the unit, as in null_weights: docs/concepts/evaluation.md, "Is the instrument
right?". The taught encoder is made once a run. `--sabotage` breaks the instrument on purpose.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from scipy import stats

LEVEL, ALPHA = 0.95, 0.01  # of intervals, and of claims: both are the defaults of `evaluate`
POWER = 0.8  # 16 of 20
KINDS = ("effect", "null_noise", "null_weights", "one_network")
SABOTAGE = ("labels", "errors", "images")
_TASK = {"kind": "binary", "labels": ["kl"], "positive": "kl >= 2", "classes": ["0", "1", "2", "3", "4"]}
_SIZE = 64
_TAUGHT, _TRUTH, _GRADES = 900_001, 900_002, 1_000_000  # seeds of hospitals that no repeat has


@dataclass(frozen=True)
class Plan:
    """Sizes of a repeat's study, and of what is made once a run."""

    patients: int = 360  # for a power above 0.95: with 200 it is 0.79, and 14 of 20 were found
    parts: tuple[float, float, float] = (0.4, 0.15, 0.45)
    fraction: float = 0.5  # 72 labelled patients to train on, 27 to choose by; 162 patients to test on
    seeds: int = 5  # label subsets: the fewest with which the interval is over new subsets as well
    taught_patients: int = 400
    taught_images: int = 8000  # budget of teaching; sets the size of the effect
    true_patients: int = 1200  # of the hospital on which the true difference is measured
    sabotage: str = ""


@dataclass(frozen=True)
class Hospital:
    """A prepared cohort with its splits."""

    folder: Path
    fraction: float
    num_seeds: int

    @property
    def shared(self) -> dict[str, Path]:
        return {"manifest": self.folder / "cohort", "splits": self.folder / "split"}


def make_hospital(folder: Path, plan: Plan, seed: int, effect: float) -> Hospital:
    """phantom -> cohort -> prepare -> split."""
    from trabecula import phantom, prepare
    from trabecula.run import execute

    settings = phantom.Config(num_patients=plan.patients, size=_SIZE, seed=seed, effect=effect)
    execute("phantom", settings, folder / "phantom")
    hospital = _with_table(folder, plan, seed, folder / "phantom" / "table.csv")
    execute("prepare", prepare.Config(manifest=folder / "cohort", size=_SIZE), folder / "store")
    return hospital


def _with_table(folder: Path, plan: Plan, seed: int, table: Path) -> Hospital:
    from trabecula import cohort, split
    from trabecula.config import build
    from trabecula.run import execute

    root = folder / "phantom" if (folder / "phantom").exists() else table.parent
    values = {"root": root / "images", "table": table, "tasks": {"kl2": _TASK}}
    execute("cohort", build(cohort.Config, values, "bench"), folder / "cohort")
    train, val, test = plan.parts
    settings = split.Config(
        manifest=folder / "cohort", task="kl2", train=train, val=val, test=test, seed=seed
    )
    execute("split", settings, folder / "split")
    return Hospital(folder, plan.fraction, plan.seeds)


def random_network(hospital: Hospital, store: Path, seed: int, arm: str = "critic-random") -> Path:
    """A random critic, as `pretrain` makes it; any other arm than the random one is dressed as pretrained."""
    from trabecula import pretrain
    from trabecula.nets.encoder import load_encoder
    from trabecula.run import execute

    made = hospital.folder / f"random-{seed}"
    execute("pretrain", pretrain.Config(store=store, architecture="critic", seed=seed, arm=arm), made)
    if arm == "critic-random":
        return made
    encoder = load_encoder(made)
    encoder.card = encoder.card.model_copy(update={"family": "pretrained"})
    encoder.save(hospital.folder / f"dressed-{seed}")
    return hospital.folder / f"dressed-{seed}"


def teach(folder: Path, plan: Plan) -> Path:
    """An encoder that knows grades: the five grades of another hospital, learned with all labels."""
    import torch

    from trabecula import cohort, phantom, prepare
    from trabecula.artifacts.manifest import read_manifest
    from trabecula.artifacts.patient_hashes import key_name, mark, site_key
    from trabecula.artifacts.store import Store, rows_of
    from trabecula.artifacts.tasks import find_task, truth
    from trabecula.data.batches import Stream
    from trabecula.nets.encoder import make_encoder
    from trabecula.objectives.classify import Classify, ClassifyConfig
    from trabecula.objectives.objective import Setting
    from trabecula.objectives.optim import Optimizer
    from trabecula.run import execute
    from trabecula.train.loop import train

    torch.set_num_threads(1)
    drawn = phantom.Config(num_patients=plan.taught_patients, size=_SIZE, seed=_TAUGHT)
    execute("phantom", drawn, folder / "phantom")
    table = pd.read_csv(folder / "phantom" / "table.csv", dtype=str)
    # phantoms are numbered alike in every hospital: these must not be taken for the patients of a repeat
    table["patient_id"] = "elsewhere-" + table["patient_id"]
    table.to_csv(folder / "table.csv", index=False)
    source = cohort.Config(root=folder / "phantom" / "images", table=folder / "table.csv")
    execute("cohort", source, folder / "cohort")
    execute("prepare", prepare.Config(manifest=folder / "cohort", size=_SIZE), folder / "store")
    store, manifest = Store.open(folder / "store"), read_manifest(folder / "cohort")
    grades = truth(find_task("kl", manifest), manifest)
    encoder = make_encoder("critic", store.channels, store.size, seed=_TAUGHT)
    settings = ClassifyConfig(num_classes=5, optimizer=Optimizer(name="adam", lr=1e-3))
    objective = Classify(settings, encoder, Setting(len(grades.y), 32, 0))
    rows = rows_of(store, grades.image_ids)
    stream = Stream(store, rows, 32, 0, torch.device("cpu"), {"labels": grades.y})
    seen = 0
    for point in train(
        objective, stream, images=plan.taught_images, every=plan.taught_images, precision="float32"
    ):
        seen = point.images
    key = site_key()
    encoder.card = encoder.card.model_copy(update={
        "name": "critic-taught", "family": "pretrained", "objective": "classify", "images_seen": seen,
        "store": store.id, "preprocessing": store.preprocessing, "patients_key": key_name(key),
        "patients": tuple(sorted(mark(sorted(set(grades.patient_ids.tolist())), key))),
    })  # fmt: skip
    encoder.save(folder / "encoder")
    return folder / "encoder"


@dataclass(frozen=True)
class Probed:
    """An encoder and its few-label predictions."""

    encoder: Path
    predictions: Path


def probed(hospital: Hospital, store: Path, encoder: Path, seeds: Sequence[int]) -> Probed:
    """embed -> probe; features are made once for each encoder and store."""
    from trabecula import embed, probe
    from trabecula.run import execute

    features = store.parent / f"features-{encoder.parent.name}-{encoder.name}"
    execute("embed", embed.Config(encoder=encoder, store=store), features)
    settings = probe.Config(
        features=features, task="kl2", fractions=(hospital.fraction,), seeds=tuple(seeds), **hospital.shared
    )
    out = hospital.folder / f"probe-{features.name}-{'-'.join(map(str, seeds))}"
    execute("probe", settings, out)
    return Probed(encoder, out)


def compare(hospital: Hospital, name: str, arms: Sequence[Probed]) -> dict[str, Any]:
    """evaluate; the one pair of the main metric, with its claim."""
    from trabecula import evaluate
    from trabecula.run import execute

    settings = evaluate.Config(
        predictions=tuple(arm.predictions for arm in arms), encoders=tuple(arm.encoder for arm in arms),
        metrics={"binary": ("auroc",)}, level=LEVEL, alpha=ALPHA, **hospital.shared,
    )  # fmt: skip
    out = hospital.folder / f"evaluate-{name}"
    execute("evaluate", settings, out)
    (pair,) = json.loads((out / "comparisons.json").read_text())["pairs"]
    return {"kind": name, **{key: pair[key] for key in ("difference", "low", "high", "p", "claim")}}


def sabotage(how: str) -> None:
    """Break the instrument in this process: what the bars are there to notice."""
    from trabecula import evaluate
    from trabecula.comparison import arms
    from trabecula.metrics import bootstrap

    if how == "labels":  # test labels of other images

        def shuffled(
            kind: str, names: Any, patients: Any, y: Any, weights: Any, sample: Any = evaluate.Sample
        ):
            return sample(kind, names, patients, np.random.default_rng(0).permutation(y), weights)

        evaluate.Sample = shuffled
    elif how == "images":  # images resampled as though no two were of one patient

        def alone(patients: Any, num_resamples: int, seed: int) -> Any:
            return bootstrap.resample(np.arange(len(patients)), num_resamples, seed)

        evaluate.resample = alone
    elif how == "errors":  # standard errors half of what they should be

        def narrow(*results: Any) -> Any:
            *_, df, level, _ = results
            found = bootstrap.difference(*results)
            error = (found.high - found.low) / 2 / stats.t.ppf((1 + level) / 2, df) / 2
            p = float(2 * stats.t.sf(abs(found.value) / error, df))
            return bootstrap.Difference(found.value, found.low, found.high, p, found.num_seeds, found.note)

        arms.difference = narrow


def with_effect(folder: Path, plan: Plan, taught: Path, repeat: int) -> list[dict[str, Any]]:
    """One fresh hospital whose knees show their grade: the kinds effect, null_weights, one_network."""
    hospital = make_hospital(folder, plan, repeat, effect=1.0)
    store, seeds = folder / "store", range(plan.seeds)
    first = 1000 * repeat  # of this repeat's random networks
    random = [random_network(hospital, store, first + i) for i in seeds]
    other = [random_network(hospital, store, first + 500 + i, "critic-other") for i in seeds]
    single = probed(hospital, store, random[0], seeds)
    rows = [
        compare(hospital, "effect", [single, probed(hospital, store, taught, seeds)]),
        compare(hospital, "one_network", [single, probed(hospital, store, other[0], seeds)]),
    ]
    each = [probed(hospital, store, encoder, [i]) for arm in (random, other) for i, encoder in enumerate(arm)]
    return [*rows, compare(hospital, "null_weights", each)]


def with_noise(folder: Path, plan: Plan, taught: Path, repeat: int, grades: int) -> list[dict[str, Any]]:
    """One fresh hospital whose grades are chance; further studies give its images other grades."""
    from trabecula.phantoms.patients import Joints, draw_patient

    seed = _GRADES + repeat * 1000
    hospital = make_hospital(folder, plan, seed, effect=0.0)
    store, seeds = folder / "store", range(plan.seeds)
    table = pd.read_csv(folder / "phantom" / "table.csv", dtype=str)
    rows = []
    for study in range(grades):
        if study:
            other = Joints(num_patients=plan.patients, seed=seed + study)
            drawn = [draw_patient(other, number).grades for number in range(plan.patients)]
            table["kl"] = [str(patient[side]) for patient in drawn for side in ("L", "R")]
            place = folder / f"study-{study}"
            place.mkdir()
            table.to_csv(place / "table.csv", index=False)
            (place / "images").symlink_to(folder / "phantom" / "images")
            hospital = _with_table(place, plan, seed + study, place / "table.csv")
        random = random_network(hospital, store, seed + study)
        arms = [probed(hospital, store, encoder, seeds) for encoder in (random, taught)]
        rows.append({**compare(hospital, "null_noise", arms), "own_grades": not study})
    return rows


def true_difference(folder: Path, plan: Plan, taught: Path) -> dict[str, float]:
    """Taught minus random in a large hospital, at as many labelled patients as a repeat has."""
    train, val = (plan.patients * part * plan.fraction for part in plan.parts[:2])
    share = [2 * n / plan.true_patients for n in (train, val)]
    large = Plan(plan.true_patients, (*share, 1 - sum(share)), 0.5, 2 * plan.seeds)
    hospital = make_hospital(folder, large, _TRUTH, effect=1.0)
    store = folder / "store"
    random = [random_network(hospital, store, _TRUTH + i) for i in range(large.seeds)]
    arms = [probed(hospital, store, encoder, [i]) for i, encoder in enumerate(random)]
    pair = compare(hospital, "truth", [*arms, probed(hospital, store, taught, range(large.seeds))])
    return {key: pair[key] for key in ("difference", "low", "high")}


def work(job: tuple[str, int, int], root: Path, plan: Plan, taught: Path) -> list[dict[str, Any]]:
    """One hospital's studies; its folder is removed at the end."""
    from trabecula.progress import Meter

    Meter.quiet = True
    kind, repeat, grades = job
    folder = root / f"{kind}-{repeat}"
    if plan.sabotage:
        sabotage(plan.sabotage)
    try:
        if kind == "truth":
            return [{"kind": "truth", **true_difference(folder, plan, taught)}]
        if kind == "noise":
            return with_noise(folder, plan, taught, repeat, grades)
        return with_effect(folder, plan, taught, repeat)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def most_claims(repeats: int) -> int:
    """Claims that a null may see: 1 in 20, and 1 in fewer."""
    return max(1, repeats // 20)


def summarise(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """(the JSON line of a kind, whether its bar is met)."""
    true = next((row for row in rows if row["kind"] == "truth"), None)
    for kind in KINDS:
        some = [row for row in rows if row["kind"] == kind]
        if not some:
            continue
        claims = [row["claim"] for row in some]
        apart = np.array([row["difference"] for row in some])
        half = float(np.mean([row["high"] - row["low"] for row in some])) / 2
        line: dict[str, Any] = {"name": f"instrument_{kind}", "repeats": len(some)}
        met = True
        if kind == "effect":
            line |= {"claimed": claims.count("better"), "needed": int(POWER * len(some))}
            met = line["claimed"] >= line["needed"]
            if true:
                line["true_difference"] = round(true["difference"], 3)
                line["true_interval"] = [round(true[key], 3) for key in ("low", "high")]
                error = half / stats.norm.ppf((1 + LEVEL) / 2)
                power = stats.norm.cdf(true["difference"] / error - stats.norm.ppf(1 - ALPHA / 2))
                line["power"] = round(float(power), 2)
        else:
            line["claimed"] = len(claims) - claims.count("none")
            if kind != "one_network":
                line["at_most"] = most_claims(len(some))
                met = line["claimed"] <= line["at_most"]
            if kind == "null_noise":
                own = [row["claim"] for row in some if row["own_grades"]]
                claimed, most = len(own) - own.count("none"), most_claims(len(own))
                line["with_own_grades"] = {"repeats": len(own), "claimed": claimed, "at_most": most}
                met = met and claimed <= most  # the fresh hospitals alone must hold as well
            line["true_difference"] = 0.0
        line["mean_difference"] = round(float(apart.mean()), 3)
        line["sd_difference"] = round(float(apart.std(ddof=1)), 3) if len(some) > 1 else None
        line["mean_half_width"] = round(half, 3)
        yield line | {"met": met}, met


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="fresh hospitals of each kind")
    parser.add_argument("--first", type=int, default=1, help="number of the first hospital, for fresh ones")
    parser.add_argument("--grades", type=int, default=5, help="studies on each hospital of null_noise")
    parser.add_argument("--kinds", nargs="+", default=["effect", "noise"], choices=["effect", "noise"])
    parser.add_argument("--fast", action="store_true", help="4 repeats, and 12 studies on one hospital")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--sabotage", default="", choices=("", *SABOTAGE), help="break the instrument")
    args = parser.parse_args(arguments)
    os.environ.setdefault("TRABECULA_SITE_KEY", "a key for phantoms only")
    plan = Plan(sabotage=args.sabotage)
    numbers = range(args.first, args.first + (4 if args.fast else args.repeats))
    jobs = [("effect", i, 1) for i in numbers]
    jobs += [("noise", args.first, 12)] if args.fast else [("noise", i, args.grades) for i in numbers]
    jobs = [job for job in jobs if job[0] in args.kinds]
    if "effect" in args.kinds and not args.fast and not args.sabotage:
        jobs.insert(0, ("truth", 0, 1))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="instrument-") as name:
        root = Path(name)
        taught = teach(root / "elsewhere", plan)
        print(f"taught in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        rows = []
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.workers, mp_context=context) as pool:
            futures = {pool.submit(work, job, root, plan, taught): job for job in jobs}
            for future in as_completed(futures):
                for row in future.result():
                    rows.append(row)
                    print(json.dumps({"job": futures[future][:2], **row}), file=sys.stderr, flush=True)
    met = True
    for line, good in summarise(rows):
        line |= {"sabotage": args.sabotage} if args.sabotage else {}
        print(json.dumps(line), flush=True)
        met &= good
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
