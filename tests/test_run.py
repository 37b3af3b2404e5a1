"""Run folders: identities, locks, resuming."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from trabecula.config import NoEffectOnResult, build
from trabecula.errors import InputError, RunError
from trabecula.files import locked
from trabecula.run import execute, identity, verb_module
from trabecula.verbs import VERBS

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS))


def do(verb: str, out: Path, threads: int = 1, **values: object) -> str:
    name = f"study_verbs.{verb}"
    return execute(name, build(verb_module(name).Config, values, name), out, threads)


def test_what_lies_in_a_run_is_known_by_the_run_and_the_place_in_it(tmp_path: Path) -> None:
    do("number", tmp_path / "n")
    run_id = json.loads((tmp_path / "n" / "config.json").read_text())["id"]
    assert identity(tmp_path / "n") == run_id
    assert identity(tmp_path / "n" / "number.txt") == f"{run_id}/number.txt"
    assert identity(tmp_path / "n" / "parts") == f"{run_id}/parts"
    assert identity(tmp_path / "n" / "parts" / ".." / "parts" / "half.txt") == f"{run_id}/parts/half.txt"
    shutil.move(tmp_path / "n", tmp_path / "moved")
    assert identity(tmp_path / "moved" / "parts" / "half.txt") == f"{run_id}/parts/half.txt"


def test_other_files_and_folders_are_known_by_their_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "x.txt").write_text("x")
        # Other software's config.json makes no run folder.
        (tmp_path / name / "config.json").write_text('{"id": "model", "hidden": 3}')
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    assert identity(tmp_path / "a" / "inner" / "x.txt") == identity(tmp_path / "b" / "inner" / "x.txt")
    (tmp_path / "b" / "inner" / "x.txt").write_text("yy")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")
    with pytest.raises(InputError, match="no such file or folder"):
        identity(tmp_path / "c")


def test_an_unfinished_run_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        do("fail", tmp_path / "f", how="run")
    with pytest.raises(InputError, match="this run is not finished"):
        do("add", tmp_path / "a", numbers=[tmp_path / "f"])
    assert not (tmp_path / "a").exists()


def test_a_failure_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        do("fail", tmp_path / "f", how="defect")
    last = json.loads((tmp_path / "f" / "log.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", "a defect")
    assert "ZeroDivisionError" in last["traceback"]
    assert not (tmp_path / "f" / "DONE").exists()


def test_another_config_is_refused_with_what_differs(tmp_path: Path) -> None:
    do("number", tmp_path / "n", value=1)
    done = (tmp_path / "n" / "DONE").stat().st_mtime_ns
    assert do("number", tmp_path / "n", value=1) == "the number 1"
    with pytest.raises(InputError, match=r"\(value was 1, now 2\)"):
        do("number", tmp_path / "n", value=2)
    with pytest.raises(InputError, match=r"\(threads was 1, now 2\)"):
        do("number", tmp_path / "n", threads=2)
    with pytest.raises(InputError, match=r"style\.digits was 4, now 2"):
        do("number", tmp_path / "n", style={"digits": 2})
    assert (tmp_path / "n" / "DONE").stat().st_mtime_ns == done


@pytest.mark.parametrize(
    ("verb", "values", "run_id"),
    [
        ("number", {"value": 3}, "cdf60254522d6d60a4c4125dc366d817e46d3710faa70593f160651b833cd1d0"),
        (
            "report",
            {"title": "Numbers", "command": "trabecula study r.toml"},
            "e9134cd1983eb8b10df327e9db225e1273c077d0258567c6e2a08b967a1c560a",
        ),
    ],
)
def test_ids_stay_what_they_were(verb: str, values: dict[str, object], run_id: str, tmp_path: Path) -> None:
    """A study finds what it has done by these: another id means that all of it is computed again."""
    do(verb, tmp_path / "run", **values)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["id"] == run_id


def test_settings_that_decide_nothing_are_marked_and_no_part_of_an_id(tmp_path: Path) -> None:
    do("report", tmp_path / "a", command="one")
    assert do("report", tmp_path / "a", command="two") == do("report", tmp_path / "a")
    assert "command" not in json.loads((tmp_path / "a" / "config.json").read_text())["settings"]
    with pytest.raises(InputError, match="title was"):
        do("report", tmp_path / "a", title="another")
    marked = {
        verb: {name for name, field in verb_module(verb).Config.model_fields.items() if _is_aside(field)}
        for verb in VERBS
    }
    assert {verb: names for verb, names in marked.items() if names} == {
        "prepare": {"workers"}, "search": {"storage"}, "report": {"command"},
    }  # fmt: skip


def _is_aside(field: FieldInfo) -> bool:
    return any(isinstance(mark, NoEffectOnResult) for mark in field.metadata)


def test_leftovers_of_atomic_writes_are_swept_and_scratch_files_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        do("fail", tmp_path / "f", how="run")
    (tmp_path / "f" / "parts").mkdir()
    stale = [tmp_path / "f" / ".x.json.123.partial", tmp_path / "f" / "parts" / ".y.png.4.partial"]
    scratch = tmp_path / "f" / ".images-00000.npy.partial"
    for path in (*stale, scratch):
        path.write_bytes(b"half")
    with pytest.raises(RunError):
        do("fail", tmp_path / "f", how="run")
    assert [path.exists() for path in (*stale, scratch)] == [False, False, True]


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(InputError, match=r"holds something else \(thesis.docx\)"):
        do("number", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc, in which nobody makes folders")
def test_a_place_that_takes_no_folder_is_refused() -> None:
    with pytest.raises(InputError, match="/proc/here/x: no folder can be made there; choose another --out"):
        do("number", Path("/proc/here/x"), value=1)


def test_a_lock_is_held_by_one_process_and_not_by_its_children(tmp_path: Path) -> None:
    """A forked child that outlives a killed verb must not keep the folder locked."""
    code = (
        "import os, sys, time; from pathlib import Path; from trabecula.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(InputError, match="another trabecula process"), locked(tmp_path, wait=0.2):
            pass
        holder.kill()
        holder.wait()
        began = time.monotonic()
        with locked(tmp_path, wait=5):
            assert time.monotonic() - began < 4
        os.kill(child, 0)  # the orphan still runs
    finally:
        holder.kill()
        os.kill(child, 9)
        holder.stdout.close()


def test_a_models_folder_is_told_by_what_its_files_hold(tmp_path: Path) -> None:
    """Two revisions of a network have files of the same names and sizes."""
    for name, content in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "vit"}')
        (tmp_path / name / "model.safetensors").write_text(content)
    assert identity(tmp_path / "a") == identity(tmp_path / "c") != identity(tmp_path / "b")


def test_a_run_goes_on_with_other_threads_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the run that it is; provenance.json says what computed it, in turn."""
    out = tmp_path / "n"
    do("number", out, threads=2)
    before = (out / "config.json").read_bytes()
    (out / "DONE").unlink()
    with pytest.raises(InputError, match=r"threads was 2, now 1\).*go on with 1 all the same by --other-thr"):
        do("number", out, threads=1)
    with pytest.raises(InputError, match="value was ") as error:
        do("number", out, threads=1, value=9)
    assert "--other-threads" not in str(error.value)
    capsys.readouterr()
    config = verb_module("study_verbs.number").Config()
    monkeypatch.setenv("TRABECULA_KERNELS", "off")
    execute("study_verbs.number", config, out, 1, other_threads=True)
    said = "note: this run was begun with 2 threads and goes on with 1: its last digits may differ\n"
    assert capsys.readouterr().err == said
    record = json.loads((out / "provenance.json").read_text())
    assert (record["threads"], record["kernels"]) == ("2, then 1", "on, then off")
    assert (out / "config.json").read_bytes() == before
    (out / "DONE").unlink()
    execute("study_verbs.number", config, out, 1, other_threads=True)
    assert json.loads((out / "provenance.json").read_text())["threads"] == "2, then 1"
    execute("study_verbs.number", config, tmp_path / "new", 1, other_threads=True)  # nothing to go on with
    assert json.loads((tmp_path / "new" / "provenance.json").read_text())["threads"] == 1
