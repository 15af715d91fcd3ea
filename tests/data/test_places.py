"""Where the published files are found: unpacked, renamed, a level off; and who agrees on it."""

import dataclasses
import gzip
import shutil
from pathlib import Path

import pytest
from made_up import WRITERS, assert_same, refused, small, write_cifar10, write_mnist

from bnnrun.cli.main import run
from bnnrun.config import Verify
from bnnrun.data import PUBLISHED, load, mnist
from bnnrun.data.published import DataFile, fingerprint
from bnnrun.doctor import _data

FOLDERS = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-py", "svhn": "svhn"}


def unpack(folder: Path, *, dotted: bool = False, keep: bool = False) -> None:
    """The gzipped files of a folder as torchvision or a browser leaves them."""
    for path in list(folder.glob("*.gz")):
        name = path.stem.replace("-idx", ".idx") if dotted else path.stem
        path.with_name(name).write_bytes(gzip.decompress(path.read_bytes()))
        if not keep:
            path.unlink()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The made-up MNIST files, gzipped and plain, as the published ones."""
    write_mnist(tmp_path)
    for name in ("TRAIN", "TEST"):
        files = tuple(_as_found(tmp_path, file) for file in getattr(mnist, name))
        monkeypatch.setattr(mnist, name, files)
    monkeypatch.setitem(PUBLISHED, "mnist", (*mnist.TRAIN, *mnist.TEST))
    return tmp_path


def _as_found(root: Path, file: DataFile) -> DataFile:
    size, md5 = fingerprint(root / file.path)
    plain = root / "plain"
    plain.write_bytes(gzip.decompress((root / file.path).read_bytes()))
    of_plain = fingerprint(plain)
    plain.unlink()
    also = []
    for form in file.also:
        n, checksum = (size, md5) if form.path.endswith(".gz") else of_plain
        also.append(DataFile(form.path, checksum, n))
    return dataclasses.replace(file, md5=md5, size=size, also=tuple(also))


# ---- unpacked and renamed


@pytest.mark.parametrize("dotted", [False, True])
def test_unpacked_mnist_is_read_and_verified(dotted, published, capsys):
    strict = small("mnist", published, verify=Verify.strict)
    gzipped = load(strict)
    unpack(published / "MNIST" / "raw", dotted=dotted)
    dataset = load(strict)
    for part, images in gzipped.parts.items():
        assert_same(dataset.parts[part], images)
    assert dataset.verified and dataset.notes == ()
    assert all(s.name.endswith("-ubyte") and s.md5 == s.published_md5 for s in dataset.sources)
    assert capsys.readouterr().err == ""
    assert run(["data", "verify", "mnist", f"root={published}"]) == 0
    out = capsys.readouterr().out
    assert out.count("whole") == 4 and dataset.sources[0].name in out and ".gz" not in out
    path = published / dataset.sources[0].name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"{path}: altered: md5" in refused(strict)
    assert run(["data", "verify", "mnist", f"root={published}"]) == 2
    assert str(path) in capsys.readouterr().err
    path.write_bytes(content[:-1])
    assert f"{path}: {len(content) - 1:,} bytes, the published file has" in refused(strict)


def test_the_gzipped_file_is_taken_where_both_are(published):
    strict = small("mnist", published, verify=Verify.strict)
    before = load(strict).sources
    unpack(published / "MNIST" / "raw", keep=True)
    assert load(strict).sources == before


def test_fetch_has_nothing_to_do_for_unpacked_files(published, capsys):
    unpack(published / "MNIST" / "raw")
    assert run(["data", "fetch", "mnist", f"root={published}"]) == 0
    assert "mnist: nothing to fetch" in capsys.readouterr().out


# ---- a root that is a level off


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("mnist", "data/MNIST"), ("mnist", "data/MNIST/raw"), ("mnist", "."),
        ("cifar10", "data/cifar-10-batches-py"), ("cifar10", "."),
        ("svhn", "data/svhn"), ("svhn", "."),
    ],
)  # fmt: skip
def test_a_root_a_level_off_is_understood_and_told(name, root, tmp_path, capsys):
    WRITERS[name](tmp_path / "data")
    usual = load(small(name, tmp_path / "data"))
    assert capsys.readouterr().err == ""
    off = load(small(name, tmp_path / root))
    for part, images in usual.parts.items():
        assert_same(off.parts[part], images)
    assert off.described() == usual.described()  # records stay comparable
    folder = tmp_path / "data" / FOLDERS[name]
    err = capsys.readouterr().err
    assert err == f"bnnrun: dataset.root={tmp_path / root}: read from {folder}\n"
    assert run(["data", "status", name, f"root={tmp_path / root}"]) == 0
    out = "".join(capsys.readouterr().out.split())  # long cells go over several lines
    written = [file for file in PUBLISHED[name] if (tmp_path / "data" / file.path).exists()]
    assert out.count(f",in{folder}") == len(written)
    (row,) = (row for row in _data(str(tmp_path / root)) if row[0] == f"data, {name}")
    assert row[1] == "ok" and str(folder) in row[2]


def test_status_says_where_a_whole_file_was_found(published, capsys):
    folder = published / "MNIST" / "raw"
    for action in ("status", "verify"):
        assert run(["data", action, "mnist", f"root={folder}"]) == 0
        out = capsys.readouterr().out
        assert out.count(f"in {folder}") == 4 and "not there" not in out


def test_files_below_two_folders_are_not_chosen_between(tmp_path, capsys):
    write_cifar10(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    line = refused(small("cifar10", tmp_path))
    for name in ("old", "new"):
        assert str(tmp_path / name / "cifar-10-batches-py" / "data_batch_1") in line
    assert "choose one by dataset.root" in line
    assert run(["data", "status", "cifar10", f"root={tmp_path}"]) == 0
    assert "choose one by dataset.root" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").symlink_to(tmp_path / "old")  # one folder by two names
    assert len(load(small("cifar10", tmp_path)).test) == 50


def test_the_usual_place_comes_first(tmp_path, capsys):
    usual = write_mnist(tmp_path, test=30)["test"]
    write_mnist(tmp_path / "copy")
    shutil.copytree(tmp_path / "copy" / "MNIST" / "raw", tmp_path / "raw")
    assert_same(load(small("mnist", tmp_path)).test, usual)
    assert capsys.readouterr().err == ""


def test_a_test_set_a_level_off_refuses_a_holdout(tmp_path):
    write_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    line = refused(small("cifar10", folder, holdout_test=10))
    assert str(folder / "test_batch") in line and "leave dataset.holdout_test out" in line


# ---- other versions


@pytest.mark.parametrize("root", ["", "cifar-10-batches-bin", ".."])
def test_the_binary_version_is_named(root, tmp_path, capsys):
    data = tmp_path / "data"
    folder = data / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(bytes(3073))
    (folder / "test_batch.bin").write_bytes(bytes(3073))
    (folder / "batches.meta.txt").write_text("airplane\n")
    line = refused(small("cifar10", data / root))
    assert "cifar-10-batches-bin/data_batch_1.bin is the binary version" in line
    assert "the Python version (cifar-10-batches-py) is needed" in line
    assert run(["data", "status", "cifar10", f"root={data / root}"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count("is the binary version") == 7
    (row,) = (row for row in _data(str(data / root)) if row[0] == "data, cifar10")
    assert row[1] == "absent" and "is the binary version" in row[2]


def test_an_archive_that_is_still_packed_is_named(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    line = refused(small("cifar10", tmp_path))
    assert "cifar-10-python.tar.gz is the Python version's archive: unpack it" in line
