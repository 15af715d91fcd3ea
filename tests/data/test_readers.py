"""The readers on damaged, dangerous and re-saved files: each is named in one line, or read."""

import gzip
import os
import pickle

import made_up
import numpy as np
import pytest
from made_up import WRITERS, assert_same, refused, small, write_cifar10, write_mnist, write_svhn
from scipy.io import savemat

from bnnrun.config import Verify
from bnnrun.data import PUBLISHED, cifar10, load

FILES = [(name, file) for name in WRITERS for file in PUBLISHED[name]]
REQUIRED = [(name, file) for name, file in FILES if not file.optional]
BY_PATH = pytest.mark.parametrize(("name", "file"), REQUIRED, ids=[f.path for _, f in REQUIRED])


def compressed(content):
    """Without the time: it stands in the names of tests, which two processes must agree on."""
    return gzip.compress(content, mtime=0)


@BY_PATH
def test_an_absent_file_is_named_with_its_checksum(name, file, tmp_path):
    WRITERS[name](tmp_path)
    (tmp_path / file.path).unlink()
    line = refused(small(name, tmp_path))
    assert str(tmp_path / file.path) in line and file.md5 in line
    assert f"bnnrun data fetch {name}" in line


@BY_PATH
def test_a_file_cut_short_is_named(name, file, tmp_path):
    """Whatever dataset.verify says: the structure is always checked."""
    WRITERS[name](tmp_path)
    path = tmp_path / file.path
    content = path.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        for verify in Verify:
            line = refused(small(name, tmp_path, verify=verify))
            # strict stops at the first file, as none has the published size
            assert verify is Verify.strict or str(path) in line


def test_an_unreadable_root_is_named(tmp_path):
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    assert str(tmp_path / "MNIST/raw") in refused(small("mnist", tmp_path))


def _idx(array: np.ndarray) -> bytes:
    return compressed(made_up.idx(array))


