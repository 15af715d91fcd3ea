"""Packed files with a right checksum and wrong content: refused with the place, or run."""

import copy
import json

import numpy as np
import pytest
from packed_files import (
    CONVNET,
    MLP,
    assert_same_model,
    content,
    images_of,
    random_model,
    refusal,
    write,
)

from bnnrun.config import FirstLayer, Kernel
from bnnrun.errors import InputError
from bnnrun.runtime import Classifier, file
from bnnrun.runtime.reference import ReferenceNetwork


def replaced(key, **changes):
    """Change an array: its value by `to`, or its type by `kind`."""

    def change(network, arrays):
        to = changes.get("to", lambda a: a)
        arrays[key] = np.ascontiguousarray(to(arrays[key]).astype(changes.get("kind", "=u4")))

    return change


def having(key, at, value):
    def change(network, arrays):
        arrays[key] = arrays[key].copy()
        arrays[key][at] = value

    return change


def without(*path):
    """Take an array away, or what stands in the description at `path`."""

    def change(network, arrays):
        tree = arrays if path[0] in arrays else network
        for key in path[:-1]:
            tree = tree[key]
        del tree[path[-1]]

    return change


def extra(network, arrays):
    arrays["fc9.weight"] = np.zeros(3, np.uint32)


def said(**values):
    """Other values in the description."""
    return lambda network, arrays: network.update(values)


def layer_said(i, **values):
    return lambda network, arrays: network["layers"][i].update(values)


def text(make):
    """Another text in place of the description."""
    return lambda network, arrays: make(json.dumps(network))


def one_layer(network, arrays):
    network["layers"] = network["layers"][-1:]
    network["image_shape"] = [1, 1, 17]
    for key in list(arrays):
        if not key.startswith("fc3"):
            del arrays[key]


def twice(network, arrays):
    """Two layers of one name, whose arrays would be one another's."""
    network["layers"][1]["name"] = "fc1"


def copied(i, **values):
    """Another layer before layer i."""

    def change(network, arrays):
        layer = {**copy.deepcopy(network["layers"][i]), "name": "more", **values}
        network["layers"].insert(i, layer)

    return change


