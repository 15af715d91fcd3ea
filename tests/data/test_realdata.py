"""The published files themselves, where BNNRUN_DATA names their folder."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from command import Command
from real_data import read

from bnnrun.data.dataset import Dataset, Images

pytestmark = pytest.mark.realdata
FEW = "dataset.validation=45000"  # leaves 5,000 images of CIFAR-10 for training


def histogram(*parts: Images) -> list[int]:
    return np.bincount(np.concatenate([part.labels for part in parts]), minlength=10).tolist()


def sizes(dataset: Dataset) -> list[int]:
    return [len(dataset.train), len(dataset.valid), len(dataset.test)]


def test_mnist():
    dataset = read("mnist")
    assert sizes(dataset) == [50000, 10000, 10000]
    assert dataset.verified and dataset.notes == ()
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert histogram(dataset.test) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    both = histogram(dataset.train, dataset.valid)
    assert both == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.parametrize("dot", ["-idx", ".idx"])
def test_mnist_unpacked(dot, tmp_path):
    """As torchvision leaves it beside the gzipped files, and as it was called before."""
    gzipped = read("mnist")
    for source in gzipped.sources:
        packed = Path(os.environ["BNNRUN_DATA"]) / source.name
        path = tmp_path / source.name.removesuffix(".gz").replace("-idx", dot)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress(packed.read_bytes()))
    dataset = read("mnist", root=tmp_path / "MNIST")
    assert dataset.verified and dataset.notes == ()
    for part, images in gzipped.parts.items():
        np.testing.assert_array_equal(dataset.parts[part].pixels, images.pixels)
        np.testing.assert_array_equal(dataset.parts[part].labels, images.labels)


def test_cifar10():
    dataset = read("cifar10")
    assert sizes(dataset) == [45000, 5000, 10000]
    assert dataset.verified and dataset.notes == ()
    assert dataset.train.labels[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, car
    assert dataset.test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert histogram(dataset.test) == [1000] * 10
    assert histogram(dataset.train, dataset.valid) == [5000] * 10
    # The mean colour that every CIFAR-10 recipe prints, of the 50,000 training images.
    pixels = np.concatenate([dataset.train.pixels, dataset.valid.pixels])
    mean = [pixels[:, channel].mean() / 255 for channel in range(3)]
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_svhn():
    """Whatever of the three files is there; the test set is held out where it is not."""
    folder = Path(os.environ["BNNRUN_DATA"]) / "svhn"
    official, extra = ((folder / f"{part}_32x32.mat").is_file() for part in ("test", "extra"))
    dataset = read("svhn", holdout_test=0 if official else 10000)
    assert dataset.verified and len(dataset.notes) == (not official) + (not extra)
    assert histogram(dataset.valid) == [600 if extra else 400] * 10
    assert len(dataset.test) == (26032 if official else 10000)
    expected = 73257 - 4000 - (0 if official else 10000) + (531131 - 2000 if extra else 0)
    assert len(dataset.train) == expected
    assert dataset.valid.labels[:10].tolist() == [1, 9, 2, 3, 2, 5, 9, 3, 3, 1]
    if not extra:
        parts = [dataset.train, dataset.valid, *([] if official else [dataset.test])]
        digits = [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659]
        assert histogram(*parts) == digits
    # Upright: the left and right halves of a house number differ more than its top and bottom.
    pixels = dataset.valid.pixels.astype(float)
    columns, rows = (np.abs(np.diff(pixels, axis=axis)).mean() for axis in (3, 2))
    assert columns > rows


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=mnist", "arch.width=96", "norm=batch"],
        ["dataset=cifar10", "arch.channels=[4,6]", "arch.fc=[16]", "norm=shift", FEW],
    ],
    ids=["mlp", "convnet"],
)
def test_a_packed_network_is_the_trained_one_on_the_whole_test_set(
    capsys, monkeypatch, tmp_path, words
):
    read(words[0].partition("=")[2])
    monkeypatch.chdir(tmp_path)
    bnnrun = Command(capsys)
    trained = bnnrun("train", *words, "trainer.epochs=1", "hydra.run.dir=run")
    assert trained.status == 0, trained.err
    assert bnnrun("pack", "run=run").status == 0
    outcome = bnnrun("eval", words[0], "model=run", "--verify")
    assert outcome.status == 0, outcome.err
    assert "of 10,000 images are the trained network's" in outcome.out
