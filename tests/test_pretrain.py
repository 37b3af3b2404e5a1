"""pretrain: the pool, the card, resume, arms without pretraining."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trabecula import pretrain, split
from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.nets.generators.generator import load_generator
from trabecula.objectives.wgan_gp import WganGp
from trabecula.progress import Meter
from trabecula.run import execute, identity, recorded


@pytest.fixture(scope="module")
def splits(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("splits") / "split"
    execute(
        "split", split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25), out
    )
    return out


def config(hospital: Path, splits: Path, **settings: object) -> pretrain.Config:
    values = {
        "store": hospital / "store", "splits": splits, "architecture": "critic", "objective": "wgan_gp",
        "settings": {"critic_steps": 2}, "images": 64, "every": 16, "batch_size": 8, "precision": "float32",
    }  # fmt: skip
    return pretrain.Config(**{**values, **settings})


@pytest.mark.parametrize(("width", "told"), [(4096, True), (64, False)])
def test_a_projector_far_larger_than_its_encoder_is_told_of(
    hospital: Path, splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int, told: bool
) -> None:
    few = {"architecture": "critic:8-16", "objective": "vicreg", "settings": {"width": width}, "images": 8}
    execute("pretrain", config(hospital, splits, **few), tmp_path / "run")
    heavy = "note: vicreg trains 38 million weights beside the encoder's 0.0 million, and on a CPU"
    assert (heavy in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("init", "told"), [("random", "random weights"), ("encoder", "another encoder's weights")]
)
def test_an_arm_without_pretraining_says_what_it_starts_from(
    hospital: Path, splits: Path, tmp_path: Path, init: str, told: str
) -> None:
    plain = {"objective": "none", "settings": {}}
    execute("pretrain", config(hospital, splits, **plain), tmp_path / "first")
    weights = {"weights": tmp_path / "first", "init": init, "arm": "again"} if init == "encoder" else {}
    summary = execute("pretrain", config(hospital, splits, **plain, **weights), tmp_path / "run")
    assert summary.endswith(f" features of {told}, no pretraining")


def test_the_card_says_what_was_seen_and_by_whom(hospital: Path, splits: Path, tmp_path: Path) -> None:
    summary = execute("pretrain", config(hospital, splits), tmp_path / "run")
    card = read_encoder_card(tmp_path / "run")
    assert (card.name, card.family, card.objective, card.images_seen) == (
        "critic-wgan_gp",
        "pretrained",
        "wgan_gp",
        64,
    )
    assert (card.settings["critic_steps"], card.settings["penalty"]) == (2, 10.0)  # defaults too
    assert "64 images seen of 12 from 6 patients" in summary
    assert "asked for" not in summary
    key = site_key()
    assert card.patients_key == key_name(key)
    assert list(card.patients) == sorted(mark(read_splits(splits).patients("train"), key))
    text = (tmp_path / "run" / "encoder.json").read_text()
    assert not any(f'"{patient}"' in text for patient in read_splits(splits).of)
    points = json.loads((tmp_path / "run" / "training.json").read_text())["points"]
    assert [p["images"] for p in points] == [16, 32, 48, 64]
    generator, told = load_generator(tmp_path / "run")
    assert (told.images_seen, generator.latent) == (64, 100)
    samples = np.load(tmp_path / "run" / "samples.npy")
    assert samples.shape == (64, 1, 32, 32)
    assert samples.dtype == np.uint8
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_budget_that_is_no_whole_number_of_steps_is_told(
    hospital: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    monkeypatch.setattr(Meter, "reach", lambda _, done, *__: heard.append(done))
    summary = execute("pretrain", config(hospital, splits, images=50), tmp_path / "run")
    assert "64 images seen of 12 from 6 patients (50 asked for, in whole steps of 16)" in summary
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(one["asked"], one["images"]) for one in lines if one["event"] == "budget"] == [(50, 64)]
    # between the points of the curve each batch of 8 is told of, so that time left is soon known
    assert heard == [0, 8, 16, 16, 24, 32, 32, 40, 48, 48, 56, 64]


def test_the_same_settings_give_the_same_bytes_and_a_killed_run_goes_on(
    hospital: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("pretrain", config(hospital, splits), tmp_path / "whole")
    from trabecula.train import loop

    real, calls = loop._one_step, []

    def killed(*args: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_one_step", killed)
    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    with pytest.raises(KeyboardInterrupt):
        execute("pretrain", config(hospital, splits), tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    calls.clear()
    calls.extend([1] * 10)
    execute("pretrain", config(hospital, splits), tmp_path / "killed")
    assert len(calls) == 12  # two steps were left of four
    for name in (
        "encoder.safetensors",
        "encoder.json",
        "training.json",
        "generator.safetensors",
        "samples.npy",
    ):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_arms_without_pretraining(hospital: Path, tmp_path: Path) -> None:
    values = {"store": hospital / "store", "architecture": "critic"}
    execute("pretrain", pretrain.Config(**values, seed=1), tmp_path / "one")
    execute("pretrain", pretrain.Config(**values, seed=2), tmp_path / "two")
    cards = [read_encoder_card(tmp_path / name) for name in ("one", "two")]
    assert [(c.name, c.family, c.objective, c.images_seen, c.patients) for c in cards] == [
        ("critic-random", "random", "none", 0, ())
    ] * 2
    assert cards[0].preprocessing == Store.open(hospital / "store").preprocessing
    a, b = (tmp_path / name / "encoder.safetensors" for name in ("one", "two"))
    assert a.read_bytes() != b.read_bytes()


def test_a_runs_identity_holds_the_methods_defaults(
    hospital: Path, splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given or left out, a default is the same run; a default that changes makes another one."""
    given = config(hospital, splits)
    whole = config(hospital, splits, settings=given.settings)
    assert (given.settings["critic_steps"], given.settings["penalty"]) == (2, 10.0)
    before = recorded("pretrain", given, 1, str)
    assert recorded("pretrain", whole, 1, str) == before

    class Changed(WganGp.Config):
        penalty: float = 1.0

    monkeypatch.setattr(WganGp, "Config", Changed)
    assert recorded("pretrain", config(hospital, splits), 1, str) != before


