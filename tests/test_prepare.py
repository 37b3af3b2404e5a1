"""Preparing: the store holds what the manifest says, whatever happens on the way."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trabecula import files, prepare
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data import shards
from trabecula.errors import InputError, RunError
from trabecula.run import execute

OWN = {"config.json", "provenance.json", "log.jsonl", "DONE", ".lock"}
SETTINGS = {"size": 12, "shard_images": 4}


def cohort(folder, n=10, bad=(), name="c"):
    folder.mkdir()
    lines = ["image_id,patient_id,path,side,cohort"]
    rng = np.random.default_rng(1)
    for k in range(n):
        file = folder / f"{k}.png"
        if k in bad:
            file.write_bytes(b"\x89PNG\r\n\x1a\n junk")
        else:
            Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).save(file)
        lines.append(f"i{k},p{k // 2},{k}.png,{'LR'[k % 2]},{name}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def go(manifest, out, **values):
    return execute(
        "prepare", build(prepare.Config, {"manifest": manifest, **SETTINGS, **values}, "prepare"), out
    )


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OWN}


def test_the_store_holds_the_images(tmp_path):
    source = cohort(tmp_path / "c")
    assert go(source, tmp_path / "s") == "10 images of 12 x 12 pixels, 8 bit"
    store = Store.open(tmp_path / "s")
    assert store.index.columns.tolist() == ["image_id", "patient_id", "side", "cohort", "flipped"]
    assert store.index["flipped"].tolist() == ["0", "1"] * 5
    for k in range(10):
        pixels = np.asarray(Image.open(source / f"{k}.png"))
        assert np.array_equal(store.read([k])[0, 0].numpy(), pixels[:, ::-1] if k % 2 else pixels)
    record = json.loads((tmp_path / "s" / "store.json").read_text())
    assert [shard["num_images"] for shard in record["shards"]] == [4, 4, 2]
    assert (record["num_images"], record["num_rejected"], record["spacing"]) == (10, 0, None)


def test_images_of_mixed_sizes_become_one_size(tmp_path):
    source = cohort(tmp_path / "c", n=3)
    grey = {"0": (12, 12), "1": (30, 20), "2": (24, 48)}
    for (name, size), value in zip(grey.items(), (40, 90, 140), strict=True):
        Image.new("L", size, value).save(source / f"{name}.png")
    assert go(source, tmp_path / "s", intensity="as-is") == "3 images of 12 x 12 pixels, 8 bit"
    images = Store.open(tmp_path / "s").read(slice(0, 3))
    assert images.shape == (3, 1, 12, 12)
    assert [int(image[0, 6, 6]) for image in images] == [40, 90, 140]  # each at its own place


def test_bad_files_are_rejected_one_by_one(tmp_path):
    source = cohort(tmp_path / "c", bad=(1, 5))
    (source / "7.png").unlink()
    assert go(source, tmp_path / "s").endswith("8 bit; 3 rejected (rejected.csv); 1 file is gone")
    with (tmp_path / "s" / "rejected.csv").open() as file:
        rejected = dict(list(csv.reader(file))[1:])
    assert list(rejected) == ["1.png", "5.png", "7.png"]
    assert rejected["7.png"] == "no such file"
    store = Store.open(tmp_path / "s")
    assert store.index["image_id"].tolist() == ["i0", "i2", "i3", "i4", "i6", "i8", "i9"]
    assert np.array_equal(store.read([4])[0, 0].numpy(), np.asarray(Image.open(source / "6.png")))


def test_all_rejected(tmp_path):
    source = cohort(tmp_path / "c", n=3, bad=(0, 1, 2))
    with pytest.raises(InputError, match=r"all 3 images are rejected; the first, 0\.png: .+"):
        go(source, tmp_path / "s")


def spread(folder):
    """A cohort of ten images, six of them in the sub-folder b/c."""
    source = cohort(folder)
    inner = source / "b" / "c"
    inner.mkdir(parents=True)
    text = (source / "manifest.csv").read_text()
    for k in range(4, 10):
        (source / f"{k}.png").rename(inner / f"{k}.png")
        text = text.replace(f",{k}.png", f",b/c/{k}.png")
    (source / "manifest.csv").write_text(text)
    return source


def test_a_vanished_folder_stops_the_run_and_is_named(tmp_path):
    source = spread(tmp_path / "c")
    (source / "b").rename(source / "away")
    with pytest.raises(InputError, match=r"6 of 10 files are gone: the folder .*/c/b is gone; bring it back"):
        go(source, tmp_path / "s")
    (source / "away").rename(source / "b")
    assert go(source, tmp_path / "s") == "10 images of 12 x 12 pixels, 8 bit"
    for k in range(4, 10):
        (source / "b" / "c" / f"{k}.png").unlink()
    with pytest.raises(InputError, match=r"the folder .*/b/c lacks 6 of them"):
        go(source, tmp_path / "t")


def test_a_folder_that_vanishes_during_the_run_is_looked_for_again(tmp_path, monkeypatch):
    source = spread(tmp_path / "c")
    decode_shard = shards.decode_shard

    def vanishing(shard, rendering, readers, folder):
        if shard.number == 1:
            (source / "b").rename(source / "away")
        return decode_shard(shard, rendering, readers, folder)

    monkeypatch.setattr(shards, "decode_shard", vanishing)
    with pytest.raises(InputError, match="6 of 10 files are gone"):
        go(source, tmp_path / "s")
    monkeypatch.undo()
    (source / "away").rename(source / "b")
    assert go(source, tmp_path / "s") == "10 images of 12 x 12 pixels, 8 bit"


def test_a_class_folder_that_vanished_stops_the_run_however_small(tmp_path):
    source = cohort(tmp_path / "c")
    (source / "4").mkdir()
    text = (source / "manifest.csv").read_text()
    for k in (8, 9):
        (source / f"{k}.png").rename(source / "4" / f"{k}.png")
        text = text.replace(f",{k}.png", f",4/{k}.png")
    (source / "manifest.csv").write_text(text)
    (source / "4").rename(source / "away")
    with pytest.raises(InputError, match=r"2 of 10 files are gone: the folder .*/c/4 is gone"):
        go(source, tmp_path / "s")


def test_half_the_files_may_be_gone(tmp_path):
    source = cohort(tmp_path / "c")
    for k in range(5):
        (source / f"{k}.png").unlink()
    assert go(source, tmp_path / "s").endswith("5 rejected (rejected.csv); 5 files are gone")


def test_a_shard_may_be_rejected_whole(tmp_path):
    source = cohort(tmp_path / "c", bad=(4, 5, 6, 7))
    go(source, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert np.array_equal(store.read([4])[0, 0].numpy(), np.asarray(Image.open(source / "8.png")))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing(tmp_path, workers):
    source = cohort(tmp_path / "c", n=11, bad=(3,))
    one, more = tmp_path / "one", tmp_path / "more"
    assert go(source, one) == go(source, more, workers=workers)
    assert content(one) == content(more)
    assert (one / "config.json").read_bytes() == (more / "config.json").read_bytes()


def test_an_interrupted_run_redoes_only_what_is_missing(tmp_path, monkeypatch):
    source = cohort(tmp_path / "c", n=20, bad=(2,))
    go(source, tmp_path / "whole")
    decode_shard, done = shards.decode_shard, []

    def interrupted(shard, rendering, readers, folder):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(shard.number)
        return decode_shard(shard, rendering, readers, folder)

    monkeypatch.setattr(shards, "decode_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(source, tmp_path / "s")
    assert not (tmp_path / "s" / "store.json").exists()
    (tmp_path / "s" / "images-00001.npy").unlink()  # a record without its images is not done
    again = []
    monkeypatch.setattr(
        shards, "decode_shard", lambda *args: again.append(args[0].number) or decode_shard(*args)
    )
    go(source, tmp_path / "s")
    assert done == [0, 1, 2]
    assert again == [1, 3, 4]
    assert content(tmp_path / "s") == content(tmp_path / "whole")


SCRIPT = """
import sys
from pathlib import Path

