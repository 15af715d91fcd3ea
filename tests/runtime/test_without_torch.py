"""Packed networks in Python and at the command line where there is no torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from digit_runs import digits, records

import bnnrun as package
from bnnrun.errors import InputError

WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "cupy"):
            raise ImportError(f"{name} was asked for")

sys.meta_path.insert(0, Absent())
"""


def python(script: str, *arguments: object, folder) -> str:
    """What a Python without torch prints."""
    command = [sys.executable, "-c", WITHOUT_TORCH + script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packed_network_predicts_in_python_without_torch(runs_dir, tmp_path):
    pixels, _ = digits(20)
    np.save(tmp_path / "x.npy", pixels)
    script = """
import numpy as np
import bnnrun
from bnnrun.errors import InputError

classifier = bnnrun.load(sys.argv[1])
x = np.load(sys.argv[2])
print(classifier.predict(x).tolist())
print(classifier.scores(x[:0]).shape, classifier.predict(x[:0]).shape)
for wrong in (x[0], x[:, 0], x[:, :, :7], x.repeat(3, 1), x.astype(float), x.astype(np.int8), x + 1,
              x.tolist(), [], None, "x.npy"):
    try:
        classifier.predict(wrong)
    except InputError as error:
        print(len(str(error).splitlines()))
"""
    for name in ("mlp", "convnet"):
        output = python(script, runs_dir / name, tmp_path / "x.npy", folder=tmp_path).splitlines()
        expected = package.load(runs_dir / name, kernel="reference").predict(pixels)
        assert json.loads(output[0]) == expected.tolist()
        assert output[1] == "(0, 10) (0,)"
        assert output[2:] == ["1"] * 11


def test_eval_predict_and_filters_run_without_torch(runs_dir, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "a.png")
    script = """
from bnnrun.cli.main import run
path = sys.argv[1]
for words in (["eval", "dataset=digits"], ["predict", "a.png"], ["filters"]):
    if status := run([*words, f"model={path}"]):
        sys.exit(status)
"""
    output = python(script, runs_dir / "convnet", folder=tmp_path)
    for text in ("test error", "a.png", "filters.png", "on cpu (no GPU: CuPy cannot be imported"):
        assert text in output
    assert len(records(tmp_path)) == 2


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.zeros((1, 8, 8), np.uint8), r"uint8 \(1, 8, 8\), expected uint8 \(n, 1, 8, 8\)"),
        (np.zeros((1, 1, 8, 9), np.uint8), r"\(1, 1, 8, 9\), expected"),
        (np.zeros((1, 1, 8, 8)), r"float64 \(1, 1, 8, 8\), expected uint8"),
        (np.full((1, 1, 8, 8), 17, np.uint8), "a pixel of 17, expected 0 to 16"),
    ],
    ids=["shape", "size", "type", "range"],
)
def test_other_images_than_the_networks_are_refused(runs_dir, images, named):
    classifier = package.load(runs_dir / "mlp")
    with pytest.raises(InputError, match=named):
        classifier.scores(images)


def test_images_in_any_memory_layout_have_the_same_scores(runs_dir):
    pixels, _ = digits(30)
    for name in ("mlp", "convnet"):
        classifier = package.load(runs_dir / name)
        expected = classifier.scores(pixels)
        turned = np.asfortranarray(pixels)
        np.testing.assert_array_equal(classifier.scores(turned), expected)
        np.testing.assert_array_equal(classifier.scores(pixels[::-1])[::-1], expected)
        read_only = pixels.copy()
        read_only.flags.writeable = False
        np.testing.assert_array_equal(classifier.scores(read_only), expected)
        np.testing.assert_array_equal(read_only, pixels)
