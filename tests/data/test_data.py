"""How each data set is split, when its files are taken, and what a record says of it."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
from made_up import (
    WRITERS,
    assert_same,
    config,
    refused,
    small,
    write_folder,
    write_mnist,
    write_svhn,
)

from bnnrun.cli.main import run
from bnnrun.config import Verify
from bnnrun.data import describe, digits, load, mnist, published, svhn
from bnnrun.data.dataset import Images
from bnnrun.data.published import DataFile, fingerprint

TEST_FILES = {
    "mnist": ["MNIST/raw/t10k-images-idx3-ubyte.gz", "MNIST/raw/t10k-labels-idx1-ubyte.gz"],
    "cifar10": ["cifar-10-batches-py/test_batch"],
    "svhn": ["svhn/test_32x32.mat"],
}


# ---- splits, in the order of the files


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_last_training_images_validate(name, tmp_path):
    written = WRITERS[name](tmp_path)
    dataset = load(small(name, tmp_path))
    assert_same(dataset.train, written["train"].take(slice(80)))
    assert_same(dataset.valid, written["train"].take(slice(80, None)))
    assert_same(dataset.test, written["test"])
    assert dataset.spec == describe(small(name, tmp_path))
    assert dataset.train.pixels.shape[1:] == dataset.spec.image_shape


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_held_out_test_set_is_the_end_and_validation_lies_before_it(name, tmp_path):
    written = WRITERS[name](tmp_path)["train"]
    for path in TEST_FILES[name]:
        (tmp_path / path).unlink()
    dataset = load(small(name, tmp_path, holdout_test=30))
    assert_same(dataset.train, written.take(slice(50)))
    assert_same(dataset.valid, written.take(slice(50, 70)))
    assert_same(dataset.test, written.take(slice(70, None)))
    assert "held out from train, not the official test set" in dataset.notes[0]


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The plain reference: walk along, take an image while its class has room."""
    remaining = dict.fromkeys(range(10), count)
    taken = np.zeros(len(labels), bool)
    for i, label in enumerate(labels):
        if remaining[label]:
            remaining[label] -= 1
            taken[i] = True
    return taken


def test_svhn_validates_on_each_class_of_train_and_of_extra(tmp_path):
    written = write_svhn(tmp_path, {"train": 105, "test": 50, "extra": 70})
    dataset = load(small("svhn", tmp_path, validation=4, validation_extra=2))
    train, extra = written["train"], written["extra"]
    of_train, of_extra = first_of_each_class(train.labels, 4), first_of_each_class(extra.labels, 2)
    assert_same(dataset.valid, joined(train.take(of_train), extra.take(of_extra)))
    assert_same(dataset.train, joined(train.take(~of_train), extra.take(~of_extra)))
    assert_same(dataset.test, written["test"])
    assert np.bincount(dataset.valid.labels).tolist() == [6] * 10
    assert dataset.notes[0].startswith("svhn/train_32x32.mat: md5")  # none of a missing file


def joined(a: Images, b: Images) -> Images:
    return Images(np.concatenate([a.pixels, b.pixels]), np.concatenate([a.labels, b.labels]))


def test_svhn_holds_the_test_set_out_before_it_chooses_validation(tmp_path):
    train = write_svhn(tmp_path, {"train": 100})["train"]
    dataset = load(small("svhn", tmp_path, holdout_test=40, validation=3))
    rest = train.take(slice(60))
    taken = first_of_each_class(rest.labels, 3)
    assert_same(dataset.valid, rest.take(taken))
    assert_same(dataset.train, rest.take(~taken))
    assert_same(dataset.test, train.take(slice(60, None)))
    assert "held out from train" in dataset.notes[0]
    assert "svhn/extra_32x32.mat is not there" in dataset.notes[1]


def test_svhn_copies_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(svhn, "BLOCK", 7)
    written = write_svhn(tmp_path)
    dataset = load(small("svhn", tmp_path))
    assert_same(dataset.test, written["test"])
    taken = first_of_each_class(written["train"].labels, 2)
    assert_same(dataset.train, written["train"].take(~taken))


def test_svhn_calls_the_digit_zero_zero(tmp_path):
    write_svhn(tmp_path)
    dataset = load(small("svhn", tmp_path))
    assert sorted(set(dataset.train.labels.tolist())) == list(range(10))


def test_digits_are_split_always_alike():
    dataset = load(config("digits"))
    assert [len(p) for p in (dataset.train, dataset.valid, dataset.test)] == [1197, 200, 400]
    assert dataset.verified and dataset.notes == ()
    longer = load(config("digits", validation=300))
    assert_same(longer.test, dataset.test)
    assert_same(longer.train, dataset.train.take(slice(1097)))
    assert dataset.train.labels[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]


def test_digits_are_those_that_scikit_learn_loads():
    bunch = sklearn.datasets.load_digits()
    pixels, labels = digits._bundled()
    assert pixels.dtype == labels.dtype == np.uint8
    assert pixels.flags.c_contiguous and labels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, bunch.images)
    np.testing.assert_array_equal(labels, bunch.target)


