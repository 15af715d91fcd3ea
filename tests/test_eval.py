"""From a run to its packed network and on: pack, eval, predict, filters, as a user calls them."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import bnnrun as package
from bnnrun.architecture import plan
from bnnrun.cli.main import run
from bnnrun.config import ConvNetConfig
from bnnrun.data.digits import KIND
from bnnrun.errors import InputError
from bnnrun.gemm.bits import pack as to_bits
from bnnrun.gemm.bits import unpack
from bnnrun.pack.convert import trained
from bnnrun.report.content import Filters
from bnnrun.report.filters import CELL, GAP, draw, expected_share, kept, unique_filters
from bnnrun.runtime import file
from bnnrun.runtime.model import PackedLayer
from bnnrun.train import checkpoint

RUNS = {
    "mlp": ["arch.width=32", "trainer.epochs=2"],
    "convnet": ["arch=convnet", "arch.channels=[8,8]", "arch.fc=[16]", "trainer.epochs=2"],
    "shift": ["arch.width=32", "trainer.epochs=1", "norm=shift", "seed=4"],
    "float": ["arch.width=8", "trainer.epochs=1", "binarization=none"],
    "whitened": ["arch.width=8", "trainer.epochs=1", "dataset.preprocessing=zca"],
}
PACKED = ("mlp", "convnet", "shift")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Short runs on digits, and the packed networks of the binary ones."""
    root = tmp_path_factory.mktemp("runs")
    with contextlib.chdir(root):
        for name, words in RUNS.items():
            common = ["dataset=digits", "threads=1", f"hydra.run.dir={name}"]
            assert run(["train", *common, *words]) == 0
        for name in PACKED:
            assert run(["pack", f"run={name}"]) == 0
    return root


@pytest.fixture
def here(bnnrun, made, tmp_path):
    """The command line in a folder of copies of those runs."""
    for name in RUNS:
        shutil.copytree(made / name, tmp_path / name)
    return bnnrun


def records(tmp_path) -> list[dict]:
    paths = sorted((tmp_path / "results" / "runs").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return [json.loads(path.read_text()) for path in paths]


def best(folder) -> dict:
    return checkpoint.load(folder / "best.pt", "network")


def assert_refused(outcome, *named: str, status: int = 2) -> None:
    assert outcome.status == status, outcome.err
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("bnnrun: ")
    assert "Traceback" not in outcome.err + outcome.out
    for text in named:
        assert text in lines[0]


# pack


def test_pack_writes_the_packed_file_and_prints_its_bytes(here, tmp_path):
    path = tmp_path / "mlp" / "model.safetensors"
    path.unlink()
    outcome = here("pack", "run=mlp")
    assert outcome.status == 0, outcome.err
    assert f"mlp/model.safetensors: {path.stat().st_size:,} bytes" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["fc1", "2,048", "256", "8,192", "32.0"] in [line[:5] for line in lines]
    # Rows of 32 bits, and no row of the last layer is longer.
    assert ["sum", "4,416", "552", "17,664", "32.0"] in [line[:5] for line in lines]
    source = file.load(path).source
    row = best(tmp_path / "mlp")["row"]
    assert source["dataset"] == "digits"
    assert source["seed"] == "0"
    assert source["epoch"] == str(row["epoch"])
    assert float(source["test_error_pct"]) == pytest.approx(row["test_error_pct"], abs=1e-4)


def test_pack_writes_where_it_is_told(here, tmp_path):
    before = (tmp_path / "mlp" / "model.safetensors").read_bytes()
    outcome = here("pack", "run=mlp/best.pt", "out=new/digits.safetensors")
    assert outcome.status == 0, outcome.err
    assert "new/digits.safetensors" in outcome.out
    x = np.zeros((1, 1, 8, 8), np.uint8)
    answers = [
        package.load(p).scores(x) for p in ("new/digits.safetensors", "mlp/model.safetensors")
    ]
    np.testing.assert_array_equal(*answers)
    assert (tmp_path / "mlp" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("float", ["binarization.weights=none", "±1"]),
        ("whitened", ["dataset.preprocessing=zca", "scale", "standardize"]),
    ],
)
def test_a_run_without_an_exact_packed_form_is_refused_with_the_reason(
    here, tmp_path, name, reasons
):
    outcome = here("pack", f"run={name}")
    assert_refused(outcome, f"{name}/best.pt: cannot be packed", *reasons)
    assert not (tmp_path / name / "model.safetensors").exists()


