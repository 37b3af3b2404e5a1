"""Bad input, as people meet it, through the command line: one line that says what to do, nothing lost.

The refused commands and their answers stand in bad_inputs.REFUSED; docs/guides/errors.md may only quote it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bad_inputs import FINE, GAN, PROBE, REFUSED, a_test_patient, build, sheet, words
from trabecula import cli, files, study
from trabecula.objectives.wgan_gp import WganGp
from trabecula.train import checkpoint

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "errors.md"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Main = Callable[..., Answer]


@pytest.fixture
def main(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, world: Path) -> Main:
    """The command line in this process, in the folder of the made-up study."""

    def call(*words: object) -> Answer:
        monkeypatch.chdir(world)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "argv", ["trabecula", *map(str, words)])
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            signal.signal(signal.SIGTERM, before)
        return Answer(int(end.value.code or 0), *capfd.readouterr())

    return call


def with_out(command: str, out: Path) -> list[str]:
    """A command of the table, with an --out unless it has or needs none."""
    given = words(command)
    bare = (
        "--out" in given or "--check" in given or given[0] == "show" or command == "split --manifest cohort"
    )
    return given if bare else [*given, "--out", str(out)]


@pytest.fixture(scope="module")
def world(make_store: Callable[..., Path]) -> Path:
    """A study of 12 patients with every artifact, and everything that can be wrong beside it."""
    root = make_store(name="bad_input")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("OMP_NUM_THREADS", "1")
        build(root)
    return root


@pytest.mark.parametrize(("command", "told"), REFUSED.items(), ids=range(len(REFUSED)))
def test_bad_input_is_answered_in_one_line(
    command: str, told: str, main: Main, world: Path, tmp_path: Path
) -> None:
    patient = a_test_patient(world)
    manifest = (world / "cohort/manifest.csv").read_text().splitlines()
    of = dict(line.split(",") for line in (world / "split/splits.csv").read_text().split()[1:])
    counts = {part: 2 * sum(value == part for value in of.values()) for part in ("train", "test")}
    facts = {
        "<patient>": patient, "<pool>": str(counts["train"]), "<tests>": str(counts["test"]),
        "<row>": str(next(i for i, line in enumerate(manifest, 1) if line.startswith(patient))),
    }  # fmt: skip
    for name, value in facts.items():
        told = told.replace(name, value)
    answer = main(*with_out(command, tmp_path / "out"))
    assert told in answer.err
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out/DONE").exists()
    assert not (world / "unpickled").exists()


def test_the_guide_quotes_real_answers() -> None:
    known = [re.sub(r"<\w+>", "...", told) for told in REFUSED.values()]
    quoted = re.findall(r"\| `{1,2}error: (?:\.\.\. )?(.*?) ?`{1,2} \|$", GUIDE.read_text(), re.M)
    assert len(quoted) > 30
    assert [answer for answer in quoted if not any(answer in told for told in known)] == []


def png(path: Path, width: int, height: int, pixels: bytes) -> None:
    """A PNG whose header claims a size, whatever its pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_bad_images_are_rejected_one_by_one_and_the_rest_goes_on(
    main: Main, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "films", tmp_path / "films")
    whole = (tmp_path / "films/0001L.png").read_bytes()
    (tmp_path / "films/0007L.png").write_bytes(whole[:300])
    (tmp_path / "films/0008L.png").write_bytes(b"\x89PNG\r\n\x1a\nnoise")
    (tmp_path / "films/0009L.png").write_bytes(b"")
    png(tmp_path / "films/0010L.png", 60_000, 60_000, b"\0" * 9)
    pattern = "pattern={patient_id:4}{side:1}.png"
    assert main("cohort", "--root", tmp_path / "films", "--out", tmp_path / "c", "-s", pattern).code == 0
    answer = main("prepare", "--manifest", tmp_path / "c", "--out", tmp_path / "s", "-s", "size=32")
    assert answer.code == 0
    assert answer.out.startswith("6 images of 32 x 32 pixels, 8 bit; 4 rejected (rejected.csv)")
    rejected = (tmp_path / "s/rejected.csv").read_text().splitlines()[1:]
    assert [re.findall(r"\d{4}L", line) for line in rejected] == [["0007L"], ["0008L"], ["0009L"], ["0010L"]]
    assert "truncated" in rejected[0]
    assert "60000 x 60000 pixels, more than the limit" in rejected[3]


