"""`bnnrun export format=onnx`, and eval and predict of its file, as a user calls them."""

import builtins
import importlib.util
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import onnx
import pytest
from digit_runs import PACKED, assert_refused, best, digits, records
from onnx import helper

import bnnrun as package
from bnnrun.cli.main import run
from bnnrun.errors import InputError
from bnnrun.runtime import file

EVAL = ["dataset=digits", "threads=1"]


@pytest.fixture(scope="session")
def exported(runs_dir, tmp_path_factory):
    """Copies of the packed runs on digits, each with its ONNX file."""
    root = tmp_path_factory.mktemp("exported")
    for name in PACKED:
        shutil.copytree(runs_dir / name, root / name)
        assert run(["export", f"model={root / name}", "format=onnx"]) == 0
    return root


@pytest.fixture
def onnx_here(exported, bnnrun, tmp_path):
    """The command line in a folder of copies of the runs that have an ONNX file."""
    for name in PACKED:
        shutil.copytree(exported / name, tmp_path / name)
    return bnnrun


def rewrite(path, change) -> None:
    """Change the content of an ONNX file."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def metadata_with(**values):
    def change(model):
        metadata = {each.key: each.value for each in model.metadata_props} | values
        helper.set_model_props(model, metadata)

    return change


# ---- export


def test_export_writes_beside_the_model_and_prints_bytes(here, tmp_path):
    outcome = here("export", "model=mlp", "format=onnx")
    assert outcome.status == 0, outcome.err
    path = tmp_path / "mlp" / "mlp.onnx"
    assert f"mlp/mlp.onnx: {path.stat().st_size:,} bytes" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["fc1", "256"] in [line[:2] for line in lines]
    again = here("export", "model=mlp", "format=onnx")
    assert_refused(again, "mlp/mlp.onnx: there already", "overwrite=true")
    before = path.read_bytes()
    assert here("export", "model=mlp", "format=onnx", "overwrite=true").status == 0
    assert path.read_bytes() == before


def test_export_without_the_package_onnx_names_the_command(here, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "bnnrun.export.export.find_spec", lambda name: None if name == "onnx" else real(name)
    )
    for form in ("onnx", "qonnx"):
        outcome = here("export", "model=mlp", f"format={form}")
        assert_refused(outcome, f"format={form}", "pip install 'bnnrun[onnx]'")


# ---- eval


@pytest.mark.parametrize("name", PACKED)
def test_the_test_error_is_that_of_the_run_and_every_score_is_verified(onnx_here, tmp_path, name):
    outcome = onnx_here("eval", f"model={name}/{name}.onnx", *EVAL, "--verify")
    assert outcome.status == 0, outcome.err
    version = metadata.version("onnxruntime")
    assert f"{name}.onnx: ONNX Runtime {version}, on cpu" in outcome.out
    assert "verified: 4,000 scores of 400 images are the packed network's" in outcome.out
    (record,) = records(tmp_path)
    assert record["quantity"] == "onnx_test_error"
    assert record["value"] == best(tmp_path / name)["row"]["test_error_pct"]
    assert record["device"] == "cpu"
    details, path = record["details"], tmp_path / name / f"{name}.onnx"
    assert details["runtime"] == "ONNX Runtime"
    assert details["runtime_version"] == version
    assert details["sha256"] == file.sha256(path)
    assert details["onnx_bytes"] == path.stat().st_size
    assert details["packed_sha256"] == file.sha256(tmp_path / name / "model.safetensors")
    assert details["verified"] == {"images": 400, "scores": 4000}
    assert details["trained"]["dataset"] == "digits"
    assert "kernel" not in details
    assert details["threads"] == 1


def test_verify_takes_the_packed_file_that_is_named(onnx_here, tmp_path):
    shutil.move("mlp/mlp.onnx", "alone.onnx")
    shutil.copy("mlp/model.safetensors", "other.safetensors")
    words = ["eval", "model=alone.onnx", *EVAL, "--verify"]
    assert_refused(onnx_here(*words), "alone.onnx: neither alone.safetensors nor", "trained=FILE")
    outcome = onnx_here(*words, "trained=convnet")
    assert_refused(outcome, "trained=convnet: not the packed file of sha256")
    assert_refused(onnx_here(*words, "trained=nowhere"), "trained=nowhere")
    assert_refused(onnx_here(*words, "trained=mlp/best.pt"), "trained=mlp/best.pt")
    assert records(tmp_path) == []
    for named in ("trained=other.safetensors", "trained=mlp"):
        assert onnx_here(*words, named).status == 0
    shutil.move("other.safetensors", "alone.safetensors")
    assert onnx_here(*words).status == 0


def test_verify_finds_one_changed_weight_by_image_and_class(onnx_here, tmp_path):
    def change(model):
        (weight,) = [each for each in model.graph.initializer if each.name == "fc4.weight"]
        weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]

    rewrite(tmp_path / "mlp" / "mlp.onnx", change)
    outcome = onnx_here("eval", "model=mlp/mlp.onnx", *EVAL, "--verify")
    assert_refused(outcome, "mlp/mlp.onnx: image 0, score of class 0: ", status=1)
    assert records(tmp_path) == []


def test_a_file_that_is_no_onnx_file_or_none_of_ours_is_refused(onnx_here, tmp_path):
    exported_bytes = (tmp_path / "mlp" / "mlp.onnx").read_bytes()
    for name, content in {"cut": exported_bytes[:2000], "text": b"no model", "empty": b""}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        outcome = onnx_here("eval", f"model={name}.onnx", *EVAL)
        assert_refused(outcome, f"{name}.onnx: no ONNX file that ONNX Runtime runs")
    assert_refused(onnx_here("eval", "model=none.onnx", *EVAL), "none.onnx: no such file")
    (tmp_path / "folder.onnx").mkdir()
    assert_refused(onnx_here("eval", "model=folder.onnx", *EVAL), "folder.onnx")
    rewrite(tmp_path / "mlp" / "mlp.onnx", lambda model: model.ClearField("metadata_props"))
    outcome = onnx_here("eval", "model=mlp/mlp.onnx", *EVAL)
    assert_refused(outcome, "mlp/mlp.onnx: an ONNX file, but not of `bnnrun export format=onnx`")
    assert onnx_here("export", "model=mlp", "format=qonnx", "out=q.onnx").status == 0
    assert_refused(onnx_here("eval", "model=q.onnx", *EVAL), "q.onnx", "BipolarQuant")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"version": "2"}, ["'2'", "update bnnrun"]),
        ({"classes": '["a", "b"]'}, ["2 classes"]),
        ({"classes": "["}, ["metadata"]),
        ({"max_pixel": "many"}, ["metadata"]),
        ({"source": "[]"}, ["metadata"]),
        ({"source": '{"seed": 3}'}, ["metadata"]),
        ({"max_pixel": "0"}, ["metadata", "from 1 to 255"]),
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_are_refused(onnx_here, tmp_path, values, named):
    rewrite(tmp_path / "mlp" / "mlp.onnx", metadata_with(**values))
    assert_refused(onnx_here("eval", "model=mlp/mlp.onnx", *EVAL), "mlp/mlp.onnx", *named)


def test_other_images_and_classes_are_refused(onnx_here):
    assert_refused(onnx_here("eval", "model=mlp/mlp.onnx"), "dataset=mnist", "add dataset=digits")
    rewrite("mlp/mlp.onnx", metadata_with(classes='["0","1","2","3","4","5","6","7","8","x"]'))
    outcome = onnx_here("eval", "model=mlp/mlp.onnx", *EVAL)
    assert_refused(outcome, "not the network's 10: without x and with 9")


@pytest.mark.parametrize("word", ["kernel=reference", "first_layer=planes", "device=cuda"])
def test_settings_of_packed_files_alone_are_refused(onnx_here, word):
    outcome = onnx_here("eval", "model=mlp/mlp.onnx", *EVAL, word)
    assert_refused(outcome, word, "ONNX Runtime runs mlp/mlp.onnx on the processor")


def test_without_onnx_runtime_the_command_that_installs_it_is_named(onnx_here, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    outcome = onnx_here("eval", "model=mlp/mlp.onnx", *EVAL)
    assert_refused(outcome, "ONNX Runtime is not installed", "pip install 'bnnrun[onnx]'")


# ---- predict, and from Python


def test_predict_prints_the_packed_networks_rows(onnx_here, tmp_path):
    _, pictures = digits(3)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    images = ["0.png", "1.png", "2.png", "format=csv"]
    packed, exported = (
        onnx_here("predict", f"model={model}", *images) for model in ("mlp", "mlp/mlp.onnx")
    )
    assert exported.status == 0, exported.err
    assert exported.out == packed.out
    assert exported.err == ""


def test_a_loaded_file_is_a_classifier_like_a_packed_one(exported):
    pixels, _ = digits(130)
    packed = package.load(exported / "convnet")
    classifier = package.load(exported / "convnet" / "convnet.onnx", threads=1)
    assert classifier.scores(pixels).tobytes() == packed.scores(pixels).tobytes()
    turned = np.asfortranarray(pixels)
    np.testing.assert_array_equal(classifier.predict(turned), packed.predict(pixels))
    assert classifier.scores(pixels[:0]).shape == (0, 10)
    assert classifier.spec == packed.spec
    assert classifier.source == packed.source
    with pytest.raises(InputError, match=r"expected uint8 \(n, 1, 8, 8\)"):
        classifier.scores(pixels[0])
    with pytest.raises(InputError, match="a pixel of 17, expected 0 to 16"):
        classifier.scores(np.full((1, 1, 8, 8), 17, np.uint8))


def test_it_runs_without_torch_and_without_the_package_onnx(exported):
    code = (
        "import sys, numpy, bnnrun\n"
        "c = bnnrun.load(sys.argv[1])\n"
        "print(c.scores(numpy.zeros((1, 1, 8, 8), numpy.uint8)).shape)\n"
        "print({'torch', 'onnx', 'numba', 'safetensors.torch'} & set(sys.modules))\n"
    )
    path = str(exported / "mlp" / "mlp.onnx")
    shown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True,
                           check=True)  # fmt: skip
    assert shown.stdout.splitlines() == ["(1, 10)", "set()"]