def test_packing_no_run_is_refused(here, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(here("pack", "run=nowhere"), "nowhere")
    assert_refused(here("pack", "run=empty"), "empty/best.pt")
    # The state of a run is no network that was picked.
    assert_refused(here("pack", "run=mlp/checkpoint.pt"), "mlp/checkpoint.pt")
    assert_refused(here("pack", "run=mlp/model.safetensors"), "mlp/model.safetensors")


def test_a_packed_file_that_cannot_be_written_is_told(here, tmp_path):
    (tmp_path / "a_file").write_text("in the way")
    outcome = here("pack", "run=mlp", "out=a_file/model.safetensors")
    assert_refused(outcome, "a_file/model.safetensors: cannot be written", status=1)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["pack"], "run"),
        (["eval"], "model"),
        (["predict", "a.png"], "model"),
        (["filters"], "model"),
    ],
    ids=["pack", "eval", "predict", "filters"],
)
def test_a_key_that_must_be_given_is_asked_for_in_one_line(bnnrun, words, key):
    assert_refused(bnnrun(*words), key)


# eval


@pytest.mark.parametrize("name", ["shift", "convnet"])
def test_the_packed_test_error_is_that_of_the_run(here, tmp_path, name):
    outcome = here("eval", f"model={name}", "dataset=digits")
    assert outcome.status == 0, outcome.err
    (record,) = records(tmp_path)
    row = best(tmp_path / name)["row"]
    assert record["quantity"] == "packed_test_error"
    assert record["value"] == row["test_error_pct"]
    assert record["unit"] == "%"
    assert record["seed"] == (4 if name == "shift" else 0)
    assert record["device"] == "cpu"
    assert record["details"]["images"] == record["data"]["test"] == 400
    assert record["details"]["kernel"] == "xnor"
    assert record["details"]["first"] in ("bytes", "planes")
    assert record["details"]["verified"] is None
    path = tmp_path / name / "model.safetensors"
    assert record["details"]["packed_bytes"] == path.stat().st_size
    assert record["details"]["sha256"] == file.sha256(path)
    assert record["details"]["trained"]["epoch"] == str(row["epoch"])
    assert record["config"]["dataset"]["name"] == "digits"
    assert record["command"].startswith("bnnrun eval ")
    assert f"{name}/model.safetensors: " in outcome.out
    assert f"test error {record['value']:.2f} %" in outcome.out


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mlp", 3 * 32), ("shift", 3 * 32), ("convnet", 8 * 8 * 8 + 4 * 4 * 8 + 16)],
)
def test_verify_compares_every_bit_and_every_score(here, tmp_path, name, bits):
    outcome = here("eval", f"model={name}", "dataset=digits", "--verify")
    assert outcome.status == 0, outcome.err
    assert f"verified: {400 * bits:,} hidden bits and 4,000 scores of 400 images" in outcome.out
    (record,) = records(tmp_path)
    verified = {"images": 400, "hidden_bits": 400 * bits, "scores": 4000}
    assert record["details"]["verified"] == verified
    assert record["value"] == best(tmp_path / name)["row"]["test_error_pct"]
    assert "verify=true" in record["command"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp", ["first=bytes"]),
        ("mlp", ["first=planes"]),
        ("convnet", ["first=planes"]),
        ("convnet", ["kernel=reference"]),
    ],
    ids=str,
)
def test_every_kernel_has_the_same_test_error_and_verifies(here, tmp_path, name, words):
    outcome = here("eval", f"model={name}", "dataset=digits", "verify=true", "threads=1", *words)
    assert outcome.status == 0, outcome.err
    (record,) = records(tmp_path)
    assert record["value"] == best(tmp_path / name)["row"]["test_error_pct"]
    key, value = words[0].split("=")
    assert record["details"][key] == value
    assert record["details"]["first" if key == "kernel" else "kernel"] in ("reference", "xnor")
    assert record["details"]["verified"]["images"] == 400


