"""The packed file: what is saved comes back, and nothing else is taken for a network."""

import dataclasses
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
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
from safetensors.numpy import save_file

import bnnrun
from bnnrun.config import MlpConfig
from bnnrun.errors import InputError
from bnnrun.runtime import file
from bnnrun.runtime.reference import ReferenceNetwork


@pytest.mark.parametrize("architecture", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_what_is_saved_is_loaded(tmp_path, architecture):
    model = random_model(*architecture)
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
    output = python(
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
    assert len(output.splitlines()) == 1
    assert str(saved) in output
    assert "too large" in output
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
    lines = python(script, saved, saved_convnet).splitlines()
    for line, path in zip(lines, (saved, saved_convnet), strict=True):
        model = file.load(path)
        x = np.zeros((2, *model.spec.image_shape), np.uint8)
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
        assert classifier.max_pixel == 255


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"kernel": "fast"}, "kernel=fast: expected one of xnor, reference"),
        ({"first_layer": "bits"}, "first_layer=bits: expected one of auto, bytes, planes"),
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
    content = saved.read_bytes()
    path = tmp_path / "cut"
    for size in np.linspace(0, len(content) - 1, 50).astype(int):
        path.unlink(missing_ok=True)  # what was opened before may still be mapped
        path.write_bytes(content[:size])
        assert "not a packed network, or cut short" in refusal(path)


def test_a_longer_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert "not a packed network, or cut short" in refusal(saved)


def test_a_newer_version_says_to_update(saved):
    _, network, arrays = content(saved)
    for version in ("3", "1.0", "", "9" * 1000):
        write(saved, network, arrays, version=version)
        line = refusal(saved)
        assert "this version reads 1 and 2: update bnnrun" in line
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
