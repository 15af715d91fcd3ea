"""The packed file: what is saved comes back, and nothing else is taken for a network."""

import copy
import dataclasses
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import bnnrun
from bnnrun.architecture import plan
from bnnrun.config import ConvNetConfig, FirstLayer, Kernel, MlpConfig
from bnnrun.data.dataset import Kind
from bnnrun.errors import InputError
from bnnrun.gemm.bits import pack
from bnnrun.runtime import Classifier, file
from bnnrun.runtime.model import PackedLayer, PackedModel, borders
from bnnrun.runtime.reference import ReferenceNetwork

MLP = (MlpConfig(name="mlp", depth=2, width=17), (1, 3, 4), ("a", "b", "c"), 255)
CONVNET = (ConvNetConfig(name="convnet", channels=[5, 3], fc=[9]), (2, 5, 4), ("a", "b"), 16)
SOURCE = {"dataset": "made_up", "seed": "3", "epoch": "1"}


def random_model(arch, shape, classes, levels, seed=0) -> PackedModel:
    """Random bits, directions and thresholds about the middle of the sums."""
    rng = np.random.default_rng(seed)
    kind = Kind(shape, tuple(classes), levels)
    layers, none = [], np.zeros(0)
    for i, layer in enumerate(plan(arch, kind)):
        n, last = layer.outputs, layer.last
        count = 0 if last else len(borders(*layer.size)[1]) if i == 0 and layer.is_conv else 1
        spread = int(np.sqrt(layer.k)) * (levels if i == 0 else 1)
        layers.append(
            PackedLayer(
                dataclasses.replace(layer, dropout=0.0),
                pack(rng.random((n, layer.k)) < 0.5),
                rng.integers(-spread, spread + 1, (count, n)).astype(np.int32),
                np.zeros(n, bool) if last else rng.random(n) < 0.5,
                *(rng.normal(size=(3, n)) if last else (none, none, none)),
            )
        )
    return PackedModel(kind, tuple(layers), (2.0, -float(levels), float(levels)), SOURCE)


def images_of(model: PackedModel, count: int = 9) -> np.ndarray:
    shape = (count, *model.kind.image_shape)
    return np.random.default_rng(1).integers(0, model.kind.levels + 1, shape).astype(np.uint8)


def assert_same_model(ours: PackedModel, theirs: PackedModel) -> None:
    assert ours.kind == theirs.kind
    assert ours.input == theirs.input
    assert ours.source == theirs.source
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert a.shape == b.shape
        for name in ("weight", "threshold", "flip", "mean", "scale", "shift"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x.dtype, x.shape) == (y.dtype, y.shape), f"{a.shape.name}.{name}"
            np.testing.assert_array_equal(x, y)


def content(path) -> tuple[dict, dict, dict]:
    """(metadata, description of the network, arrays) of a packed file."""
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
        arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return metadata, json.loads(metadata["network"]), arrays


def write(path, network, arrays, **metadata) -> None:
    """A packed file with the right checksum, of a description (or its text) and any arrays."""
    text = network if isinstance(network, str) else json.dumps(network)
    given = {
        "format": "bnnrun-packed",
        "version": "1",
        "network": text,
        "sha256": file._checksum(text, arrays),
    }
    save_file(arrays, path, {**given, **metadata})