@pytest.mark.parametrize("kind", ["comma", "semicolon", "bom", "latin-1", "utf-16", "xlsx"])
def test_tables_of_any_dialect_are_read_and_ids_keep_their_zeros(
    kind: str, main: Main, tmp_path: Path
) -> None:
    rows = [("file", "patient_id", "kl", "Ärztin")]
    rows += [(f"000{i}L.png", f"000{i}", str(i), "Müller") for i in range(6)]
    table = tmp_path / ("t.xlsx" if kind == "xlsx" else "t.csv")
    encodings = {"bom": "utf-8-sig", "latin-1": "latin-1", "utf-16": "utf-16"}
    if kind == "xlsx":
        sheet(table, rows)
    else:
        text = "".join((";" if kind == "semicolon" else ",").join(row) + "\n" for row in rows)
        table.write_bytes(text.encode(encodings.get(kind, "utf-8")))
    answer = main("cohort", "--root", "films", "--table", table, "--out", tmp_path / "c")
    assert (answer.code, answer.out) == (0, "6 images of 6 patients\n")
    lines = (tmp_path / "c/manifest.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image_id,patient_id,path,kl,Ärztin"
    assert [line.split(",")[1] for line in lines[1:]] == [f"000{i}" for i in range(6)]
    assert lines[1].endswith(",0,Müller")


def test_a_class_that_a_part_lacks_is_noted(main: Main, world: Path, tmp_path: Path) -> None:
    of = dict(line.split(",") for line in (world / "split/splits.csv").read_text().split()[1:])
    lines = (world / "cohort/manifest.csv").read_text().splitlines()
    (tmp_path / "m").mkdir()
    edited = [
        line.rpartition(",")[0] + (",0" if of[line.split(",")[1]] == "val" else f",{i % 2}")
        for i, line in enumerate(lines[1:])
    ]
    (tmp_path / "m/manifest.csv").write_text("\n".join([lines[0], *edited]) + "\n")
    command = f"{PROBE} -s task=kl -s fractions=[1] -s seeds=[0]".replace("cohort", str(tmp_path / "m"))
    assert main(*with_out(command, tmp_path / "p")).code == 0
    assert "val has no image of class 1" in (tmp_path / "p/choices.csv").read_text()
    command = f"{FINE} -s 'task=kl >= 1'".replace("cohort", str(tmp_path / "m"))
    assert "metric not estimable; val has no image of class 1" in main(*with_out(command, tmp_path / "f")).out


def test_a_corrected_command_may_use_the_folder_of_a_failed_one(main: Main, tmp_path: Path) -> None:
    for wrong, right in (
        ("cohort --root films --table plain.csv -s 'tasks.oa.positive=KL >= 2'", "KL/kl"),
        (f"{FINE} -s task=kll", "kll/kl"),
        ("pretrain --store store -s architecture=critc", "critc/critic"),
        (f"{GAN} -s images=8 -s settings.critic.lr=1e30", "1e30/1e-4"),
    ):
        out = tmp_path / right.replace("/", "-")
        refused = main(*with_out(wrong, out))
        assert refused.code == (1 if "1e30" in wrong else 2)
        assert main(*with_out(wrong.replace(*right.split("/")), out)).code == 0
    assert main(*with_out("cohort --root films", out)).err.count("holds a run of another config") == 1


class Full:
    """A function that finds the disk full at its n-th call."""

    def __init__(self, real: Callable[..., Any], at: int) -> None:
        self.real, self.at, self.calls = real, at, 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real(*given, **named)


def test_a_full_disk_loses_nothing_of_prepare(
    main: Main, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"prepare --manifest cohort -s size=32 -s shard_images=8 --out {tmp_path / 's'}".split()
    with monkeypatch.context() as patch:
        patch.setattr(files, "save_array", Full(files.save_array, at=2))
        answer = main(*command)
    assert answer.code == 1
    assert answer.err == (
        f"error: {tmp_path / 's'}: the disk is full; free some space and run the same command again, "
        "what is done is kept\n"
    )
    first = (tmp_path / "s/images-00000.npy").stat().st_mtime_ns
    assert main(*command).code == 0
    assert (tmp_path / "s/images-00000.npy").stat().st_mtime_ns == first
    parts = [np.load(tmp_path / f"s/images-0000{i}.npy") for i in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), np.load(world / "store/images-00000.npy"))


def test_a_full_disk_keeps_the_last_checkpoint(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through torch's own writer, which hides the system's reason."""
    command = f"{GAN} -s images=8 -s every=2 --out"

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    saved: list[int] = []

    def save(state: Any, file: Any) -> None:
        saved.append(state["step"])
        with Disk(file.fileno(), "wb", closefd=False) as full:
            torch_save(state, file if len(saved) < 3 else full)

    torch_save = torch.save
    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", save)
        answer = main(*words(command), tmp_path / "e")
    assert (answer.code, answer.err.count("the disk is full")) == (1, 1)
    assert saved == [1, 2, 3]
    assert checkpoint.load(tmp_path / "e/checkpoint.pt")["step"] == 2
    assert not list((tmp_path / "e").glob(".*.partial"))
    for name in ("e", "undisturbed"):
        assert main(*words(command), tmp_path / name).code == 0
    mine, other = (load_file(tmp_path / name / "encoder.safetensors") for name in ("e", "undisturbed"))
    assert all(torch.equal(mine[key], other[key]) for key in other)


def test_a_full_disk_stops_a_study_in_one_line(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_atomically", Full(study.write_atomically, at=2))
        answer = main("study", "stages.toml", "--out", tmp_path / "s", "--workers", 1)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "the disk is full; free some space and run the same command again" in answer.err
    assert main("study", "stages.toml", "--out", tmp_path / "s", "--workers", 1).code == 0


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = main(*with_out(f"{GAN} -s images=8 -s settings.critic.lr=1e30", tmp_path / "high"))
    assert answer.code == 1
    assert re.fullmatch(
        r"error: step \d: the (loss|gradient) of '\w+' is (nan|-?inf|not finite); lower the .*\n",
        answer.err,
    )
    real = WganGp.step

    def step(self: WganGp, batches: Any, progress: float) -> Iterator[Any]:
        for update in real(self, batches, progress):
            yield replace(update, loss=update.loss * float("nan")) if progress >= 0.75 else update

    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    monkeypatch.setattr(WganGp, "step", step)
    answer = main(*with_out(f"{GAN} -s images=8 -s every=2", tmp_path / "late"))
    assert answer.code == 1
    assert answer.err.startswith("error: step 3: the loss of 'critic' is nan; ")
    assert checkpoint.load(tmp_path / "late/checkpoint.pt")["step"] == 3


def interrupted(command: str, world: Path, ready: Callable[[], bool]) -> Answer:
    """A command in a process of its own, stopped by Ctrl-C once it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trabecula.cli", *words(command)],
        cwd=world, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not ready() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, out, err)


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(main: Main, world: Path, tmp_path: Path) -> None:
    log = tmp_path / "e/log.jsonl"
    command = f"{GAN} -s images=100 -s every=2 --out {tmp_path / 'e'}"
    answer = interrupted(command, world, lambda: log.exists() and '"point"' in log.read_text())
    assert (answer.code, answer.out) == (130, "")
    said = re.fullmatch(
        r"stopped; run the same command again to go on from (\d+) images", answer.err.splitlines()[-1]
    )
    assert said
    assert checkpoint.load(tmp_path / "e/checkpoint.pt")["step"] > 0
    assert "Traceback" not in answer.err
    assert not (tmp_path / "e/DONE").exists()
    assert main(*words(command)).code == 0


def test_ctrl_c_of_a_study_is_one_line_and_it_goes_on(main: Main, world: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[stages.phantom]\nnum_patients = 40\nsize = 64\n")
    command = f"study {tmp_path / 'r.toml'} --out {tmp_path / 's'} --workers 1"
    answer = interrupted(command, world, lambda: bool(list(tmp_path.glob("s/cells/*/images/*.png"))))
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.splitlines()[-1] == "stopped; run the same command again to go on"
    assert not list(tmp_path.glob("s/cells/*/DONE"))
    assert main(*words(command)).code == 0
    assert len(list(tmp_path.glob("s/cells/*/images/*.png"))) == 80


def test_a_folder_that_a_refused_export_left_takes_the_corrected_command(main: Main, tmp_path: Path) -> None:
    """It holds a folder of its own by then, but no file."""
    for wrong in ("store", "cohort"):
        answer = main("export", "--encoder", wrong, "--out", tmp_path / "out")
        assert f"{wrong}: no encoder there" in answer.err
    assert (tmp_path / "out" / "hub").is_dir()
    (tmp_path / "out" / "hub" / "thesis.txt").write_text("")
    answer = main("export", "--encoder", "encoder", "--out", tmp_path / "out")
    assert "holds a run of another config (input 'encoder' has changed)" in answer.err