DEEP = 100_000
WRONG = {
    "weights of 8 bits": replaced("fc1.weight", kind="u1"),
    "weights of int32": replaced("fc1.weight", kind="i4"),
    "weights of float32": replaced("fc1.weight", kind="f4"),
    "weights of float16": replaced("fc1.weight", kind="f2"),
    "thresholds of int64": replaced("fc1.threshold", kind="i8"),
    "thresholds of uint32": replaced("fc1.threshold", to=np.abs),
    "directions of bool": replaced("fc1.flip", kind="?"),
    "means of float32": replaced("fc3.mean", kind="f4"),
    "flat weights": replaced("fc1.weight", to=np.ravel),
    "transposed weights": replaced("fc1.weight", to=np.transpose),
    "one row less": replaced("fc1.weight", to=lambda a: a[1:]),
    "one word more": replaced("fc1.weight", to=lambda a: np.pad(a, ((0, 0), (0, 1)))),
    "no weights": replaced("fc1.weight", to=lambda a: a[:0]),
    "flat thresholds": replaced("fc1.threshold", to=np.ravel, kind="i4"),
    "two rows of thresholds": replaced("fc1.threshold", to=lambda a: a.repeat(2, 0), kind="i4"),
    "one score less": replaced("fc3.shift", to=lambda a: a[1:], kind="f8"),
    "a number for an array": replaced("fc3.shift", to=lambda a: a[0], kind="f8"),
    "missing weights": without("fc2.weight"),
    "missing thresholds": without("fc1.threshold"),
    "missing directions": without("fc2.flip"),
    "missing scale": without("fc3.scale"),
    "no arrays": lambda network, arrays: arrays.clear(),
    "an extra array": extra,
    "tail bits of weights": having("fc1.weight", (0, 0), 1 << 12),
    "tail bits of the last weight": having("fc3.weight", (2, 0), 1 << 31),
    "tail bits of directions": having("fc1.flip", 0, 1 << 17),
    "threshold too high": having("fc1.threshold", (0, 3), 12 * 255 + 2),
    "threshold too low": having("fc1.threshold", (0, 3), -12 * 255 - 2),
    "threshold at the end of int32": having("fc2.threshold", (0, 0), -(2**31)),
    "hidden threshold too high": having("fc2.threshold", (0, 0), 19),
    "scale nan": having("fc3.scale", 1, np.nan),
    "mean inf": having("fc3.mean", 0, np.inf),
    "shift -inf": having("fc3.shift", 2, -np.inf),
    "outputs huge": layer_said(0, outputs=2**40),
    "outputs just too many": layer_said(0, outputs=2**24 + 1),
    "outputs of 10^30": layer_said(0, outputs=10**30),
    "outputs zero": layer_said(0, outputs=0),
    "outputs negative": layer_said(0, outputs=-17),
    "outputs a fraction": layer_said(0, outputs=17.5),
    "outputs a whole fraction": layer_said(0, outputs=17.0),
    "outputs a string": layer_said(0, outputs="17"),
    "outputs of another layer": layer_said(0, outputs=18),
    "outputs not the classes": layer_said(2, outputs=4),
    "outputs true": layer_said(2, outputs=True),
    "image negative": said(image_shape=[1, -3, -4]),
    "image zero": said(image_shape=[1, 0, 4]),
    "image true": said(image_shape=[True, 3, 4]),
    "image huge": said(image_shape=[2**40, 3, 4]),
    "image huge product": said(image_shape=[2**24, 2**24, 2**24]),
    "image a fraction": said(image_shape=[1.0, 3, 4]),
    "image of two numbers": said(image_shape=[3, 4]),
    "image of four numbers": said(image_shape=[1, 1, 3, 4]),
    "image a number": said(image_shape=12),
    "image a string": said(image_shape="134"),
    "image null": said(image_shape=None),
    "image an object": said(image_shape={"1": 1, "3": 3, "4": 4}),
    "kernel 5": layer_said(0, kernel=5),
    "kernel 1": layer_said(0, kernel=1),
    "kernel negative": layer_said(0, kernel=-3),
    "kernel a string": layer_said(0, kernel="0"),
    "kernel null": layer_said(0, kernel=None),
    "kernel a list": layer_said(0, kernel=[0]),
    "pooling in a dense layer": layer_said(0, pool=True),
    "pool a number": layer_said(0, pool=0),
    "pool null": layer_said(0, pool=None),
    "convolution after dense": layer_said(1, kernel=3),
    "convolution at the end": layer_said(2, kernel=3),
    "one layer only": one_layer,
    "no layers": said(layers=[]),
    "1001 layers": lambda network, arrays: network.update(layers=network["layers"] * 334),
    "layers an object": said(layers={"0": {}, "1": {}}),
    "layers null": said(layers=None),
    "layers of numbers": said(layers=[1, 2]),
    "layers of null": said(layers=[None, None]),
    "layers of lists": said(layers=[[], []]),
    "layers of strings": said(layers=["fc1", "fc2"]),
    "a layer more": copied(1),
    "two layers of one name": twice,
    "a name that no array has": layer_said(0, name="fc7"),
    "name a number": layer_said(0, name=1),
    "name a list": layer_said(0, name=[]),
    "a layer without outputs": without("layers", 0, "outputs"),
    "a layer without kernel": without("layers", 1, "kernel"),
    "a layer without name": without("layers", 1, "name"),
    "classes of numbers": said(classes=[1, 2, 3]),
    "classes of null": said(classes=[None, "b", "c"]),
    "classes a string": said(classes="abc"),
    "classes an object": said(classes={"a": 1, "b": 2, "c": 3}),
    "classes null": said(classes=None),
    "two classes of three": said(classes=["a", "b"]),
    "no classes": said(classes=[]),
    "levels 0": said(levels=0),
    "levels 256": said(levels=256),
    "levels negative": said(levels=-1),
    "levels a fraction": said(levels=15.5),
    "levels true": said(levels=True),
    "levels null": said(levels=None),
    "input of two numbers": said(input=[2.0, -255.0]),
    "input nan": said(input=[float("nan"), 0, 1]),
    "input inf": said(input=[1, float("-inf"), 1]),
    "input null": said(input=None),
    "input of null": said(input=[None, 0, 1]),
    "input of words": said(input=["a", "b", "c"]),
    "input of 10^400": said(input=[10**400, 0, 1]),
    "source null": said(source=None),
    "source a list": said(source=[]),
    "source a string": said(source="digits"),
    "source a number": said(source=3),
    **{
        f"no {key}": without(key)
        for key in ("image_shape", "classes", "levels", "input", "layers", "source")
    },
    "a list": text(lambda network: f"[{network}]"),
    "null": text(lambda network: "null"),
    "a number": text(lambda network: "1"),
    "a string": text(lambda network: '"network"'),
    "nothing": text(lambda network: ""),
    "half of it": text(lambda network: network[: len(network) // 2]),
    "two of it": text(lambda network: network * 2),
    "deeply nested lists": text(lambda network: "[" * DEEP),
    "deeply nested and closed lists": text(lambda network: "[" * DEEP + "]" * DEEP),
    "deeply nested objects": text(lambda network: '{"layers":' * DEEP),
    "deeply nested classes": text(
        lambda network: network.replace('["a", "b", "c"]', "[" * DEEP + "]" * DEEP)
    ),
    "nested past what prints": text(
        lambda network: network.replace('"seed": "3"', '"seed": ' + "[" * 900 + "]" * 900)[:-1]
    ),
    "1e400 in the image": text(lambda network: network.replace("[1, 3, 4]", "[1, 3, 1e400]")),
    "1e400 in the input": text(lambda network: network.replace("-255.0", "-1e400")),
    "a number of 5000 digits": text(
        lambda network: network.replace('"levels": 255', '"levels": ' + "9" * 5000)
    ),
    "NaN levels": text(lambda network: network.replace('"levels": 255', '"levels": NaN')),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_content_under_a_right_checksum_is_refused(saved, case):
    _, network, arrays = content(saved)
    before = json.dumps(network)
    other = WRONG[case](network, arrays)
    if isinstance(other, str):
        assert other != before
    write(saved, network if other is None else other, arrays)
    line = refusal(saved)
    assert line.startswith("its description and its arrays do not fit (")
    assert not line.endswith("()")


WRONG_CONVNET = {
    "fewer borders": replaced("conv1.threshold", to=lambda a: a[1:], kind="i4"),
    "one border": replaced("conv1.threshold", to=lambda a: a[:1], kind="i4"),
    "borders in the second": replaced("conv2.threshold", to=lambda a: a.repeat(9, 0), kind="i4"),
    "threshold of a border too high": having("conv1.threshold", (8, 0), 18 * 16 + 2),
    "dense at the beginning": layer_said(0, kernel=0),
    "dense in between": layer_said(1, kernel=0, pool=False),
    "an image that pools to another size": said(image_shape=[2, 10, 8]),
    "an image without borders": said(image_shape=[2, 1, 20]),
    "more pooling": layer_said(0, pool=True),
    "no pooling": layer_said(1, pool=False),
    "kernel 5": layer_said(1, kernel=5),
    "kernel 3.0": layer_said(1, kernel=3.0),
    "pooled away": said(image_shape=[40, 1, 1]),
    "levels as wide as the thresholds are not": said(levels=1),
    "tail bits of a second convolution": having("conv2.weight", (0, 1), 1 << 13),
    "channels that do not fit": layer_said(0, outputs=6),
}


@pytest.mark.parametrize("case", WRONG_CONVNET)
def test_wrong_content_of_a_convnet_is_refused(saved_convnet, case):
    _, network, arrays = content(saved_convnet)
    WRONG_CONVNET[case](network, arrays)
    write(saved_convnet, network, arrays)
    assert refusal(saved_convnet).startswith("its description and its arrays do not fit (")


WRONG_BITS = {
    "bits that weights lack": layer_said(0, weight_bits=3),
    "bits that weights have": layer_said(0, weight_bits=1),
    "bits that thresholds lack": layer_said(0, output_bits=3),
    "no bits": layer_said(1, weight_bits=0),
    "five bits": layer_said(1, weight_bits=5),
    "true bits": layer_said(1, output_bits=True),
    "bits of scores": layer_said(2, output_bits=2),
    "thresholds out of order": replaced("fc2.threshold", to=lambda a: a[::-1], kind="i4"),
    "a threshold out of order": having("fc1.threshold", (1, 0, 2), 12 * 255),
    "a plane of weights less": replaced("fc2.weight", to=lambda a: a[:1]),
    "weights without planes": replaced("fc2.weight", to=lambda a: a[0]),
    "tail bits of a plane": having("fc2.weight", (1, 0, 0), 1 << 17),
    "a threshold past the sums": having("fc2.threshold", (2, 0, 0), 3 * 3 * 17 + 2),
}


@pytest.mark.parametrize("case", WRONG_BITS)
def test_wrong_content_of_more_bits_is_refused(saved_bits, case):
    _, network, arrays = content(saved_bits)
    WRONG_BITS[case](network, arrays)
    write(saved_bits, network, arrays, version="2")
    assert refusal(saved_bits).startswith("its description and its arrays do not fit (")


def test_more_bits_are_version_2_and_read_as_they_were_written(saved_bits):
    metadata, network, arrays = content(saved_bits)
    assert metadata["version"] == "2"
    assert_same_model(file.load(saved_bits), random_model(*MLP, bits=(2, 2)))
    del network["layers"][0]["weight_bits"]
    write(saved_bits, network, arrays, version="2")
    assert "weight_bits" in refusal(saved_bits)


def test_a_file_of_more_bits_under_version_1_is_refused(saved_bits):
    _, network, arrays = content(saved_bits)
    write(saved_bits, network, arrays, version="1")
    assert refusal(saved_bits).startswith("its description and its arrays do not fit (")


@pytest.mark.parametrize("end", [1, -1])
def test_thresholds_one_past_either_end_are_right(saved, end):
    """A constant channel has one."""
    _, network, arrays = content(saved)
    arrays["fc1.threshold"] = np.full((1, 17), end * (12 * 255 + 1), np.int32)
    arrays["fc2.threshold"] = np.full((1, 17), end * (17 + 1), np.int32)
    write(saved, network, arrays)
    model = file.load(saved)
    x = images_of(model)
    expected, _ = ReferenceNetwork(model).trace(x)
    for first in (FirstLayer.bytes, FirstLayer.planes):
        classifier = Classifier(model, Kernel.xnor, first)
        for i, bits in enumerate(classifier.trace(x)[0]):
            np.testing.assert_array_equal(bits, expected[i])
            np.testing.assert_array_equal(bits, np.tile((end < 0) ^ model.layers[i].flip, (9, 1)))


ODD_VALUES = [
    None, True, False, 0, 1, 2, 3, -1, 9, 255, 2**24, 2**31, 2**63, 0.0, 1.0, 3.0, 0.5, -0.0,
    float("inf"), float("nan"), "", "x", "3", "fc1", "conv1", [], [1], [[]], {}, {"a": 1}, "\ud800",
]  # fmt: skip


def places(tree, path=()):
    """Every place in a tree of lists and objects."""
    yield path
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inner:
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("architecture", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_any_value_at_any_place_of_the_description_is_refused_or_runs(tmp_path, architecture):
    """Nothing but InputError on the way from the file to scores, whatever stands where."""
    model = random_model(*architecture)
    path = tmp_path / "model.safetensors"
    file.save(model, path)
    _, network, arrays = content(path)
    runs, failures = 0, []
    for place in places(network):
        for value in ODD_VALUES:
            changed = copy.deepcopy(network)
            if not place:
                changed = value
            else:
                node = changed
                for key in place[:-1]:
                    node = node[key]
                node[place[-1]] = value
            path.unlink()
            write(path, json.dumps(changed), arrays)
            try:
                loaded = file.load(path)
                if loaded.spec.image_shape != model.spec.image_shape:
                    continue
                x = np.minimum(images_of(model, 2), loaded.spec.max_pixel)
                for kernel in (Kernel.reference, Kernel.xnor):
                    Classifier(loaded, kernel, FirstLayer.auto).scores(x)
                runs += 1
            except InputError:
                pass
            except Exception as error:
                failures.append(f"{'.'.join(map(str, place))} = {value!r}: {error!r}")
    assert not failures, "\n".join(failures)
    assert runs > 20  # other names of classes, other sources, other inputs