def test_a_sweep_over_kernels_leaves_a_record_each(here, tmp_path):
    words = ["-m", "model=mlp", "dataset=digits", "first=bytes,planes", "hydra.sweep.dir=sweep"]
    assert here("eval", *words).status == 0
    made = records(tmp_path)
    assert sorted(record["details"]["first"] for record in made) == ["bytes", "planes"]
    assert len({record["value"] for record in made}) == 1


def test_another_data_set_is_refused_with_the_one_to_add(here, tmp_path):
    """By default the data set is MNIST."""
    assert_refused(here("eval", "model=mlp"), "dataset=mnist", "digits: add dataset=digits")
    assert records(tmp_path) == []


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_the_data_sets_of_convnets_can_be_named(here, dataset):
    """Their files choose arch=convnet, a group that eval has not."""
    outcome = here("eval", "model=mlp", f"dataset={dataset}")
    assert_refused(outcome, f"dataset={dataset}", "trained on digits", "add dataset=digits")


def test_a_network_that_is_not_there_is_refused(here):
    assert_refused(here("eval", "model=missing", "dataset=digits"), "missing: no such file")
    assert_refused(here("eval", "model=float", "dataset=digits"), "float/model.safetensors")
    shutil.copy("mlp/best.pt", "mlp/best.safetensors")
    outcome = here("eval", "model=mlp/best.safetensors", "dataset=digits")
    assert_refused(outcome, "mlp/best.safetensors: not a packed network")
    assert_refused(here("predict", "model=missing", "a.png"), "missing: no such file")


@pytest.mark.parametrize("name", ["convnet", "float", "whitened"])
def test_the_trained_networks_error_is_that_of_the_run_too(here, tmp_path, name):
    outcome = here("eval", f"model={name}/best.pt", "dataset=digits", "device=cpu")
    assert outcome.status == 0, outcome.err
    (record,) = records(tmp_path)
    row = best(tmp_path / name)["row"]
    assert record["quantity"] == "trained_test_error"
    assert record["value"] == row["test_error_pct"]
    assert record["details"]["epoch"] == row["epoch"]
    assert record["device"] == "cpu"
    assert f"test error {record['value']:.2f} %" in outcome.out


def test_a_trained_network_that_cannot_be_evaluated_is_refused(here, tmp_path):
    words = ["dataset=digits", "device=cpu"]
    assert_refused(here("eval", "model=mlp/best.pt", *words, "--verify"), "mlp/best.pt", "verify")
    assert_refused(here("eval", "model=mlp/best.pt"), "dataset=mnist", "digits: add dataset=digits")
    assert_refused(here("eval", "model=mlp/missing.pt", *words), "mlp/missing.pt: no such network")
    assert_refused(here("eval", "model=mlp/checkpoint.pt", *words), "mlp/checkpoint.pt: not a net")
    assert records(tmp_path) == []


def test_verifying_against_another_network_is_refused(here, tmp_path):
    words = ["model=mlp", "dataset=digits", "--verify"]
    for name in ("whitened", "convnet"):
        outcome = here("eval", *words, f"trained={name}/best.pt")
        assert_refused(outcome, f"trained={name}/best.pt", "another network", "mlp/model.safet")
    assert_refused(here("eval", *words, "trained=nowhere.pt"), "nowhere.pt")
    assert_refused(here("eval", *words, "trained=mlp/checkpoint.pt"), "mlp/checkpoint.pt")
    assert records(tmp_path) == []


def test_verifying_without_the_trained_network_beside_is_refused(here, tmp_path):
    assert here("pack", "run=mlp", "out=alone/model.safetensors").status == 0
    words = ["model=alone", "dataset=digits", "--verify"]
    assert_refused(here("eval", *words), "alone/best.pt")
    outcome = here("eval", *words, "trained=mlp/best.pt")
    assert outcome.status == 0, outcome.err
    assert records(tmp_path)[0]["details"]["verified"]["images"] == 400


