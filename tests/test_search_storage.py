"""Where the trials of a search are kept: kills, storages of other kinds, and what they change (nothing)."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from searched_study import QUICK, artifacts, config, rows, start
from trabecula.errors import InputError, RunError
from trabecula.run import execute
from trabecula.transfer import trials as searching


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(hospital, tmp_path_factory.mktemp("search"))


@pytest.mark.parametrize(
    ("sampler", "storage"), [("tpe", ""), ("random", ""), ("tpe", "journal:///trials.log")]
)
def test_a_killed_search_ends_as_an_undisturbed_one(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, storage: str
) -> None:
    execute("search", config(hospital, root, trials=13, sampler=sampler, pruner="median"), tmp_path / "whole")
    monkeypatch.chdir(tmp_path)
    wanted = config(hospital, root, trials=13, sampler=sampler, pruner="median", storage=storage)
    done = 0
    real = searching.tune

    def killing(*args: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        result = real(*args, **options)
        if done in (2, 9, 13):  # trained, and its end not yet told to the storage
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(searching, "tune", killing)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            execute("search", wanted, tmp_path / "part")
    execute("search", wanted, tmp_path / "part")
    assert done == 13 + 3
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")
    if sampler == "tpe":  # from the eleventh trial on it learns, which resuming must not change
        assert len({row["optimizer.lr"] for row in rows(tmp_path / "whole")}) == 13


def test_a_process_that_was_killed_goes_on(hospital: Path, root: Path, tmp_path: Path) -> None:
    execute("search", config(hospital, root, trials=6), tmp_path / "whole")
    words = [
        sys.executable,
        "-m",
        "trabecula.cli",
        "search",
        "--out",
        str(tmp_path / "part"),
        "--workers",
        "1",
    ]
    for name in ("encoder", "store", "manifest", "splits"):
        words += [f"--{name}", str(getattr(config(hospital, root), name))]
    words += ["-s", "task=kl >= 1", "-s", "trials=6"]
    words += [part for key, value in QUICK.items() for part in ("-s", f"settings.{key}={value}")]
    words += ["-s", "space.optimizer.lr={low=1e-4, high=1e-2, log=true}", "-s", "space.patience=[1, 2]"]
    process = subprocess.Popen(words, env=os.environ, stdout=subprocess.DEVNULL)
    log, until = tmp_path / "part" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"trial"') >= 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, check=True, env=os.environ, stdout=subprocess.DEVNULL)
    assert artifacts(tmp_path / "part") == artifacts(tmp_path / "whole")


def test_a_search_of_an_earlier_version_goes_on(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database has the results of trials under another name, `told`."""
    execute("search", config(hospital, root), tmp_path / "whole")
    trained = 0
    real = searching.tune

    def killing(*args: Any, **options: Any) -> Any:
        nonlocal trained
        trained += 1
        if trained == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(searching, "tune", killing)
    with pytest.raises(KeyboardInterrupt):
        execute("search", config(hospital, root), tmp_path / "old")
    with closing(sqlite3.connect(tmp_path / "old" / "trials.db")) as database, database:
        renamed = database.execute("UPDATE trial_user_attributes SET key = 'told' WHERE key = 'result'")
        assert renamed.rowcount == 2
    execute("search", config(hospital, root), tmp_path / "old")
    assert trained == 4 + 1  # the third again, the first two not
    assert artifacts(tmp_path / "old") == artifacts(tmp_path / "whole")


def test_any_optuna_storage_will_do_and_is_no_part_of_the_result(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    execute("search", config(hospital, root), tmp_path / "own")
    for kind, file in (("sqlite", "mine.db"), ("journal", "mine.log")):
        storage = f"{kind}:///{tmp_path / file}"
        execute("search", config(hospital, root, storage=storage), tmp_path / kind)
        assert artifacts(tmp_path / "own") == artifacts(tmp_path / kind)
        assert (tmp_path / file).stat().st_size > 1000
    for url in ("no such thing", f"journal:///{tmp_path / 'nowhere' / 'trials.log'}"):
        with pytest.raises(InputError, match="give an Optuna storage URL"):
            execute("search", config(hospital, root, storage=url), tmp_path / "bad")
    secret = config(hospital, root, storage="sqlite://ann:hush@/nowhere/x.db")
    with pytest.raises(InputError, match=r"storage '.*'") as refused:
        execute("search", secret, tmp_path / "secret")
    assert "hush" not in str(refused.value)
    assert "hush" not in (tmp_path / "secret" / "config.json").read_text()


def test_a_storage_that_fails_on_the_way_is_told_in_a_line(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(searching, "tune", failing)
    with pytest.raises(RunError, match="database or disk is full; run the same command again to go on"):
        execute("search", config(hospital, root), tmp_path / "s")


def test_a_journal_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """By a kill or a full disk in the middle of a line; with another file nothing is done."""
    file = tmp_path / "trials.log"
    for number in range(1, 4):
        with searching.opened(f"journal:///{file}", "study", "loss", "none") as study:
            study.tell(study.ask(), 1.0)
            assert len(study.trials) == number
        file.write_bytes(file.read_bytes()[:-9])
    assert list(tmp_path.iterdir()) == [file]  # no lock stays
    other = tmp_path / "notes.txt"
    other.write_text("my notes")
    with (
        pytest.raises(InputError, match=r"notes.txt': is not a journal of trials; give an Optuna"),
        searching.opened(f"journal:///{other}", "study", "loss", "none"),
    ):
        pass
    assert other.read_text() == "my notes"
