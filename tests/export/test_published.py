"""The published networks in C on real test images, compiled as a user would."""

from pathlib import Path

import numpy as np
import pytest
from c_program import answers, build, needs, write_sources
from real_data import read

from bnnrun.runtime import load

MODELS = sorted((Path(__file__).parents[2] / "results" / "models").glob("*.safetensors"))
QUICK = {"table1_mnist_torch7_50_s0", "table1_svhn_theano_10_s0"}
IMAGES = 200


@needs("gcc")
@pytest.mark.realdata
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.exhaustive, id=path.stem)
        for path in MODELS
    ],
)
def test_the_published_network_in_c(path, tmp_path):
    """Every class by integer scores, and every score by double ones."""
    network = load(path)
    name = network.model.source["dataset"]
    pixels = read(name, **({"holdout_test": 10000} if name == "svhn" else {})).test.pixels[:IMAGES]
    expected = network.scores(pixels)
    write_sources(tmp_path, network.model)
    for flags in ([], ["-std=c99", "-DNET_DOUBLE_SCORES", "-DDOUBLE_SCORES"]):
        build(tmp_path, "gcc", "-O2", "-march=native", *flags)
        computed = answers(tmp_path, pixels)
        np.testing.assert_array_equal(computed.classes, expected.argmax(axis=1))
    np.testing.assert_array_equal(computed.scores, expected)