def hidden_bits(path) -> list[np.ndarray]:
    """Bits of each hidden layer over the test images, channels last, and the scores."""
    import torch
    from made_up import config

    from bnnrun.data import load

    network, _ = trained(path)
    pixels = load(config("digits")).test.pixels
    with torch.no_grad():
        *hidden, scores = [y.numpy() for y in network.trace(torch.from_numpy(pixels.copy()))]
    return [np.moveaxis(y >= 0, 1, -1) for y in hidden] + [scores]


def flip_a_weight(path, layer: int) -> tuple[int, ...]:
    """Negate a weight of best.pt that changes a bit, or a score; where the first change is."""
    saved = best(path.parent)
    key = f"stack.{layer}.product.weight"
    before = hidden_bits(path)[layer]
    original = saved["network"][key].clone()
    for i in range(original.numel()):
        w = saved["network"][key].copy_(original)
        w = w.as_strided((w.numel(),), (1,))  # as it lies: channels last
        w[i] = -0.5 if w[i] >= 0 else 0.5
        state = {k: v for k, v in saved.items() if k not in ("format", "kind")}
        checkpoint.save(path, "network", state)
        changed = np.argwhere(hidden_bits(path)[layer] != before)
        if len(changed):
            return tuple(changed[0])
    raise AssertionError("no weight of the layer matters")


@pytest.mark.parametrize(
    ("name", "layer", "called"),
    [("mlp", 0, "fc1"), ("convnet", 1, "conv2"), ("convnet", 2, "fc1")],
)
def test_one_negated_weight_is_found_by_layer_image_and_channel(
    here, tmp_path, name, layer, called
):
    at = flip_a_weight(tmp_path / name / "best.pt", layer)
    outcome = here("eval", f"model={name}", "dataset=digits", "--verify")
    place = f"{called}, image {at[0]}, channel {at[-1]}"
    if len(at) > 2:
        place += f" at row {at[1]}, column {at[2]}"
    assert_refused(outcome, f"{name}/model.safetensors: {place}: bit ", status=1)
    assert records(tmp_path) == []


def test_one_negated_weight_of_the_output_layer_is_found_by_its_score(here, tmp_path):
    at = flip_a_weight(tmp_path / "mlp" / "best.pt", 3)
    outcome = here("eval", "model=mlp", "dataset=digits", "--verify")
    assert_refused(outcome, f"image {at[0]}, score of class {at[1]}", status=1)


# predict


def digits(count: int) -> tuple[np.ndarray, list[Image.Image]]:
    """Test images as pixels to 16, and as 8-bit pictures."""
    from made_up import config

    from bnnrun.data import load

    pixels = load(config("digits")).test.pixels[:count]
    grey = np.rint(pixels[:, 0] * (255 / 16)).astype(np.uint8)
    return pixels, [Image.fromarray(image) for image in grey]


def predicted(outcome) -> dict[str, list[str]]:
    """The other cells of each row of a CSV table, by the first."""
    assert outcome.status == 0, outcome.err
    header, *lines = outcome.out.splitlines()
    assert header == "image,class,score,next,its score"
    return {name: cells for name, *cells in (line.rsplit(",", 4) for line in lines)}


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_predictions_are_the_packed_networks_own(here, tmp_path, name):
    pixels, pictures = digits(12)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i:02}.png")
    names = [f"{i:02}.png" for i in range(12)]
    rows = predicted(here("predict", f"model={name}", *names, "format=csv"))
    assert list(rows) == names
    scores = package.load(tmp_path / name).scores(pixels)
    for row, each in zip(rows.values(), scores, strict=True):
        order = np.argsort(-each, kind="stable")
        assert row == [
            str(order[0]), f"{each[order[0]]:.3f}", str(order[1]), f"{each[order[1]]:.3f}",
        ]  # fmt: skip


def test_every_kernel_predicts_the_same(here, tmp_path):
    _, pictures = digits(3)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    words = ["0.png", "1.png", "2.png", "format=csv"]
    rows = [
        predicted(here("predict", "model=mlp", *words, word))
        for word in ("kernel=xnor", "kernel=reference", "first=planes", "first=bytes")
    ]
    assert rows == rows[:1] * 4