if __name__ == "__main__":
    from trabecula import prepare
    from trabecula.config import build
    from trabecula.run import execute

    values = {"manifest": sys.argv[1], "size": 64, "shard_images": 8, "workers": 2}
    execute("prepare", build(prepare.Config, values, "prepare"), Path(sys.argv[2]))
"""


def children(pid):
    """Processes whose parent it is, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_a_killed_run_leaves_no_process_and_can_be_resumed(tmp_path):
    source = cohort(tmp_path / "c", n=240)
    script = tmp_path / "go.py"
    script.write_text(SCRIPT)
    whole, out = tmp_path / "whole", tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(out)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".shard-*.json.partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert workers
    assert not (out / "DONE").exists()
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    for folder in (out, whole):
        subprocess.run([sys.executable, str(script), str(source), str(folder)], check=True)
    assert content(out) == content(whole)


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch):
    source = cohort(tmp_path / "c", n=8)
    save, calls = files.save_array, []

    def full(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **options)

    monkeypatch.setattr(files, "save_array", full)
    with pytest.raises(RunError, match="the disk is full"):
        go(source, tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").glob(".*.partial")] == [".shard-00000.json.partial"]
    go(source, tmp_path / "s")
    assert len(calls) == 3
    assert len(Store.open(tmp_path / "s")) == 8


def test_preprocessing_is_of_pixels_not_of_the_cohort(tmp_path):
    a, b = cohort(tmp_path / "a"), cohort(tmp_path / "b", n=4, name="d")
    go(a, tmp_path / "sa")
    go(b, tmp_path / "sb", shard_images=2, readers={"raster": {"max_pixels": 10**6}})
    one, other = Store.open(tmp_path / "sa"), Store.open(tmp_path / "sb")
    assert one.preprocessing == other.preprocessing
    assert one.id != other.id
    changes = [
        {"size": 11},
        {"channels": 3},
        {"bits": 16},
        {"fit": "pad"},
        {"intensity": "as-is"},
        {"flip_side": ""},
    ]
    hashes = set()
    for change in changes:
        config = build(prepare.Config, {"manifest": a, **SETTINGS, **change}, "prepare")
        hashes.add(prepare.preprocessing(config))
    assert len(hashes | {one.preprocessing}) == 1 + len(changes)


def test_settings_that_cannot_be(tmp_path):
    source = cohort(tmp_path / "c")
    with pytest.raises(InputError, match="'size': Input should be greater than or equal to 1"):
        go(source, tmp_path / "s", size=0)
    with pytest.raises(InputError, match="'fit': Input should be 'crop', 'pad' or 'stretch'"):
        go(source, tmp_path / "s", fit="zoom")
