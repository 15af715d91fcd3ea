"""Filters: counted, drawn, and how many distinct ones chance gives."""

import dataclasses

import numpy as np
import pytest
from digit_runs import assert_refused, records
from PIL import Image

from bnnrun.architecture import plan
from bnnrun.config import ConvNetConfig
from bnnrun.data.digits import SPEC
from bnnrun.gemm.bits import pack as to_bits
from bnnrun.gemm.bits import unpack
from bnnrun.pack.convert import trained
from bnnrun.report.content import Filters
from bnnrun.report.filters import CELL, GAP, draw, expected_share, packed_filters, unique_filters
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedLayer


def test_filters_are_counted_and_drawn(here, tmp_path):
    outcome = here("filters", "model=convnet", "hydra.run.dir=shown")
    assert outcome.status == 0, outcome.err
    (record,) = records(tmp_path)
    model = file.load(tmp_path / "convnet" / "model.safetensors")
    assert record["quantity"] == "unique_filters"
    assert record["unit"] == "%"
    assert 0 < record["value"] <= 100
    assert record["value"] == pytest.approx(100 * unique_filters(model.layers[1]))
    assert list(record["details"]["layers"]) == ["conv1", "conv2"]
    assert record["config"]["dataset"]["name"] == "digits"
    assert Filters(**record["details"]["first_layer"]) == packed_filters(model.layers[0])
    for text in ("conv1", "1 -> 8", "conv2", "8 -> 8", "shown/filters.png"):
        assert text in outcome.out
    with Image.open(tmp_path / "shown" / "filters.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.mode == "RGB"


def test_the_picture_shows_the_signs_of_the_trained_weights(here, tmp_path):
    model = file.load(tmp_path / "convnet" / "model.safetensors")
    picture = np.asarray(draw(packed_filters(model.layers[0])))
    network, _ = trained(tmp_path / "convnet" / "best.pt")
    w = network.blocks[0].product.weight.detach().numpy()
    side = 3 * CELL + GAP
    for i in range(8):
        for y, x in np.ndindex(3, 3):
            top, left = GAP + y * CELL, GAP + i * side + x * CELL
            cell = picture[top : top + CELL, left : left + CELL]
            assert (cell == (255 if w[i, 0, y, x] >= 0 else 0)).all()
    assert (picture[:GAP] == 128).all()


def test_filters_of_colours_are_drawn_in_colours_and_no_more_than_256():
    layer = convolution(channels=3, outputs=300)
    picture = np.asarray(draw(packed_filters(layer)))
    assert picture.shape == (16 * (3 * CELL + GAP) + GAP,) * 2 + (3,)
    w = unpack(layer.weight[0], 27).reshape(300, 3, 3, 3)
    at = GAP + 15 * (3 * CELL + GAP)
    cells = picture[at : at + 3 * CELL : CELL, at : at + 3 * CELL : CELL]
    np.testing.assert_array_equal(cells, np.where(w[255] > 0, 255, 0))


def test_filters_of_an_mlp_are_refused(here, tmp_path):
    assert_refused(here("filters", "model=mlp"), "mlp/model.safetensors: no convolution")
    assert_refused(here("filters", "model=missing"), "missing: no such file")
    assert records(tmp_path) == []


def convolution(channels: int, outputs: int, seed: int = 0) -> PackedLayer:
    arch = ConvNetConfig(name="convnet", channels=[channels, outputs], fc=[])
    shape = plan(arch, SPEC)[1]
    rng = np.random.default_rng(seed)
    w = rng.random((outputs, 9 * channels)) < 0.5
    none = np.zeros(0)
    t, flip = np.zeros((1, 1, outputs), np.int32), np.zeros(outputs, bool)
    return PackedLayer(shape, to_bits(w[None]), t, flip, none, none, none)


@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (1, 300), (5, 7), (33, 40), (3, 1000)])
def test_unique_filters_are_those_that_sets_hold(channels, outputs):
    layer = convolution(channels, outputs)
    w = unpack(layer.weight[0], 9 * channels).reshape(outputs, 9, channels)
    counts = []
    for c in range(channels):
        different = set()
        for n in range(outputs):
            filter_ = tuple(w[n, :, c].tolist())
            if tuple(-v for v in filter_) not in different:
                different.add(filter_)
        counts.append(len(different))
    assert unique_filters(layer) == pytest.approx(np.mean(counts) / outputs)


def test_a_filter_and_its_negative_are_one():
    layer = convolution(2, 4)
    w = unpack(layer.weight[0], 18)
    w[1:] = -w[0]
    same = dataclasses.replace(layer, weight=to_bits(w[None]))
    assert unique_filters(same) == 0.25


@pytest.mark.parametrize("outputs", [1, 8, 128, 512])
def test_the_share_by_chance_is_that_of_random_filters(outputs):
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 512, (2000, outputs))
    draws = np.minimum(draws, 511 - draws)
    shares = [len(np.unique(row)) / outputs for row in draws]
    deviation = np.std(shares) / np.sqrt(len(shares))
    assert expected_share(outputs) == pytest.approx(np.mean(shares), abs=5 * deviation + 1e-12)