def test_larger_pictures_colours_and_other_formats_are_taken(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.resize((64, 48)).save(tmp_path / "large.png")
    picture.convert("RGB").save(tmp_path / "colour.bmp")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    picture.save(tmp_path / "plain.png")
    picture.resize((32, 32)).save(tmp_path / "photo.jpg")
    names = ["large.png", "colour.bmp", "alpha.png", "plain.png", "photo.jpg"]
    rows = predicted(here("predict", "model=mlp", *names, "format=csv"))
    assert list(rows) == names
    assert rows["colour.bmp"] == rows["alpha.png"] == rows["plain.png"]
    assert all(row[0] in "0123456789" for row in rows.values())


def test_a_folder_of_pictures_is_predicted_by_name(here, tmp_path):
    _, pictures = digits(3)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, picture in zip(("b.png", "a.png", "more/c.PNG"), pictures, strict=True):
        picture.save(tmp_path / "photos" / name, "PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    rows = predicted(here("predict", "model=mlp", "photos", "format=csv"))
    assert list(rows) == ["photos/a.png", "photos/b.png", "photos/more/c.PNG"]


def test_predictions_are_shown_as_a_table_too(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "a.png")
    outcome = here("predict", "model=mlp", "a.png")
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[1].split() == [
        "image",
        "class",
        "score",
        "next",
        "its",
        "score",
    ]
    (row,) = predicted(here("predict", "model=mlp", "a.png", "format=csv")).values()
    assert outcome.out.split()[-5:] == ["a.png", *row]


def test_files_of_awkward_names_are_predicted(here, tmp_path):
    names = [
        "epoch=3.png", "a b.png", "it's.png", 'a"b.png', "é.png", "(1).png", "a#b.png", "$x.png",
        "{a}.png", "100%.png", "a:b.png", "[1].png", "1e3.png", "lr=[1,2].png", "a,b.png",
    ]  # fmt: skip
    _, pictures = digits(len(names))
    for name, picture in zip(names, pictures, strict=True):
        picture.save(tmp_path / name, "PNG")
    outcome = here("predict", "model=mlp", *names)
    assert outcome.status == 0, outcome.err
    shown = [line.strip().rsplit(maxsplit=4)[0] for line in outcome.out.splitlines()[3:-1]]
    assert shown == names


@pytest.mark.parametrize("name", ["a\\b.png", "a\\'b.png", "a\\\\b.png"])
def test_a_name_with_a_backslash_is_predicted(here, tmp_path, name):
    """As every path of Windows has."""
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / name, "PNG")
    assert list(predicted(here("predict", "model=mlp", name, "format=csv"))) == [name]


@pytest.mark.parametrize("name", ["photo[a].png", "photo[/a].png"])
def test_brackets_in_a_name_are_shown_as_they_are(here, tmp_path, name):
    """Neither a style that is swallowed nor the end of one that was never begun."""
    _, (picture, *_) = digits(1)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    picture.save(tmp_path / name, "PNG")
    outcome = here("predict", "model=mlp", name)
    assert outcome.status == 0, outcome.err
    assert name in outcome.out


def test_what_is_no_picture_is_refused_by_name(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture at all\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "nothing").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    for name in ("text.png", "empty.png", "cut.png", "deep.png", "missing.png", "nothing"):
        outcome = here("predict", "model=mlp", "good.png", name)
        assert_refused(outcome, f"{name}: ")
        assert "good.png" not in outcome.out
    assert_refused(here("predict", "model=mlp"), "images", "a.png")


# filters


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
    assert Filters(**record["details"]["first_layer"]) == kept(model.layers[0])
    for text in ("conv1", "1 -> 8", "conv2", "8 -> 8", "shown/filters.png"):
        assert text in outcome.out
    with Image.open(tmp_path / "shown" / "filters.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.mode == "RGB"


def test_the_picture_shows_the_signs_of_the_trained_weights(here, tmp_path):
    model = file.load(tmp_path / "convnet" / "model.safetensors")
    picture = np.asarray(draw(kept(model.layers[0])))
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
    picture = np.asarray(draw(kept(layer)))
    assert picture.shape == (16 * (3 * CELL + GAP) + GAP,) * 2 + (3,)
    w = unpack(layer.weight, 27).reshape(300, 3, 3, 3)
    at = GAP + 15 * (3 * CELL + GAP)
    cells = picture[at : at + 3 * CELL : CELL, at : at + 3 * CELL : CELL]
    np.testing.assert_array_equal(cells, np.where(w[255] > 0, 255, 0))


def test_filters_of_an_mlp_are_refused(here, tmp_path):
    assert_refused(here("filters", "model=mlp"), "mlp/model.safetensors: no convolution")
    assert_refused(here("filters", "model=missing"), "missing: no such file")
    assert records(tmp_path) == []


def convolution(channels: int, outputs: int, seed: int = 0) -> PackedLayer:
    arch = ConvNetConfig(name="convnet", channels=[channels, outputs], fc=[])
    shape = plan(arch, KIND)[1]
    rng = np.random.default_rng(seed)
    w = rng.random((outputs, 9 * channels)) < 0.5
    none = np.zeros(0)
    t, flip = np.zeros((1, outputs), np.int32), np.zeros(outputs, bool)
    return PackedLayer(shape, to_bits(w), t, flip, none, none, none)


@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (1, 300), (5, 7), (33, 40), (3, 1000)])
def test_unique_filters_are_those_that_sets_hold(channels, outputs):
    layer = convolution(channels, outputs)
    w = unpack(layer.weight, 9 * channels).reshape(outputs, 9, channels)
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
    w = unpack(layer.weight, 18)
    w[1:] = -w[0]
    same = PackedLayer(layer.shape, to_bits(w), layer.threshold, layer.flip, *[np.zeros(0)] * 3)
    assert unique_filters(same) == 0.25