ZEROS = np.zeros((100, 28, 28), np.uint8)
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        (IMAGES, compressed(b"\0\0\x0d\x03" + bytes(12)), "not an idx file of unsigned bytes"),
        (IMAGES, compressed(b"PK\x03\x04"), "not an idx file"),
        (IMAGES, compressed(b"\0\0\x08\x03\0\0"), "do not fill the shape"),
        (IMAGES, compressed(b"\0\0\x08\x03" + b"\xff" * 12), "do not fill the shape"),
        (IMAGES, _idx(ZEROS)[:-20], "not a whole gzip file"),
        (IMAGES, compressed(made_up.idx(ZEROS)[:-1]), "do not fill the shape"),
        (IMAGES, _idx(ZEROS[:, :14]), "expected images of 28 x 28"),
        (IMAGES, _idx(ZEROS[0, 0]), "expected images of 28 x 28"),
        (LABELS, _idx(np.zeros(99, np.uint8)), "for the 100 of"),
        (LABELS, _idx(np.full(100, 10, np.uint8)), "label 10, expected 0 to 9"),
    ],
)
def test_idx_files_of_another_form_are_refused(file, content, part, tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(content)
    line = refused(small("mnist", tmp_path))
    assert str(path) in line and part in line


def test_a_plain_idx_file_is_read_too(tmp_path):
    written = write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / IMAGES
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert_same(load(small("mnist", tmp_path)).test, written["test"])


# ---- pickles


class Malicious:
    """Unpickled the usual way, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run_it(tmp_path):
    write_cifar10(tmp_path)
    marker, path = tmp_path / "ran", tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": Malicious(f"touch {marker}"), "labels": []}))
    line = refused(small("cifar10", tmp_path))
    assert str(path) in line and f"asks for {os.name}.system" in line
    assert not marker.exists()


@pytest.mark.parametrize(
    "named",
    ["builtins eval", "__builtin__ eval", "numpy load", "numpy.core.multiarray scalar",
     "numpy.core numeric.load", "torch load"],
)  # fmt: skip
def test_only_what_makes_arrays_is_admitted(named, tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "batches.meta"
    path.write_bytes(b"\x80\x02c" + named.replace(" ", "\n").encode() + b"\n.")
    line = refused(small("cifar10", tmp_path))
    assert str(path) in line and f"asks for {named.replace(' ', '.')}" in line


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_batch_saved_again_by_python_3_is_read(protocol, tmp_path):
    written = write_cifar10(tmp_path)
    batch = written["test"]
    content = {"data": batch.pixels.reshape(len(batch), -1), "labels": batch.labels.tolist()}
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(content, protocol))
    assert_same(load(small("cifar10", tmp_path)).test, batch)


DATA = np.zeros((10, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([1, 2], "a pickled list, expected a dict"),
        ({"labels": [0] * 10}, "no 'data'"),
        ({"data": DATA.astype(np.float32), "labels": [0] * 10}, "no 'data' of unsigned bytes"),
        ({"data": DATA[:, :100], "labels": [0] * 10}, "expected (images, 3072)"),
        ({"data": DATA[:0], "labels": []}, "expected (images, 3072)"),
        ({"data": DATA, "labels": [0] * 9}, "no list of 10 'labels'"),
        ({"data": DATA, "labels": [0] * 9 + [10]}, "from 0 to 9"),
        ({"data": DATA, "labels": [0] * 9 + ["cat"]}, "from 0 to 9"),
        (b"\x80\x02P1\n.", "not a whole pickle (UnpicklingError"),
    ],
)
def test_batches_of_another_form_are_refused(content, part, tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    line = refused(small("cifar10", tmp_path))
    assert str(path) in line and part in line


def test_other_class_names_are_refused(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "batches.meta"
    path.write_bytes(made_up.python2_pickle({"label_names": ["a", "b"]}))
    assert str(path) in refused(small("cifar10", tmp_path))


def test_the_class_names_are_the_published_ones():
    assert cifar10.SPEC.classes[:3] == ("airplane", "automobile", "bird")
    assert len(set(cifar10.SPEC.classes)) == 10


# ---- MATLAB files

X, Y = np.zeros((32, 32, 3, 20), np.uint8), np.tile(np.arange(1, 11, dtype=np.uint8), 2)[:, None]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"X": X}, "no variable y"),
        ({"y": Y}, "no variable X"),
        ({"X": X, "y": Y - 1}, "y holds 0 to 9, expected labels from 1 to 10"),
        ({"X": X, "y": Y + 1}, "y holds 2 to 11"),
        ({"X": X, "y": Y + 0.5}, "expected a column of integers"),
        ({"X": X, "y": np.where(Y == 3, np.nan, Y)}, "expected a column of integers"),
        ({"X": X, "y": np.where(Y == 3, np.inf, Y)}, "y holds 1 to inf"),
        ({"X": X, "y": Y.astype(complex)}, "expected a column of integers"),
        ({"X": X, "y": Y.astype(float) - 1}, "y holds 0 to 9, expected labels from 1 to 10"),
        ({"X": X, "y": Y[:, 0]}, "expected a column of integers"),
        ({"X": X[..., :19], "y": Y}, "expected uint8 (32, 32, 3, 20)"),
        ({"X": X.astype(float), "y": Y}, "expected uint8 (32, 32, 3, 20)"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, "expected uint8 (32, 32, 3, 20)"),
    ],
)
def test_matlab_files_of_another_form_are_refused(content, part, tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / "svhn" / "test_32x32.mat"
    savemat(path, content)
    line = refused(small("svhn", tmp_path))
    assert str(path) in line and part in line


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint16])
def test_whole_labels_of_any_type_are_read(dtype, tmp_path):
    """MATLAB and NumPy save again as float64 what was read as bytes."""
    written = write_svhn(tmp_path)["test"]
    y = np.where(written.labels == 0, 10, written.labels)[:, None].astype(dtype)
    path = tmp_path / "svhn" / "test_32x32.mat"
    savemat(path, {"X": written.pixels.transpose(2, 3, 1, 0), "y": y})
    assert_same(load(small("svhn", tmp_path)).test, written)
    assert str(path.name) in load(small("svhn", tmp_path, verify=Verify.warn)).notes[-1]
    assert "the published file has" in refused(small("svhn", tmp_path, verify=Verify.strict))


def test_a_file_that_is_no_matlab_file_is_refused(tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / "svhn" / "train_32x32.mat"
    for content in (b"", b"<html>not found</html>" * 100, path.read_bytes()[:200]):
        path.write_bytes(content)
        line = refused(small("svhn", tmp_path))
        assert str(path) in line and ("not a whole MATLAB file" in line or "no variable" in line)