def test_a_second_pretraining_keeps_what_the_first_has_seen(
    hospital: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute("pretrain", config(hospital, splits), tmp_path / "first")
    again = config(hospital, splits, init="encoder", weights=tmp_path / "first", arm="twice")
    execute("pretrain", again, tmp_path / "second")
    card = load_encoder(tmp_path / "second").card
    assert (card.name, card.images_seen) == ("twice", 128)
    assert card.patients == read_encoder_card(tmp_path / "first").patients
    monkeypatch.setenv("TRABECULA_SITE_KEY", "another key")
    with pytest.raises(InputError, match="hashed with another site key"):
        execute("pretrain", again, tmp_path / "third")
    assert not (tmp_path / "third" / "checkpoint.pt").exists()
    assert '"point"' not in (tmp_path / "third" / "log.jsonl").read_text()  # refused before the work


def test_bad_input_is_one_line(hospital: Path, splits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the splits file"):
        execute("pretrain", config(hospital, splits).model_copy(update={"splits": None}), tmp_path / "a")
    nobody = tmp_path / "splits.csv"
    patients = read_splits(splits).of
    nobody.write_text("patient_id,split\n" + "".join(f"{p},test\n" for p in patients))
    with pytest.raises(InputError, match="none is left"):
        execute("pretrain", config(hospital, nobody), tmp_path / "b")


def test_snapshots_hold_what_the_run_held_then(hospital: Path, splits: Path, tmp_path: Path) -> None:
    """The snapshot of 32 images is a run of 32 images, byte for byte but for its arm's name; the last one is
    the run itself."""
    settings = {"settings": {"critic_steps": 2, "ema": 0.5}}
    execute("pretrain", config(hospital, splits, **settings, snapshots=32), tmp_path / "long")
    execute("pretrain", config(hospital, splits, **settings, images=32), tmp_path / "short")
    folders = sorted(path.name for path in (tmp_path / "long" / "snapshots").iterdir())
    assert folders == ["000000032", "000000064"]
    for name in (
        "encoder.safetensors", "encoder.json", "generator.safetensors", "generator.json",
        "critic.safetensors",
    ):  # fmt: skip
        kept = [tmp_path / "long" / "snapshots" / folder / name for folder in folders]
        for early, run, arm in (
            (kept[0], "short", "critic-wgan_gp@32"),
            (kept[1], "long", "critic-wgan_gp@64"),
        ):
            held = early.read_bytes().replace(f'"{arm}"'.encode(), b'"critic-wgan_gp"')
            assert held == (tmp_path / run / name).read_bytes(), name
    early = tmp_path / "long" / "snapshots" / "000000032"
    assert (read_encoder_card(early).name, read_encoder_card(early).images_seen) == ("critic-wgan_gp@32", 32)
    assert load_generator(early)[1].images_seen == 32
    assert identity(early) == f"{identity(tmp_path / 'long')}/snapshots/000000032"


def test_a_killed_run_ends_with_all_its_snapshots(
    hospital: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trabecula.train import loop

    real, calls = loop._one_step, []

    def killed(*args: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    execute("pretrain", config(hospital, splits, snapshots=16), tmp_path / "whole")
    monkeypatch.setattr(loop, "_one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        execute("pretrain", config(hospital, splits, snapshots=16), tmp_path / "killed")
    calls.clear()
    calls.extend([1] * 10)
    execute("pretrain", config(hospital, splits, snapshots=16), tmp_path / "killed")
    trees = [
        {str(p.relative_to(root)): p.read_bytes() for p in (root / "snapshots").rglob("*") if p.is_file()}
        for root in (tmp_path / "whole", tmp_path / "killed")
    ]
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4 * 5


def test_methods_without_a_generator_keep_the_encoder(hospital: Path, splits: Path, tmp_path: Path) -> None:
    moco = {"objective": "moco", "settings": {"queue": 8, "bn_rows": 4}, "snapshots": 32}
    execute("pretrain", config(hospital, splits, **moco), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "snapshots" / "000000032").iterdir())
    assert kept == ["encoder.json", "encoder.safetensors"]


@pytest.mark.parametrize("key", ["arm", "weights_name"])
def test_names_that_would_read_as_snapshots_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=rf"'{key}': an '@' marks snapshots.*leave it out") as error:
        build(pretrain.Config, {"store": "s", key: "gan@128"}, "pretrain")
    assert "\n" not in str(error.value)


def test_snapshots_come_at_points() -> None:
    with pytest.raises(InputError, match="snapshots are taken at points: set every to 8 or less"):
        build(pretrain.Config, {"store": "s", "every": 16, "snapshots": 8}, "pretrain")


def test_what_is_wrong_is_said_on_the_terminal_in_the_log_and_in_the_curve(
    hospital: Path, splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"name": "adam", "lr": 1e-3, "betas": [0.0, 0.99]}
    settings = {"critic_steps": 5, "critic": quick, "generator": quick}
    values = {"architecture": "critic:8-16-32-64-128", "images": 960, "every": 240}
    execute("pretrain", config(hospital, splits, **values, settings=settings), tmp_path / "well")
    assert json.loads((tmp_path / "well" / "training.json").read_text())["findings"] == []
    assert "warning" not in capsys.readouterr().err
    execute(
        "pretrain", config(hospital, splits, **values, settings={**settings, "penalty": 0}), tmp_path / "ill"
    )
    training = json.loads((tmp_path / "ill" / "training.json").read_text())
    (slope,) = [finding for finding in training["findings"] if finding["name"] == "gradient norm"]
    assert (slope["first"] <= slope["last"], slope["last"]) == (True, 960)
    assert "far from 1" in slope["text"]
    assert training["points"][-1]["health/gradient_norm"] > 2
    told = capsys.readouterr().err
    assert (
        told.count("the norm of the critic's input gradient between real and made images is") == 1
    )  # once, not at each point
    assert told.startswith("warning: at ")
    log = [json.loads(line) for line in (tmp_path / "ill" / "log.jsonl").read_text().splitlines()]
    assert "gradient norm" in [line["name"] for line in log if line["event"] == "finding"]


def test_pools_in_which_there_is_nothing_to_see_are_refused(
    hospital: Path, splits: Path, tmp_path: Path
) -> None:
    first = Store.open(hospital / "store").read(np.arange(1)).numpy()
    greys = np.arange(24, dtype=np.uint8)[:, None, None, None]
    for name, image, word in (("same", first, "all the same image"), ("blank", greys, "each of one grey")):
        images = np.broadcast_to(image, (24, 1, 32, 32))
        shutil.copytree(hospital / "store", tmp_path / name)
        (array,) = (tmp_path / name).glob("images-*.npy")
        np.save(array, images)
        with pytest.raises(InputError, match=word):
            execute("pretrain", config(hospital, splits, store=tmp_path / name), tmp_path / f"{name}-run")
    with pytest.raises(InputError, match="a batch of 64 is larger than the pool of 12 images"):
        execute("pretrain", config(hospital, splits, batch_size=64), tmp_path / "few")


@pytest.mark.parametrize("name", ["wgan", "gan_r1", "sn_gan", "r3gan"])
def test_every_adversarial_method_leaves_a_critic_and_a_generator(
    name: str, hospital: Path, splits: Path, tmp_path: Path
) -> None:
    """What is on disk scores and draws by itself: for sn_gan too, whose weights are used normalised."""
    values = {"objective": name, "settings": {"critic_steps": 1}, "images": 16, "architecture": "critic:4-8"}
    execute("pretrain", config(hospital, splits, **values, snapshots=16), tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "run" / "snapshots" / "000000016"):
        critic, (generator, card) = load_critic(folder), load_generator(folder)
        assert (card.objective, card.settings["widths"]) == (name, [8, 4, 2])
        images = generator.sample(3, seed=0).float() / 127.5 - 1
        with torch.no_grad():
            scores = critic(images)
        assert scores.shape == (3,)
        assert torch.isfinite(scores).all()
        if name == "sn_gan":
            norms = [
                torch.linalg.matrix_norm(w.detach().flatten(1), 2) for w in critic.parameters() if w.ndim > 1
            ]
            assert max(map(float, norms)) == pytest.approx(1, abs=0.35)  # after a few power iterations