@pytest.mark.parametrize("outputs", [1, 8, 128, 512])
def test_the_share_by_chance_is_that_of_random_filters(outputs):
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 512, (2000, outputs))
    draws = np.minimum(draws, 511 - draws)
    shares = [len(np.unique(row)) / outputs for row in draws]
    deviation = np.std(shares) / np.sqrt(len(shares))
    assert expected_share(outputs) == pytest.approx(np.mean(shares), abs=5 * deviation + 1e-12)


# Without torch


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


def test_a_packed_network_predicts_in_python_without_torch(made, tmp_path):
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
        told = python(script, made / name, tmp_path / "x.npy", folder=tmp_path).splitlines()
        expected = package.load(made / name, kernel="reference").predict(pixels)
        assert json.loads(told[0]) == expected.tolist()
        assert told[1] == "(0, 10) (0,)"
        assert told[2:] == ["1"] * 11


def test_eval_predict_and_filters_run_without_torch(made, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "a.png")
    script = """
from bnnrun.cli.main import run
path = sys.argv[1]
for words in (["eval", "dataset=digits"], ["predict", "a.png"], ["filters"]):
    if status := run([*words, f"model={path}"]):
        sys.exit(status)
"""
    told = python(script, made / "convnet", folder=tmp_path)
    for text in ("test error", "a.png", "filters.png", "on cpu (no GPU: CuPy cannot be imported"):
        assert text in told
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
def test_other_images_than_the_networks_are_refused(made, images, named):
    classifier = package.load(made / "mlp")
    with pytest.raises(InputError, match=named):
        classifier.scores(images)


def test_images_in_any_memory_layout_have_the_same_scores(made):
    pixels, _ = digits(30)
    for name in ("mlp", "convnet"):
        classifier = package.load(made / name)
        expected = classifier.scores(pixels)
        turned = np.asfortranarray(pixels)
        np.testing.assert_array_equal(classifier.scores(turned), expected)
        np.testing.assert_array_equal(classifier.scores(pixels[::-1])[::-1], expected)
        read_only = pixels.copy()
        read_only.flags.writeable = False
        np.testing.assert_array_equal(classifier.scores(read_only), expected)
        np.testing.assert_array_equal(read_only, pixels)