def test_digits_that_are_not_there_or_cut_short_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert "scikit-learn, which ships them, is not installed" in refused(config("digits"))
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(digits, "find_spec", lambda name: package)
    assert "digits.csv.gz: cannot be read" in refused(config("digits"))
    bundled = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    (tmp_path / "datasets" / "data").mkdir(parents=True)
    copied = tmp_path / "datasets" / "data" / "digits.csv.gz"
    copied.write_bytes(bundled.read_bytes()[:1000])
    assert "digits.csv.gz: cannot be read" in refused(config("digits"))
    copied.write_bytes(gzip.compress(gzip.decompress(bundled.read_bytes()).replace(b"16", b"15")))
    assert "dataset.verify=warn reads it as it is" in refused(config("digits"))


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("mnist", {"validation": 100}, "leave nothing of the 100 training images of mnist"),
        ("mnist", {"validation": 0}, "dataset.validation=0"),
        ("cifar10", {"validation": 101}, "leave nothing"),
        ("svhn", {"validation": 11}, "give a smaller dataset.validation"),
        ("svhn", {"validation": 10}, "leave nothing"),
        ("svhn", {"validation": 0}, "dataset.validation=0"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(name, settings, part, tmp_path):
    WRITERS[name](tmp_path)
    assert part in refused(small(name, tmp_path, **settings))


def test_a_holdout_larger_than_the_file_is_refused(tmp_path):
    write_svhn(tmp_path, {"train": 100})
    assert "dataset.holdout_test=100: leave" in refused(small("svhn", tmp_path, holdout_test=100))


def test_svhn_extra_without_enough_of_a_class_names_its_key(tmp_path):
    write_svhn(tmp_path, {"train": 100, "test": 20, "extra": 30})
    line = refused(small("svhn", tmp_path, validation_extra=4))
    assert "extra_32x32.mat" in line and "dataset.validation_extra" in line


# ---- a held-out test set only where there is no official one


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_holdout_is_refused_while_the_official_test_is_there(name, tmp_path):
    WRITERS[name](tmp_path)
    line = refused(small(name, tmp_path, holdout_test=10))
    assert str(tmp_path / TEST_FILES[name][0]) in line and "leave dataset.holdout_test out" in line


@pytest.mark.parametrize("name", list(WRITERS))
def test_without_the_official_test_the_error_offers_a_holdout(name, tmp_path):
    WRITERS[name](tmp_path)
    (tmp_path / TEST_FILES[name][0]).unlink()
    line = refused(small(name, tmp_path))
    assert TEST_FILES[name][0] in line and "dataset.holdout_test=N" in line


@pytest.mark.parametrize("name", ["digits", "folder"])
def test_a_holdout_is_refused_where_it_has_no_meaning(name, tmp_path):
    write_folder(tmp_path)
    settings = {"path": tmp_path} if name == "folder" else {}
    assert f"dataset={name}" in refused(config(name, holdout_test=10, **settings))


# ---- files that are not the published ones


def published_as(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Publish the made-up MNIST files: the readers then expect exactly these."""
    for name in ("TRAIN", "TEST"):
        files = []
        for file in getattr(mnist, name):
            size, md5 = fingerprint(root / file.path)
            files.append(DataFile(file.path, md5, size))
        monkeypatch.setattr(mnist, name, tuple(files))


def alter(path: Path) -> None:
    """Another image file of the same size: one flipped bit in the modification time of gzip."""
    content = bytearray(path.read_bytes())
    content[4] ^= 1
    path.write_bytes(content)


def test_verify_strict_refuses_an_altered_byte(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    published_as(monkeypatch, tmp_path)
    strict = small("mnist", tmp_path, verify=Verify.strict)
    dataset = load(strict)
    assert dataset.verified and dataset.notes == ()
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz"
    alter(path)
    line = refused(strict)
    assert f"{path}: altered: md5" in line and "dataset.verify=warn" in line


@pytest.mark.parametrize("verify", [Verify.warn, Verify.off])
def test_verify_warn_tells_and_both_note_what_was_read(verify, tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path)
    published_as(monkeypatch, tmp_path)
    settings = small("mnist", tmp_path, verify=verify)
    assert load(settings).verified
    alter(tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz")
    dataset = load(settings)
    err = capsys.readouterr().err
    assert err.count("\n") == (verify is Verify.warn)
    assert ("MNIST/raw/train-labels-idx1-ubyte.gz" in err) == (verify is Verify.warn)
    altered = dataset.sources[1]
    assert not dataset.verified and altered.md5 != altered.published_md5
    assert dataset.notes == (
        f"{altered.name}: md5 {altered.md5}, not the published {altered.published_md5}",
    )


def test_strict_names_the_size_of_a_file_cut_short(tmp_path):
    write_mnist(tmp_path)
    line = refused(small("mnist", tmp_path, verify=Verify.strict))
    assert "train-images-idx3-ubyte.gz" in line and "the published file has 9,912,422" in line


def test_a_reader_that_there_is_not_is_named():
    assert "did you mean 'mnist'" in refused(config("mnist", name="mnits"))
    assert "choose dataset=svhn" in refused(config("mnist", name="svhn"))


def test_a_record_says_what_was_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "data")
    for path in TEST_FILES["mnist"]:
        (tmp_path / "data" / path).unlink()
    words = ["train", "dataset=mnist", "dataset.root=data", "dataset.verify=warn", "device=cpu"]
    words += ["dataset.validation=20", "dataset.holdout_test=20", "trainer.epochs=1"]
    words += ["arch.width=8", "trainer.batch_size=20", "threads=1"]
    assert run(words) == 0
    out = capsys.readouterr().out
    (path,) = (tmp_path / "results" / "runs").glob("*.json")
    data = json.loads(path.read_text())["data"]
    assert data["verified"] is False and [data[p] for p in ("train", "valid", "test")] == [
        60,
        20,
        20,
    ]
    assert len(data["notes"]) == 3 and len(data["files"]) == 2
    assert "held out from train, not the official test set" in data["notes"][0]
    assert all(f"note: {note}" in out for note in data["notes"])
    for file in data["files"]:
        assert published.fingerprint(tmp_path / "data" / file["name"]) == (
            file["size"],
            file["md5"],
        )
