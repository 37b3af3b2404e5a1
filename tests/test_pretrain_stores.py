"""pretrain on two domains: one pool, whom the card lists, what other verbs make of the encoder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from trabecula import cohort, embed, prepare, pretrain, split
from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.patient_hashes import mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, open_stores
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.grid.cells import plan
from trabecula.recipe import parse_recipe
from trabecula.run import execute

SIDELESS = "{patient_id:3}*_{kl}.png"


@dataclass(frozen=True)
class Domain:
    """Folders of one data set."""

    images: Path
    cohort: Path
    store: Path
    split: Path


@pytest.fixture(scope="module")
def domains(
    make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Domain, Domain]:
    """Knees with sides, mirrored, and chests without; patients of equal numbers, told apart by a prefix."""
    found = []
    for seed, name, pattern in (
        (1, "knee", "{patient_id:3}{side:1}_{kl}.png"),
        (2, "chest", "{patient_id:3}*_{kl}.png"),
    ):
        images = make_store(num_patients=12, seed=seed, name=name) / "images"
        root = tmp_path_factory.mktemp(name)
        prefix = "" if name == "knee" else "chest-"
        execute("cohort", cohort.Config(root=images, pattern=pattern, prefix=prefix), root / "cohort")
        given = split.Config(manifest=root / "cohort", task="kl", train=0.5, val=0.25, test=0.25, seed=seed)
        execute("split", given, root / "split")
        flip = "R" if name == "knee" else ""
        execute("prepare", prepare.Config(manifest=root / "cohort", size=32, flip_side=flip), root / "store")
        found.append(Domain(images, root / "cohort", root / "store", root / "split"))
    return found[0], found[1]


def config(domains: tuple[Domain, Domain], **settings: object) -> pretrain.Config:
    knees, chests = domains
    values = {
        "store": knees.store, "splits": knees.split, "also": (chests.store,), "also_splits": (chests.split,),
        "architecture": "critic:4-8-8-8-8", "objective": "moco", "settings": {"queue": 8, "bn_rows": 4},
        "images": 64, "every": 32, "batch_size": 8, "precision": "float32",
    }  # fmt: skip
    return pretrain.Config(**{**values, **settings})


def trained(domains: tuple[Domain, Domain]) -> set[str]:
    return {p for domain in domains for p in read_splits(domain.split).patients("train")}


def test_the_pool_is_the_union_and_the_card_lists_the_patients_of_both(
    domains: tuple[Domain, Domain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: Counter[int] = Counter()
    real = Stream.batch

    def batch(self: Stream, number: int) -> object:
        found = real(self, number)
        drawn.update(found.rows.tolist())
        return found

    monkeypatch.setattr(Stream, "batch", batch)
    told = execute("pretrain", config(domains, images=96), tmp_path / "run")
    card, stores = read_encoder_card(tmp_path / "run"), [Store.open(domain.store) for domain in domains]
    assert set(card.patients) == set(mark(trained(domains), site_key()))
    assert card.stores == tuple(store.id for store in stores)
    assert card.store not in card.stores
    assert (card.preprocessing, card.prepared) == (stores[0].preprocessing, stores[0].prepared)
    assert "96 images seen of 24 from 12 patients" in told
    assert "are they of this store" not in told
    index = open_stores(domains[0].store, [domains[1].store]).index
    pool = [row for row, patient in enumerate(index["patient_id"]) if patient in trained(domains)]
    assert drawn == Counter(dict.fromkeys(pool, 4))  # each equally often, and no other


def test_the_order_of_the_stores_changes_no_patient(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    execute("pretrain", config(domains, pool_fraction=0.5), tmp_path / "one")
    execute("pretrain", config(domains[::-1], pool_fraction=0.5), tmp_path / "two")
    cards = [read_encoder_card(tmp_path / name) for name in ("one", "two")]
    assert cards[0].patients == cards[1].patients
    assert len(cards[0].patients) == 6
    assert cards[0].preprocessing == cards[1].preprocessing


def test_a_killed_run_ends_with_the_same_bytes(
    domains: tuple[Domain, Domain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("pretrain", config(domains), tmp_path / "whole")
    execute("pretrain", config(domains, seed=1), tmp_path / "seed")
    from trabecula.train import loop

    real, calls = loop._one_step, []

    def killed(*args: object) -> None:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_one_step", killed)
    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    with pytest.raises(KeyboardInterrupt):
        execute("pretrain", config(domains), tmp_path / "killed")
    calls.clear()
    calls.extend([1] * 10)
    execute("pretrain", config(domains), tmp_path / "killed")
    assert 10 < len(calls) < 10 + 8  # it went on, and not from the start
    for name in ("encoder.safetensors", "encoder.json", "training.json"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == whole, name
        assert (tmp_path / "seed" / name).read_bytes() != whole, name


def test_leaks_of_either_domain_are_found(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    """Whoever is held out for knees or for chests; each time the wrong splits are one store's alone."""
    execute("pretrain", config(domains), tmp_path / "sound")
    for place, domain in enumerate(domains):
        given = {"manifest": domain.cohort, "check": True, "splits": domain.split}
        execute("split", split.Config(**given, encoders=(tmp_path / "sound",)), tmp_path / f"check-{place}")
        everyone = tmp_path / f"everyone-{place}.csv"
        people = read_splits(domain.split).of
        everyone.write_text("patient_id,split\n" + "".join(f"{p},train\n" for p in people))
        wrong = {"splits": everyone} if place == 0 else {"also_splits": (everyone,)}
        leaky = tmp_path / f"leaky-{place}"
        execute("pretrain", config(domains, **wrong), leaky)
        with pytest.raises(
            InputError, match=r"6 leaks: manifest row \d+: (val|test) patient .* was seen by the"
        ):
            execute("split", split.Config(**given, encoders=(leaky,)), tmp_path / f"found-{place}")