def refusal(path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(InputError) as refused:
        file.load(path)
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    assert str(path) in line
    assert len(line) < 500 + len(str(path))
    return line.removeprefix(f"{path}: ")


@pytest.fixture
def saved(tmp_path):
    """A small packed file of an MLP."""
    path = tmp_path / "model.safetensors"
    file.save(random_model(*MLP), path)
    return path


@pytest.fixture
def saved_convnet(tmp_path):
    path = tmp_path / "convnet.safetensors"
    file.save(random_model(*CONVNET), path)
    return path


@pytest.mark.parametrize("given", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_what_is_saved_is_loaded(tmp_path, given):
    model = random_model(*given)
    file.save(model, tmp_path / "model.safetensors")
    loaded = file.load(tmp_path / "model.safetensors")
    assert_same_model(loaded, model)
    x = images_of(model)
    np.testing.assert_array_equal(
        ReferenceNetwork(loaded).scores(x), ReferenceNetwork(model).scores(x)
    )


def test_names_of_any_language_and_awkward_numbers_come_back(tmp_path):
    arch, shape, _, levels = MLP
    model = random_model(arch, shape, ("Ä", "猫 \u2028", 'a "b" \\ \n'), levels)
    model = dataclasses.replace(
        model, input=(1.0, -33.318421, 78.567489456), source={"dataset": "ünï", "seed": "7"}
    )
    file.save(model, tmp_path / "model.safetensors")
    assert_same_model(file.load(tmp_path / "model.safetensors"), model)


def test_the_same_model_makes_the_same_bytes(tmp_path):
    """safetensors alone writes the metadata in any order."""
    for name in ("one", "two"):
        file.save(random_model(*CONVNET), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_is_hardly_larger_than_the_bits_of_its_weights(tmp_path):
    arch = MlpConfig(name="mlp", depth=2, width=1024)
    model = random_model(arch, (1, 28, 28), tuple("0123456789"), 255)
    file.save(model, tmp_path / "model.safetensors")
    bits = sum(layer.shape.weights for layer in model.layers)
    assert bits == 784 * 1024 + 1024 * 1024 + 1024 * 10
    size = (tmp_path / "model.safetensors").stat().st_size
    # 784 is 24.5 words; the rest is thresholds, directions, scores and the description.
    assert bits / 8 < size < 1.1 * bits / 8
    assert size < 4 * bits / 28


def test_saving_makes_the_folder_and_leaves_one_file(tmp_path):
    path = tmp_path / "new" / "model.safetensors"
    for seed in (0, 1):
        file.save(random_model(*MLP, seed=seed), path)
    assert list(path.parent.iterdir()) == [path]
    assert_same_model(file.load(path), random_model(*MLP, seed=1))


def python(script: str, *arguments: object) -> str:
    """What a Python of its own prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_told_in_one_line_and_keeps_what_stood_there(saved):
    """A limit on the size of files stands for the full disk."""
    pytest.importorskip("resource")
    before = saved.read_bytes()
    told = python(
        """
import dataclasses, resource, signal, sys
from pathlib import Path
from bnnrun.errors import RunError
from bnnrun.runtime import file

path = Path(sys.argv[1])
model = file.load(path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    file.save(model, path)
except RunError as error:
    print(error)
""",
        saved,
    )
    assert len(told.splitlines()) == 1
    assert str(saved) in told
    assert "too large" in told
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_loading_needs_neither_torch_nor_numba(saved):
    script = """
import sys
from pathlib import Path
import bnnrun.runtime.file

model = bnnrun.runtime.file.load(Path(sys.argv[1]))
print(len(model.layers), [name for name in ("torch", "numba", "cupy") if name in sys.modules])
"""
    assert python(script, saved) == "3 []\n"


def test_the_reference_runs_where_there_is_neither_torch_nor_numba(saved, saved_convnet):
    script = """
import sys
sys.modules.update(dict.fromkeys(("torch", "numba", "llvmlite", "cupy", "sklearn", "scipy")))
import numpy as np
import bnnrun

for path in sys.argv[1:]:
    classifier = bnnrun.load(path, kernel="reference")
    x = np.zeros((2, *classifier.image_shape), np.uint8)
    print(classifier.scores(x).ravel().tolist())
"""
    told = python(script, saved, saved_convnet).splitlines()
    for line, path in zip(told, (saved, saved_convnet), strict=True):
        model = file.load(path)
        x = np.zeros((2, *model.kind.image_shape), np.uint8)
        assert json.loads(line) == ReferenceNetwork(model).scores(x).ravel().tolist()


def test_a_packed_network_loads_from_its_folder(saved):
    for kernel in ("xnor", "reference"):
        classifier = bnnrun.load(saved.parent, kernel=kernel)
        model = random_model(*MLP)
        x = images_of(model)
        expected = ReferenceNetwork(model).scores(x)
        np.testing.assert_array_equal(classifier.scores(x), expected)
        np.testing.assert_array_equal(classifier.predict(x), expected.argmax(axis=1))
        assert classifier.classes == ("a", "b", "c")
        assert classifier.image_shape == (1, 3, 4)
        assert classifier.levels == 255


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"kernel": "fast"}, "kernel=fast: expected one of xnor, reference"),
        ({"first": "bits"}, "first=bits: expected one of auto, bytes, planes"),
    ],
    ids=str,
)
def test_another_word_for_a_kernel_is_refused(saved, words, named):
    with pytest.raises(InputError, match=named):
        bnnrun.load(saved, **words)


# What is no packed file at all.


def test_an_absent_file_says_how_one_is_made(tmp_path):
    assert "bnnrun pack run=FOLDER" in refusal(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        bnnrun.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        bnnrun.load(tmp_path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    assert "no such file" in refusal(tmp_path / "model.safetensors")
    with pytest.raises(InputError):
        bnnrun.load(tmp_path)


class Trap:
    def __reduce__(self):
        return (sys.exit, ("a pickle was run",))


FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "0xff": lambda path: path.write_bytes(b"\xff" * 10_000),
    "text": lambda path: path.write_text("not a network\n" * 100),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"weights": np.zeros(9), "trap": Trap()})),
    "json": lambda path: path.write_text(json.dumps({"format": "bnnrun-packed", "version": "1"})),
    "npz": lambda path: np.savez(path.open("wb"), weight=np.zeros(9)),
    "torch": lambda path: torch.save({"kind": "network", "format": 1, "trap": Trap()}, path),
    "header alone": lambda path: path.write_bytes(struct.pack("<Q", 2) + b"{}"),
    "huge header": lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "other safetensors": lambda path: save_file({"w": np.zeros(9)}, path),
    "other metadata": lambda path: save_file({"w": np.zeros(9)}, path, {"format": "pt"}),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "model.safetensors"
    FOREIGN[name](path)
    assert "not a packed network" in refusal(path)


def test_a_file_cut_short_anywhere_is_refused(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "cut"
    for size in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.unlink(missing_ok=True)  # what was opened before may still be mapped
        path.write_bytes(whole[:size])
        assert "not a packed network, or cut short" in refusal(path)


def test_a_longer_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert "not a packed network, or cut short" in refusal(saved)


def test_a_newer_version_says_to_update(saved):
    _, network, arrays = content(saved)
    for version in ("2", "1.0", "", "9" * 1000):
        write(saved, network, arrays, version=version)
        line = refusal(saved)
        assert "this version reads 1: update bnnrun" in line
        assert repr(version[:20]) in line


def test_another_checksum_is_refused(saved):
    _, network, arrays = content(saved)
    for checksum in ("", "0" * 64, file._checksum(json.dumps(network) + " ", arrays)):
        write(saved, network, arrays, sha256=checksum)
        assert "altered: its content does not have its checksum" in refusal(saved)


def test_each_array_and_the_description_count_in_the_checksum(saved):
    metadata, _, arrays = content(saved)
    for key, array in arrays.items():
        changed = {**arrays, key: array.copy()}
        changed[key].view(np.uint8).reshape(-1)[-1] ^= 1
        save_file(changed, saved, metadata)
        assert "altered" in refusal(saved)
    renamed = {**arrays, "fc1.weighs": arrays["fc1.weight"]}
    del renamed["fc1.weight"]
    save_file(renamed, saved, metadata)
    assert "altered" in refusal(saved)
    other = metadata["network"].replace('"a"', '"x"')
    assert other != metadata["network"]
    save_file(arrays, saved, {**metadata, "network": other})
    assert "altered" in refusal(saved)


# Wrong content under a right checksum: (description, arrays) -> None, or another description.


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


@pytest.mark.parametrize("end", [1, -1])
def test_thresholds_one_past_either_end_are_right(saved, end):
    """A constant channel has one."""
    _, network, arrays = content(saved)
    arrays["fc1.threshold"] = np.full((1, 17), end * (12 * 255 + 1), np.int32)
    arrays["fc2.threshold"] = np.full((1, 17), end * (17 + 1), np.int32)
    write(saved, network, arrays)
    model = file.load(saved)
    x = images_of(model)
    expected = ReferenceNetwork(model)
    expected.scores(x)
    for first in (FirstLayer.bytes, FirstLayer.planes):
        classifier = Classifier(model, Kernel.xnor, first)
        classifier.scores(x)
        for i, bits in enumerate(classifier.network.hidden):
            np.testing.assert_array_equal(bits, expected.hidden[i])
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


@pytest.mark.parametrize("given", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_any_value_at_any_place_of_the_description_is_refused_or_runs(tmp_path, given):
    """Nothing but InputError on the way from the file to scores, whatever stands where."""
    model = random_model(*given)
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
                if loaded.kind.image_shape != model.kind.image_shape:
                    continue
                x = np.minimum(images_of(model, 2), loaded.kind.levels)
                for kernel in (Kernel.reference, Kernel.xnor):
                    Classifier(loaded, kernel, FirstLayer.auto).scores(x)
                runs += 1
            except InputError:
                pass
            except Exception as error:
                failures.append(f"{'.'.join(map(str, place))} = {value!r}: {error!r}")
    assert not failures, "\n".join(failures)
    assert runs > 20  # other names of classes, other sources, other inputs


def split(whole: bytes) -> tuple[str, bytes]:
    """(header, data) of a safetensors file."""
    (size,) = struct.unpack("<Q", whole[:8])
    return whole[8 : 8 + size].decode(), whole[8 + size :]


def joined(header: str, data: bytes) -> bytes:
    encoded = header.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def flip_bits(rng, whole):
    changed = np.frombuffer(whole, np.uint8).copy()
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return changed.tobytes()


def set_bytes(rng, whole):
    at, size = rng.integers(len(whole)), rng.integers(1, 9)
    return whole[:at] + rng.bytes(size) + whole[at + size :]


def delete(rng, whole):
    at, size = rng.integers(len(whole)), rng.integers(1, 17)
    return whole[:at] + whole[at + size :]


def insert(rng, whole):
    at, size = rng.integers(len(whole) + 1), rng.integers(1, 17)
    return whole[:at] + rng.bytes(size) + whole[at:]


def truncate(rng, whole):
    return whole[: rng.integers(len(whole))]


def duplicate(rng, whole):
    a, b = sorted(rng.integers(len(whole), size=2))
    return whole[:b] + whole[a:]


def edit_length(rng, whole):
    sizes = [0, 1, 7, 8, len(whole) - 8, len(whole), 2**31, 2**63, 2**64 - 1]
    size = sizes[rng.integers(len(sizes))]
    if rng.random() < 0.5:
        size = max(0, struct.unpack("<Q", whole[:8])[0] + int(rng.integers(-20, 21)))
    return struct.pack("<Q", size) + whole[8:]


def edit_header_text(rng, whole):
    """A few characters of the header, its length put right."""
    header, data = split(whole)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(header)))
        new = rng.choice(list('0123456789{}[]",:\\ abcdefUIF-.eE'), int(rng.integers(0, 3)))
        header = header[:at] + "".join(new) + header[at + int(rng.integers(0, 3)) :]
    return joined(header, data)


def edit_header(rng, whole):
    """An entry of the header: type, shape, place, name; or whitespace and order alone."""
    text_, data = split(whole)
    header = json.loads(text_)
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names, 2)
    entry = header[name]
    kind = int(rng.integers(12))
    if kind == 0:
        entry["dtype"] = str(
            rng.choice(["U8", "I32", "F32", "U32", "BF16", "F8_E4M3", "BOOL", "X"])
        )
    elif kind == 1:
        entry["shape"] = entry["shape"][::-1] + [1] * int(rng.integers(2))
    elif kind == 2:
        at = int(rng.integers(2))
        entry["data_offsets"][at] += int(rng.choice([-8, -4, -1, 1, 4, 8, 2**40, -(2**40)]))
    elif kind == 3:
        header[name]["data_offsets"], header[other]["data_offsets"] = (
            header[other]["data_offsets"], entry["data_offsets"],
        )  # fmt: skip
    elif kind == 4:
        header[name], header[other] = header[other], header[name]
    elif kind == 5:
        del header[name]
    elif kind == 6:
        header[name + "x"] = header.pop(name)
    elif kind == 7:
        header["more"] = {"dtype": "U8", "shape": [0], "data_offsets": [len(data)] * 2}
    elif kind == 8:
        of = header["__metadata__"]
        del of[str(rng.choice(list(of)))]
    elif kind == 9:
        of = header["__metadata__"]
        of[str(rng.choice(list(of)))] = str(rng.choice(["", "1", "2", "{}", "pt"]))
    elif kind == 10:
        header["__metadata__"]["more"] = "of the same"  # harmless
    else:
        header = dict(sorted(header.items(), reverse=True))  # harmless
    return joined(json.dumps(header, indent=int(rng.integers(3)) or None), data)


MUTATIONS = [
    flip_bits, set_bytes, delete, insert, truncate, duplicate, edit_length, edit_header_text,
    edit_header, edit_header,
]  # fmt: skip


@pytest.mark.parametrize("given", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_a_damaged_file_is_refused_or_is_the_same_network(tmp_path, given):
    """Ten thousand mutations, five thousand a network."""
    model = random_model(*given)
    x = images_of(model)
    expected = ReferenceNetwork(model).scores(x)
    original = tmp_path / "model.safetensors"
    file.save(model, original)
    whole = original.read_bytes()
    rng = np.random.default_rng(0)
    survived, refused, lines = [], 0, set()
    path = tmp_path / "mutated"
    for i in range(5000):
        mutate = MUTATIONS[i % len(MUTATIONS)]
        mutated = mutate(rng, whole)
        path.unlink(missing_ok=True)  # a file that is mapped must not shrink
        path.write_bytes(mutated)
        try:
            loaded = file.load(path)
        except InputError as error:
            lines.add(len(str(error).splitlines()))
            refused += 1
            continue
        np.testing.assert_array_equal(
            ReferenceNetwork(loaded).scores(x), expected, err_msg=f"mutation {i}"
        )
        if mutated != whole:
            survived.append(mutate)
    assert refused > 4500
    assert lines == {1}
    # Order, whitespace and unknown metadata of the header change nothing.
    assert edit_header in survived
    assert set(survived) <= {edit_header, edit_header_text, insert, flip_bits, set_bytes}
