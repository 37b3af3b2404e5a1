"""Ctrl-C and SIGTERM: nothing that was computed is lost, and the message says from where the work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searched_study import artifacts, config, start
from trabecula import finetune, prepare, pretrain
from trabecula.artifacts.store import Store
from trabecula.data import shards
from trabecula.data.batches import Stream
from trabecula.errors import RunError
from trabecula.run import execute
from trabecula.stopping import Stopped, as_ctrl_c, stop_later
from trabecula.train import loop
from trabecula.transfer import fine_tuning
from train.test_loop import Toy


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals are heard as in the command line, and afterwards as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    as_ctrl_c()
    yield
    now = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert set(now.values()) == {signal.default_int_handler}  # what listened for a while listens no more


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(hospital, tmp_path_factory.mktemp("stopped"))


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """A signal within the step of this number, counted over all runs of the test; gives the steps made."""

    def arrange(step: int, *numbers: int) -> list[int]:
        real, made = loop._one_step, []

        def one_step(*args: object) -> None:
            if len(made) + 1 == step:
                for number in numbers or (signal.SIGINT,):
                    os.kill(os.getpid(), number)
            real(*args)  # type: ignore[arg-type]
            made.append(args[4])

        monkeypatch.setattr(loop, "_one_step", one_step)
        return made  # type: ignore[return-value]

    return arrange


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_waits_and_the_second_does_not(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = []

    def work() -> None:
        with stop_later() as asked:
            answers.append(asked())
            os.kill(os.getpid(), number)
            answers.append(asked())
            os.kill(os.getpid(), number)
            answers.append(asked())

    with pytest.raises(KeyboardInterrupt):
        work()
    assert answers == [False, True]
    assert capfd.readouterr().err.count("a second Ctrl-C stops at once") == 1


def test_a_signal_that_nobody_asks_for_ends_the_work_after_it() -> None:
    done = []

    def work() -> None:
        with stop_later():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_an_ignored_signal_stays_ignored_and_other_threads_hear_none() -> None:
    """A command begun in the background by a script ignores Ctrl-C, and under nohup the closed terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_later() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert not asked()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    heard: list[bool] = []

    def work() -> None:
        with stop_later() as asked:
            heard.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]


