"""Data files of every kind: what is no MNIST, or damaged, is told in a line that names the file and the cure; the rest trains."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.accuracy_study.runs import Run, runs
from bench.accuracy_study.work import dataset as cached
from bench.accuracy_study.work import do
from bench.cli.app import app
from bench.experiments.suite import plan
from bench.training import data
from bench.training.duel import apart, disagreement, duel, peak_mb
from bench.training.idx import IMAGES, LABELS, DataError, parse
from bench.training.ladder import FASTEST, LADDER
from bench.training.networks import DESIGNS, PoolKind, design_of
from bench.training.nielsen import LADDER as PUBLISHED
from bench.training.train import Settings, train
from pooling import PoolingError
from tests.digits_folder import folder, idx, write_folder

__all__ = ["folder"]  # a fixture

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
NAME = "train-images-idx3-ubyte"
WHOLE = idx(np.arange(2 * 3 * 4).reshape(2, 3, 4))


def header(magic: int, *sizes: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in (magic, *sizes))


def zipped(raw: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("train-images-idx3-ubyte", raw)
    return out.getvalue()


def refused(folder: Path, *said: str) -> None:
    """Hold loading to one line that says all this."""
    with pytest.raises(DataError) as caught:
        data.load(folder)
    for word in said:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_whose_name_is_too_long(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 5000), str(tmp_path)[:40], "can't be read", "name another folder")


def test_a_folder_that_can_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> bool:  # as is_file does where not even root may look
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", deny)
    refused(tmp_path, str(tmp_path), "Permission denied", "name another folder")


@pytest.mark.skipif(sys.platform == "win32", reason="there a folder in use can't be removed")
def test_a_folder_relative_to_one_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(Path("mnist"), "mnist is relative to a folder that is gone", "name another folder")


@pytest.mark.parametrize("n", range(16))
def test_images_cut_within_the_header(folder: Path, n: int) -> None:
    (folder / NAME).write_bytes(WHOLE[:n])
    refused(folder, str(folder / NAME), f"has {n} bytes", "get it again")


@pytest.mark.parametrize("n", range(8))
def test_labels_cut_within_the_header(folder: Path, n: int) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(5))[:n]))
    refused(folder, "train-labels-idx1-ubyte.gz", f"has {n} bytes", "get it again")


@pytest.mark.parametrize(
    ("sizes", "size", "kind"),
    [
        ((1 << 31, 1 << 31, 4), 0, "truncated"),  # 2 to the power of 64, which is 0 in 64 bits
        ((1 << 31, 1 << 31, 1 << 31), 0, "truncated"),
        (((1 << 32) - 1,) * 3, 8, "truncated"),
        ((1 << 16, 1 << 16, 1), 0, "truncated"),
        (((1 << 32) - 1, 0, 0), 0, "no images"),
        ((2, 28, 28), 2 * 28 * 28 + 1, "too long"),
        ((2, 28, 28), 2 * 28 * 28 - 1, "truncated"),
    ],
)
def test_sizes_that_are_not_the_datas(folder: Path, sizes: Any, size: int, kind: str) -> None:
    (folder / NAME).write_bytes(header(IMAGES, *sizes) + bytes(size))
    refused(folder, str(folder / NAME), kind, "×".join(map(str, sizes)))


@pytest.mark.parametrize("sizes", [(0, 28, 28), (5, 0, 28), (5, 28, 0), (0, 0, 0)])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_no_images(folder: Path, sizes: Any, part: str) -> None:
    path = folder / f"{part}-images-idx3-ubyte"
    path.write_bytes(header(IMAGES, *sizes))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header(LABELS, 0)))
    refused(folder, part, "holds no images", "×".join(map(str, sizes)))
    path.write_bytes(WHOLE)
    refused(folder, f"{part}-labels-idx1-ubyte.gz", "holds no labels")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (header(0x00000D03, 1, 1, 1) + bytes(4), "it holds float32 in 3 dimensions; convert it to uint8 in 3"),
        (header(0x00000E03, 1, 1, 1) + bytes(8), "it holds float64"),
        (header(0x00000903, 1, 1, 1) + bytes(1), "it holds int8"),
        (header(0x00000B03, 1, 1, 1) + bytes(2), "it holds int16"),
        (header(0x00000C01, 1) + bytes(4), "it holds int32 in 1 dimensions"),
        (header(0x00000804, 1, 1, 1, 1) + bytes(1), "it holds uint8 in 4 dimensions; convert it to uint8 in 3"),
        (header(LABELS, 12) + bytes(12), "it holds labels, so two files are swapped"),
        (header(0x03080000, 1, 1, 1) + bytes(1), "no IDX file of bytes"),  # the other byte order
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\n <html></html>", "a web page"),
        (zipped(WHOLE), "a ZIP archive: unpack it"),
        (bz2.compress(WHOLE), "compressed with bzip2"),
        (lzma.compress(WHOLE), "compressed with xz"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"\x93NUMPY\x01\0", "an array of NumPy's"),
        (b"\x89PNG\r\n\x1a\n", "no IDX file of bytes"),
    ],
    ids=range(16),
)
def test_what_is_no_file_of_images_is_told(folder: Path, raw: bytes, why: str) -> None:
    (folder / NAME).write_bytes(raw)
    refused(folder, str(folder / NAME), why)


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_is_what_is_compressed_whatever_its_name(folder: Path, times: int, suffix: str) -> None:
    raw = whole = (folder / NAME).read_bytes()
    for _ in range(times):
        raw = gzip.compress(raw)
    (folder / NAME).unlink()
    (folder / (NAME + suffix)).write_bytes(raw)
    expected = parse(whole, IMAGES, NAME)
    assert np.array_equal(np.round(data.load(folder).images[..., 0] * 255), expected)


@pytest.mark.parametrize("how", ["cut", "flipped", "garbage behind", "no gzip"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_gzip(folder: Path, how: str, suffix: str) -> None:
    packed = gzip.compress((folder / NAME).read_bytes())
    (folder / NAME).unlink()
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :]
    damaged = {"cut": packed[:-9], "flipped": flipped, "garbage behind": packed + b"junk", "no gzip": b"not gzip"}[how]
    (folder / (NAME + suffix)).write_bytes(damaged)
    refused(folder, str(folder / NAME), "get it again")


def test_what_unpacks_to_more_than_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.idx.LARGEST", 1 << 20)
    (folder / NAME).write_bytes(gzip.compress(bytes(1 << 21)))
    refused(folder, str(folder / NAME), "more than 1,048,576 bytes")


@given(cut=st.integers(0, 40), at=st.integers(0, 15), byte=st.integers(0, 255), more=st.binary(max_size=3))
def test_bytes_are_an_array_or_a_complaint(cut: int, at: int, byte: int, more: bytes) -> None:
    changed = bytearray(WHOLE)
    changed[at] = byte
    raw = bytes(changed[:cut]) + more
    complaint = ""
    try:
        array = parse(raw, IMAGES, "a file")
    except DataError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith("a file ")
        assert "\n" not in complaint
    else:
        assert array.size == len(raw) - 16 > 0


def test_files_that_do_not_belong_together(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10, 27, 28))))
    refused(folder, str(folder), "train images have 28×28 pixels, test images 27×28")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((11, 28, 28))))
    refused(folder, str(folder), "t10k has 11 images and 10 labels")


def test_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLING_DATA_DIR", "~nobody-of-this-name/mnist")
    with pytest.raises(DataError, match="give the whole path"):
        data.load()


# EMNIST's letters are labelled 1 to 26, its "balanced" set 0 to 46; FashionMNIST is like MNIST; one class, two of them far apart.
LABELLED = {
    "letters": (np.arange(1, 27), 26),
    "balanced": (np.arange(47), 47),
    "one class": (np.array([7]), 1),
    "one letter": (np.array([26]), 1),
    "far apart": (np.array([3, 200]), 198),
    "bytes": (np.arange(256), 256),
}
NETWORKS = [*DESIGNS, *dict.fromkeys(one.network for one in PUBLISHED), "/", "9/", "16,32/200 conv=3 pool=3,2"]


@pytest.mark.parametrize("kind", LABELLED)
def test_classes_follow_from_the_labels(tmp_path: Path, kind: str) -> None:
    labels, classes = LABELLED[kind]
    dataset = data.load(write_folder(tmp_path, 300, labels))
    assert dataset.classes == classes
    assert (dataset.labels.min(), dataset.labels.max()) == (0, classes - 1)
    history = train(Settings("question", epochs=1, images=70, threads=2), dataset)
    assert len(history.losses) == 2
    assert np.isfinite(history.losses).all()


def test_a_label_that_only_the_tests_have_is_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path, 30, np.arange(10))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(20, 30))))
    dataset = data.load(tmp_path)
    assert dataset.classes == 30
    assert train(Settings("/", epochs=1), dataset).accuracy == [0.0]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("classes", [26, 47])
def test_every_network_trains_on_emnist(tmp_path: Path, network: str, classes: int) -> None:
    dataset = data.load(write_folder(tmp_path, 100, np.arange(classes) + (classes == 26)))
    for regime in ("usual", "sigmoid", "relu"):
        history = train(Settings(network, epochs=1, images=40, batch_size=32, threads=2, regime=regime), dataset)
        assert len(history.losses) == 2
        assert np.isfinite(history.losses).all()


@pytest.mark.parametrize("rung", LADDER)
def test_every_rung_trains_on_emnist(tmp_path: Path, rung: str) -> None:
    dataset = data.load(write_folder(tmp_path, 100, np.arange(1, 27)))
    kinds: tuple[PoolKind, ...] = ("max", "avg")
    for pool in kinds:
        settings = Settings("question", pool, epochs=1, images=40, batch_size=32, threads=2, rung=rung)
        assert np.isfinite(train(settings, dataset).losses).all()


def test_outputs_that_are_spelled_out(tmp_path: Path) -> None:
    dataset = data.load(write_folder(tmp_path, 30, np.arange(1, 27)))
    assert design_of("lenet").classes is None
    with pytest.raises(PoolingError, match="classes=10, and the data have 26; leave classes= out"):
        train(Settings("question classes=10", epochs=1), dataset)
    assert len(train(Settings("question classes=30", epochs=1), dataset).losses) == 1


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((27, 27), "lenet"),
        ((16, 16), "lenet"),
        ((28, 20), "lenet"),
        ((17, 31), "question"),
        ((6, 6), "question"),
        ((1, 1), "/100"),
        ((1, 200), "/"),
        ((64, 64), "question"),
    ],
)
def test_other_sizes_train(tmp_path: Path, shape: tuple[int, int], network: str) -> None:
    dataset = data.load(write_folder(tmp_path, 40, np.arange(10), shape))
    kinds: tuple[PoolKind, ...] = ("max", "avg")
    for pool in kinds:
        history = train(Settings(network, pool, epochs=1, batch_size=32, threads=2), dataset)
        assert np.isfinite(history.losses).all()


@pytest.mark.parametrize(("shape", "network"), [((15, 15), "lenet"), ((5, 28), "question"), ((1, 1), "lenet")])
def test_sizes_that_leave_nothing_are_refused_in_a_line(tmp_path: Path, shape: tuple[int, int], network: str) -> None:
    own = str(write_folder(tmp_path, 20, np.arange(10), shape))
    said = f"images of {shape[0]}×{shape[1]} are too small"
    for command in (
        ("train", "--network", network, "--epochs", "1", "--data-dir", own),
        ("study", "--part", "timing", "--out", str(tmp_path / "out"), "--workers", "1", "--data-dir", own),
    ):
        done = RUNNER.invoke(app, command)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1
    with pytest.raises(PoolingError, match=said):
        duel(Settings(network), data.load(own), [FASTEST], [])
    with pytest.raises(PoolingError, match="too small"):
        plan("quick", tmp_path / "results.json", 1, data_dir=Path(own))


@pytest.mark.parametrize("images", [1, 2, 3, 65])
@pytest.mark.parametrize("threads", [1, 2])
def test_fewer_images_than_a_batch(tmp_path: Path, images: int, threads: int) -> None:
    dataset = data.load(write_folder(tmp_path, images, np.arange(10)))
    for rung in ("numpy", FASTEST):
        settings = Settings("question", epochs=2, threads=threads, rung=rung, held_out=10_000)
        history = train(settings, dataset)
        assert len(history.losses) == 2
        assert len(train(replace(settings, held_out=0), dataset).losses) == (4 if images > 64 else 2)
        assert np.isfinite(history.losses).all()
        assert len(history.held_out) == (2 if images >= 6 else 0)


def test_a_sixth_is_held_out_at_most() -> None:
    settings = Settings(held_out=10_000)
    assert settings.parts(60_000) == (50_000, 10_000)
    assert settings.parts(124_800) == (114_800, 10_000)
    assert settings.parts(1500) == (1250, 250)
    assert replace(settings, images=100).parts(1500) == (100, 250)


def test_the_commands_train_on_emnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters").mkdir()
    write_folder(tmp_path / "letters", 60, np.arange(1, 27))
    monkeypatch.chdir(tmp_path)
    done = RUNNER.invoke(app, ["train", "--network", "question", "--epochs", "1", "--data-dir", "letters"])
    assert done.exit_code == 0, done.output
    assert "letters: 60 training and 20 test images" in done.stdout
    for run in runs(("timing", "published", "rates"), 1, 1, None, 1):
        row = do(run, str(tmp_path / "letters"))
        assert (row.classes, row.dataset, row.diverged) == (26, "letters", False)
        assert row.images == (50 if run.part == "published" else 60)
    cached.cache_clear()


def test_a_run_that_learned_nothing_is_at_chance(tmp_path: Path) -> None:
    own = write_folder(tmp_path, 130, np.arange(1, 27))
    cached.cache_clear()
    row = do(Run("grid", "wild", Settings("/", epochs=1, learning_rate=1e38)), str(own))
    cached.cache_clear()
    assert (row.diverged, row.accuracy, row.chosen) == (True, [], 1 / 26)


@pytest.mark.parametrize("kind", LABELLED)
def test_a_race_of_emnist(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    dataset = data.load(write_folder(tmp_path / "own", 70, LABELLED[kind][0]))
    settings = Settings("question", threads=1)
    found = duel(settings, dataset, ["numpy", FASTEST], [])
    assert [len(one.losses) for one in found] == [2, 2]
    assert disagreement(found[0].losses, found[1].losses) < 1e-3
    assert apart(found) == {}
    if kind == "letters":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("POOLING_DATA_DIR", "own")
        assert peak_mb(FASTEST, settings, str(data.named())) > 10