def test_a_patient_held_out_for_one_domain_is_in_no_image_of_the_other(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    """Without a prefix equal ids are one person: whose knees are to be tested gives no chest film."""
    execute(
        "cohort",
        cohort.Config(root=domains[1].images, pattern="{patient_id:3}*_{kl}.png"),
        tmp_path / "cohort",
    )
    execute(
        "prepare", prepare.Config(manifest=tmp_path / "cohort", size=32, flip_side=""), tmp_path / "store"
    )
    given = config(domains, also=(tmp_path / "store",), also_splits=())
    execute("pretrain", given, tmp_path / "run")
    train = read_splits(domains[0].split).patients("train")
    assert set(read_encoder_card(tmp_path / "run").patients) == set(mark(train, site_key()))


def test_a_store_that_no_splits_know_is_told_before_and_after(
    domains: tuple[Domain, Domain],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "none of store 2 is in the splits, are they of this store?"
    assert text in execute("pretrain", config(domains, also_splits=()), tmp_path / "run")
    capsys.readouterr()
    monkeypatch.setattr("trabecula.train.pretraining.train", lambda *_, **__: iter(()))
    execute("pretrain", config(domains, also_splits=()), tmp_path / "untrained")
    assert f"warning: every image of the pool is learned from; {text}" in capsys.readouterr().err


def test_labels_are_those_of_the_first_store(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    knees = domains[0]
    given = config(
        domains, objective="classify", settings={}, manifest=knees.cohort, task="kl", batch_size=4, images=16,
        every=16,
    )  # fmt: skip
    execute("pretrain", given, tmp_path / "run")
    train = read_splits(knees.split).patients("train")
    assert set(read_encoder_card(tmp_path / "run").patients) == set(mark(train, site_key()))


def test_an_encoder_of_one_domain_reads_the_other(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    knees, chests = domains
    alone = config(domains, store=chests.store, splits=chests.split, also=(), also_splits=())
    execute("pretrain", alone, tmp_path / "chest")
    execute("pretrain", config(domains), tmp_path / "both")
    for name in ("chest", "both"):
        for domain in domains:
            given = embed.Config(encoder=tmp_path / name, store=domain.store)
            execute("embed", given, tmp_path / f"{name}-{domain.store.parent.name}")
    right = prepare.Config(manifest=knees.cohort, size=32, flip_side="L")
    execute("prepare", right, tmp_path / "left")
    execute("embed", embed.Config(encoder=tmp_path / "chest", store=tmp_path / "left"), tmp_path / "fine")
    with pytest.raises(
        InputError, match='flip_side is "L", wanted "R"'
    ):  # "both" learned from mirrored knees
        execute("embed", embed.Config(encoder=tmp_path / "both", store=tmp_path / "left"), tmp_path / "no")
    for settings, said in (
        ({"intensity": "as-is"}, 'intensity.rule is "as-is", wanted "percentile"'),
        ({"size": 48}, "size is 48, wanted 32"),
        ({"bits": 16}, "bits is 16, wanted 8"),
    ):
        name = str(*settings)
        other = tmp_path / f"other-{name}"
        execute("prepare", prepare.Config(**{"manifest": knees.cohort, "size": 32, **settings}), other)
        with pytest.raises(InputError, match=said):
            execute("embed", embed.Config(encoder=tmp_path / "chest", store=other), tmp_path / f"e-{name}")
        with pytest.raises(InputError, match=said) as told:
            execute("pretrain", config(domains, also=(other,)), tmp_path / f"p-{name}")
        assert "\n" not in str(told.value)


def test_generated_images_beside_real_ones_list_whom_their_generator_saw(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    shutil.copytree(domains[1].store, tmp_path / "made")
    record = json.loads((tmp_path / "made" / "store.json").read_text())
    seen = mark(["somebody"], site_key())
    from trabecula.artifacts.patient_hashes import key_name

    origin = {"patients": seen, "patients_key": key_name(site_key()), "images_seen": 5}
    for made, listed in ((origin, True), ({"patients": [], "images_seen": 5}, False)):
        (tmp_path / "made" / "store.json").write_text(json.dumps({**record, "generated": made}))
        index = tmp_path / "made" / "index.csv"
        table = Store.open(tmp_path / "made").index.assign(patient_id="generator-0123456789ab")
        table.to_csv(index, index=False)
        out = tmp_path / f"run-{listed}"
        told = execute("pretrain", config(domains, also=(tmp_path / "made",), also_splits=()), out)
        patients = set(read_encoder_card(out).patients)
        if listed:
            knees = read_splits(domains[0].split).patients("train")
            assert patients == {*mark([*knees, "generator-0123456789ab"], site_key()), *seen}
        else:
            assert patients == set()
            assert "evaluate refuses it" in told


def test_references_are_inputs_and_dependencies(tmp_path: Path) -> None:
    """In a recipe: both stores and both splits are made before, and an arm that has no second store waits
    for none."""
    stages = {
        f"{name}-{stage}": {"verb": stage, **given}
        for name in ("knee", "chest")
        for stage, given in {
            "phantom": {"num_patients": 8, "size": 32, "seed": len(name)},
            "cohort": {"root": f"@{name}-phantom/images", "table": f"@{name}-phantom/table.csv"},
            "split": {"manifest": f"@{name}-cohort", "task": "kl"},
            "prepare": {"manifest": f"@{name}-cohort", "size": 32},
        }.items()
    }
    stages["pretrain"] = {"store": "@knee-prepare", "splits": "@knee-split", "architecture": "critic"}
    both = {"also": ["@chest-prepare"], "also_splits": ["@chest-split"], "objective": "moco"}
    axes = {"arm": {"random": {"pretrain": {}}, "both": {"pretrain": both}}}
    made = plan(parse_recipe({"stages": stages, "axes": axes}, "recipe"), tmp_path)
    ids = {name: cells[0].id for name, cells in made.stages.items()}
    alone, mixed = made.stages["pretrain"]
    assert set(alone.needs) == {ids["knee-prepare"], ids["knee-split"]}
    assert set(mixed.needs) == {*alone.needs, ids["chest-prepare"], ids["chest-split"]}
    assert mixed.config.also == (made.stages["chest-prepare"][0].folder,)
    stages["chest-prepare"]["fit"] = "pad"
    with pytest.raises(InputError, match='\'also\': fit is "pad", wanted "crop"'):
        plan(parse_recipe({"stages": stages, "axes": axes}, "recipe"), tmp_path)


def test_rows_are_drawn_from_both_stores(domains: tuple[Domain, Domain]) -> None:
    both = open_stores(domains[0].store, [domains[1].store])
    first = Stream(both, np.arange(len(both)), 24, 0).batch(0).rows
    assert 0 < int((first < len(Store.open(domains[0].store))).sum()) < 24