@pytest.mark.parametrize("step", [1, 2, 4, 5])  # of five, of which two make a point
def test_a_loop_stopped_at_any_step_goes_on_as_if_it_had_not_been(
    step: int, store: Store, tmp_path: Path, signal_at: Callable[..., list[int]]
) -> None:
    stream = Stream(store, np.arange(len(store)), 8, seed=1)
    whole, path = list(loop.train(Toy(), stream, images=40, every=16)), tmp_path / "checkpoint.pt"
    made = signal_at(step)
    with pytest.raises(Stopped, match=f"^{8 * step} images$"):
        list(loop.train(Toy(), stream, images=40, every=16, checkpoint=path))
    points = whole[: step // 2 + step // 5]  # those that the generator gave before it ended
    points += list(loop.train(Toy(), stream, images=40, every=16, checkpoint=path))
    assert points == whole
    assert made == [0, 1, 2, 3, 4]


def test_a_second_signal_says_what_is_kept(
    store: Store, tmp_path: Path, signal_at: Callable[..., list[int]]
) -> None:
    stream, path = Stream(store, np.arange(len(store)), 8, seed=1), tmp_path / "checkpoint.pt"
    signal_at(4, signal.SIGINT, signal.SIGTERM)
    with pytest.raises(Stopped, match=r"^16 images$"):  # of the last checkpoint, at a point
        list(loop.train(Toy(), stream, images=40, every=16, checkpoint=path, save_s=0))
    signal_at(2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(Stopped, match=r"^the start$"):
        list(loop.train(Toy(), stream, images=40, every=16, checkpoint=tmp_path / "other.pt"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pretraining_goes_on_from_the_step_it_was_stopped_in(
    hospital: Path, root: Path, tmp_path: Path, signal_at: Callable[..., list[int]], number: int
) -> None:
    moco = pretrain.Config(
        store=hospital / "store", splits=root / "split", architecture="critic:8-16", objective="moco",
        settings={"queue": 8, "bn_rows": 4}, images=64, every=32, batch_size=8, precision="float32",
    )  # fmt: skip
    execute("pretrain", moco, tmp_path / "whole")
    made = signal_at(6, number)
    with pytest.raises(Stopped, match=r"^48 images$"):
        execute("pretrain", moco, tmp_path / "part")
    execute("pretrain", moco, tmp_path / "part")
    assert made == list(range(8))
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")


def test_a_fine_tuning_goes_on_from_the_step_it_was_stopped_in(
    hospital: Path, root: Path, tmp_path: Path, signal_at: Callable[..., list[int]]
) -> None:
    wanted = finetune.Config(
        encoder=root / "encoder0", store=hospital / "store", manifest=hospital / "cohort",
        splits=root / "split", task="kl >= 1", images=64, every=24, batch_size=8, precision="float32",
    )  # fmt: skip
    execute("finetune", wanted, tmp_path / "whole")
    signal_at(4)
    with pytest.raises(Stopped, match=r"^32 images$"):
        execute("finetune", wanted, tmp_path / "part")
    execute("finetune", wanted, tmp_path / "part")
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")


def test_a_trial_goes_on_from_the_step_it_was_stopped_in(
    hospital: Path, root: Path, tmp_path: Path, signal_at: Callable[..., list[int]]
) -> None:
    wanted = config(hospital, root, trials=8, pruner="median", space={"optimizer.lr": [1e-4, 1e-2]})
    execute("search", wanted, tmp_path / "whole")
    made = signal_at(10_000)
    execute("search", wanted, tmp_path / "counted")
    steps, count = np.flatnonzero(np.array(made) == 0), len(made)
    made = signal_at(int(steps[6]) + 4)  # the fourth step of the seventh trial
    with pytest.raises(Stopped, match=r"^32 images of trial 7 of 8$"):
        execute("search", wanted, tmp_path / "part")
    execute("search", wanted, tmp_path / "part")
    assert len(made) == count
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")


def test_a_training_that_goes_on_tells_its_earlier_checks_too() -> None:
    """Else the pruner would compare trials by other checks than those of an undisturbed search."""
    memory = {"checks": [(0.9, 0.5), (0.8, 0.5), (0.7, 0.6)]}
    told: list[tuple[int, float]] = []
    assert fine_tuning._tell(lambda n, loss, _: bool(told.append((n, loss))), memory, 1) == 3
    assert told == [(2, 0.8), (3, 0.7)]
    assert memory["ended"] is False


def images(folder: Path, num: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(num):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{k}.png")
    lines = [f"i{k},p{k},{k}.png" for k in range(num)]
    (folder / "manifest.csv").write_text("\n".join(["image_id,patient_id,path", *lines]) + "\n")
    return folder


def test_prepare_finishes_the_file_that_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = prepare.Config(manifest=images(tmp_path / "c", 20), size=16, shard_images=4)
    execute("prepare", wanted, tmp_path / "whole")
    real, made = shards.decode_shard, []

    def decode(shard: shards.Shard, *args: object) -> object:
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        made.append(shard.number)
        return real(shard, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "decode_shard", decode)
    with pytest.raises(Stopped, match=r"^12 images$"):
        execute("prepare", wanted, tmp_path / "part")
    execute("prepare", wanted, tmp_path / "part")
    assert made == [0, 1, 2, 3, 4]
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")


def begin(words: list[object], ready: Callable[[], bool]) -> subprocess.Popen[str]:
    """A command in a process group of its own, once it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trabecula.cli", *map(str, words)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 120
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            raise RunError(f"did not begin: {process.communicate()}")
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("whole_group", [True, False])  # a terminal's Ctrl-C, or `kill` of one process
def test_workers_of_prepare_finish_what_they_have_begun(tmp_path: Path, whole_group: bool) -> None:
    source, out = images(tmp_path / "c", 600), tmp_path / "s"
    words = ["prepare", "--manifest", source, "--out", out, "-s", "size=512", "-s", "shard_images=10"]
    words += ["--workers", "2"]
    process = begin(words, lambda: bool(list(out.glob(".shard-*.json.partial"))))
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    done = len(list(out.glob(".shard-*.json.partial")))
    assert err.splitlines()[-1] == f"stopped; run the same command again to go on from {10 * done} images"
    assert process.returncode == 130
    assert 0 < done < 60
    assert len(list(out.glob("images-*.npy"))) == done  # none was thrown away half done


def test_a_study_lets_its_workers_keep_how_far_they_are(hospital: Path, root: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "study"
    recipe.write_text(f"""
[stages.learn]
verb = "pretrain"
store = "{hospital / "store"}"
splits = "{root / "split"}"
architecture = "critic"
objective = "wgan_gp"
images = 1000000
every = 8
batch_size = 8
""")
    process = begin(
        ["study", recipe, "--out", out],
        lambda: any('"point"' in log.read_text() for log in out.glob("cells/*/log.jsonl")),
    )
    process.send_signal(signal.SIGTERM)  # to the study alone
    _, err = process.communicate(timeout=60)
    assert err.splitlines()[-1] == "stopped; run the same command again to go on"
    assert process.returncode == 130
    assert list(out.glob("cells/*/checkpoint.pt"))
