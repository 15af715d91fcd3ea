"""ONNX files: every score of the packed network, bit for bit, and what the file holds."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from packed import KINDS, bits_of, random_model
from packed_networks import BY_LAYER, MIXES, NETWORKS, mlp, model_of, packed_model, pixels_for
from real_data import read

from bnnrun.architecture import Layer
from bnnrun.config import Preprocessing
from bnnrun.errors import InputError
from bnnrun.export import onnx as exporter
from bnnrun.export.export import Source
from bnnrun.export.onnx import export_onnx
from bnnrun.runtime import file, load
from bnnrun.runtime.model import borders
from bnnrun.runtime.onnx_file import OnnxClassifier
from bnnrun.runtime.reference import ReferenceNetwork

PUBLISHED = sorted((Path(__file__).parents[2] / "results" / "models").glob("*.safetensors"))
STANDARD = {
    "ArgMax", "Add", "BitwiseAnd", "Cast", "Conv", "Div", "Flatten", "Gather", "Gemm",
    "GreaterOrEqual", "MaxPool", "Mul", "ReduceSum", "Reshape", "Slice", "Sub", "Sum", "Where",
}  # fmt: skip


def content_of(model, digest="0" * 64) -> bytes:
    (content,) = export_onnx(Source(model, "bnn", digest)).files.values()
    return content


def session_of(content: bytes, **options) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    for key, value in options.items():
        setattr(settings, key, value)
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def agrees(model, pixels, content: bytes | None = None) -> bool:
    """Whether ONNX Runtime gives every score and class of the definition."""
    outputs = ["scores", "class"]
    scores, index = session_of(content or content_of(model)).run(outputs, {"image": pixels})
    assert (scores.dtype, index.dtype) == (np.float64, np.int64)
    expected = ReferenceNetwork(model).scores(pixels)
    assert index.tolist() == scores.argmax(axis=1).tolist()
    return scores.tobytes() == expected.tobytes()


# ---- scores


@pytest.mark.parametrize("preprocessing", [Preprocessing.scale, Preprocessing.standardize])
@pytest.mark.parametrize("kind", KINDS)
def test_every_score_of_a_packed_network_bit_for_bit(kind, preprocessing):
    for seed in range(3):
        model = random_model(seed, kind, preprocessing)
        assert agrees(model, pixels_for(model, 40, seed))


@pytest.mark.parametrize("max_pixel", [1, 16, 255])
@pytest.mark.parametrize("name", NETWORKS)
def test_thresholds_at_random_near_the_sums_and_past_them(name, max_pixel):
    for thresholds, flips in (("near", "some"), ("near", "all"), ("beyond", "some")):
        model = packed_model(
            *NETWORKS[name], levels=max_pixel, thresholds=thresholds, flips=flips, seed=3
        )
        assert agrees(model, pixels_for(model, 7))
        assert agrees(model, np.full((2, *model.spec.image_shape), max_pixel, np.uint8))


@pytest.mark.parametrize("bits", MIXES)
@pytest.mark.parametrize("name", ["five inputs", "one unit", "2x9", "odd, pooled to one", "wide"])
def test_more_bits(name, bits):
    for flips in ("some", "all"):
        model = packed_model(
            *NETWORKS[name], weight_bits=bits[0], activation_bits=bits[1], flips=flips
        )
        assert agrees(model, pixels_for(model, 7))


def test_bits_of_each_layer():
    model = packed_model(*NETWORKS["13x11"], weight_bits=BY_LAYER[0], activation_bits=BY_LAYER[1])
    pixels = pixels_for(model, 20)
    content = content_of(model)
    assert agrees(model, pixels, content)
    exported = onnx.load_from_string(content)
    onnx.checker.check_model(exported, full_check=True)
    assert {node.op_type for node in exported.graph.node} <= STANDARD
    scores, _ = ReferenceEvaluator(exported).run(["scores", "class"], {"image": pixels[:3]})
    np.testing.assert_array_equal(scores, ReferenceNetwork(model).scores(pixels[:3]))


def test_more_bits_reach_the_sums_that_float32_does_not_hold_earlier():
    model = packed_model(mlp(1, 7), (1, 60, 60), weight_bits=4)
    content = content_of(model)
    graph = onnx.load_from_string(content).graph
    types = {each.name: each.data_type for each in graph.initializer}
    assert types["fc1.t"] == onnx.TensorProto.DOUBLE
    assert agrees(
        model, np.concatenate([pixels_for(model, 3), np.full((1, 1, 60, 60), 255, np.uint8)])
    )


def test_a_pooled_first_convolution_has_windows_of_several_border_classes():
    layers = [
        Layer("conv1", 3, 21, 3, (5, 7), pool=True),
        Layer("fc1", 21 * 2 * 3, 10, last=True),
    ]
    model = model_of(layers, (3, 5, 7))
    assert agrees(model, pixels_for(model, 20))


@pytest.mark.parametrize("kind", ["mlp, odd image", "convnet, odd image"])
def test_another_implementation_of_the_standard_gives_the_same_scores(kind):
    """ONNX's own, in NumPy: it needs nothing of ONNX Runtime."""
    model = random_model(5, kind)
    pixels = pixels_for(model, 6)
    evaluator = ReferenceEvaluator(onnx.load_from_string(content_of(model)))
    scores, index = evaluator.run(["scores", "class"], {"image": pixels})
    expected = ReferenceNetwork(model).scores(pixels)
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(index, expected.argmax(axis=1))


@pytest.mark.parametrize("error", [0.4, -0.4])
def test_a_convolution_that_rounds_gives_the_same_scores(error):
    """As in a runtime that convolves by Winograd's algorithm."""
    model = random_model(2, "convnet, two poolings")
    exported = onnx.load_from_string(content_of(model))
    exported.graph.initializer.append(numpy_helper.from_array(np.float32(error), "error"))
    nodes = []
    for node in exported.graph.node:
        nodes.append(node)
        if node.op_type == "Conv":
            (sums,) = node.output
            node.output[0] = f"{sums}.exact"
            nodes.append(helper.make_node("Add", [f"{sums}.exact", "error"], [sums]))
    assert len(nodes) == len(exported.graph.node) + 4
    del exported.graph.node[:]
    exported.graph.node.extend(nodes)
    assert agrees(model, pixels_for(model, 100), exported.SerializeToString())


def test_of_equal_scores_the_class_of_the_lowest_index_is_taken():
    model = packed_model(mlp(1, 9), (1, 4, 4), classes=4)
    output = model.layers[-1]
    alike = {key: np.repeat(getattr(output, key)[:1], 4) for key in ("mean", "scale", "shift")}
    alike["weight"] = np.repeat(output.weight[:, :1], 4, axis=1)
    layers = model.layers[0], dataclasses.replace(output, **alike)
    model = dataclasses.replace(model, layers=layers)
    pixels = pixels_for(model, 9)
    (index,) = session_of(content_of(model)).run(["class"], {"image": pixels})
    assert index.tolist() == [0] * 9
    assert agrees(model, pixels)


def test_sums_that_float32_does_not_hold_are_added_in_double():
    model = packed_model(mlp(1, 7), (1, 182, 182))
    content = content_of(model)
    gemms = [node for node in onnx.load_from_string(content).graph.node if node.op_type == "Gemm"]
    assert len(gemms) == 2
    white = np.full((1, 1, 182, 182), 255, np.uint8)
    assert agrees(model, np.concatenate([pixels_for(model, 3), white]), content)
    w = session_of(content).get_inputs()[0]
    assert w.shape == ["N", 1, 182, 182]


def test_a_convolution_that_float32_does_not_hold_is_refused():
    channels = 2**23 // (9 * 255) + 1
    layers = [Layer("conv1", channels, 2, 3, (1, 2)), Layer("fc1", 4, 10, last=True)]
    with pytest.raises(InputError, match="conv1: its sums reach 8,390,"):
        content_of(model_of(layers, (channels, 1, 2)))


# ---- the file


@pytest.mark.parametrize("kind", ["mlp, odd image", "convnet, odd image"])
def test_the_file_is_valid_onnx_of_opset_18_and_standard_operators(kind):
    model = onnx.load_from_string(content_of(random_model(0, kind)))
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert {node.op_type for node in model.graph.node} <= STANDARD
    inputs, outputs = (
        [(each.name, each.type.tensor_type.elem_type) for each in part]
        for part in (model.graph.input, model.graph.output)
    )
    assert inputs == [("image", onnx.TensorProto.UINT8)]
    assert outputs == [("scores", onnx.TensorProto.DOUBLE), ("class", onnx.TensorProto.INT64)]


def test_the_metadata_tell_classes_versions_and_the_packed_file():
    model = random_model(0, "convnet")
    digest = hashlib.sha256(b"packed").hexdigest()
    model_metadata = session_of(content_of(model, digest)).get_modelmeta()
    assert model_metadata.producer_name == "bnnrun"
    metadata = model_metadata.custom_metadata_map
    assert metadata["format"] == "bnnrun-onnx"
    assert metadata["version"] == "1"
    assert metadata["packed_sha256"] == digest
    assert json.loads(metadata["classes"]) == list(model.spec.classes)
    assert json.loads(metadata["source"]) == model.source
    assert metadata["max_pixel"] == "16"


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = random_model(0, "convnet, odd image")
    file.save(model, tmp_path / "model.safetensors")
    again = file.load(tmp_path / "model.safetensors")
    assert content_of(model) == content_of(again)


@pytest.mark.parametrize("kind", ["mlp", "convnet, odd image"])
def test_onnx_runtime_computes_the_weights_when_it_loads_the_file(kind, tmp_path):
    content = content_of(random_model(0, kind))
    session_of(content, optimized_model_filepath=str(tmp_path / "loaded.onnx"))
    before = [node.op_type for node in onnx.load_from_string(content).graph.node]
    loaded = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert "BitwiseAnd" in before
    assert not {"BitwiseAnd", "Slice", "Gather"} & set(loaded)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_networks_file_is_about_as_large_as_the_packed_one(path):
    content = content_of(file.load(path), file.sha256(path))
    assert len(content) < 1.35 * path.stat().st_size


@pytest.mark.realdata
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_network_gives_its_scores_on_test_images(path, tmp_path):
    model = file.load(path)
    held_out = {"holdout_test": 10_000} if model.source["dataset"] == "svhn" else {}
    pixels = read(model.source["dataset"], **held_out).test.pixels[:100]
    (tmp_path / "bnn.onnx").write_bytes(content_of(model))
    scores = OnnxClassifier(tmp_path / "bnn.onnx").scores(pixels)
    assert scores.tobytes() == load(path).scores(pixels).tobytes()


# ---- mutations of the generator: the comparison above finds each


def moved_threshold(layer, step):
    t = layer.threshold.copy()
    t[:, :, layer.shape.outputs // 2] += step
    return dataclasses.replace(layer, threshold=t)


def reversed_channels(layer):
    return dataclasses.replace(layer, weight=layer.weight[:, :, ::-1])


def rows_before_channels(layer):
    """The order of the packed file, in the fully connected layer after a convolution."""
    assert layer.weight.shape == (24, 16, 16)  # pixels, channels
    return dataclasses.replace(layer, weight=layer.weight.transpose(0, 2, 1))


def without_the_flips_before(layer):
    """As if one flipped channel of the previous layer were not negated here."""
    w = layer.weight.copy()
    w[:, :, 0] *= -1
    return dataclasses.replace(layer, weight=w)


MUTATIONS = {
    "conv1, a threshold up": (0, lambda layer: moved_threshold(layer, 1)),
    "conv1, a threshold down": (0, lambda layer: moved_threshold(layer, -1)),
    "conv2, a threshold up": (1, lambda layer: moved_threshold(layer, 2)),
    "fc1, a threshold down": (2, lambda layer: moved_threshold(layer, -2)),
    "conv2, channels reversed": (1, reversed_channels),
    "fc1, rows before channels": (2, rows_before_channels),
    "conv2, a flip left out": (1, without_the_flips_before),
    "fc2, a flip left out": (3, without_the_flips_before),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_layer_is_found(monkeypatch, name):
    model = random_model(1, "convnet")
    pixels = pixels_for(model, 2000)
    export_layers, (at, mutate) = exporter.export_layers, MUTATIONS[name]

    def mutated(model):
        for i, layer in enumerate(export_layers(model)):
            yield mutate(layer) if i == at else layer

    monkeypatch.setattr(exporter, "export_layers", mutated)
    assert not agrees(model, pixels)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_layer_of_two_bits_is_found(monkeypatch, name):
    model = random_model(1, "convnet", bits=bits_of(2, 2))
    pixels = pixels_for(model, 2000)
    assert agrees(model, pixels)
    export_layers, (at, mutate) = exporter.export_layers, MUTATIONS[name]
    layers = [mutate(layer) if i == at else layer for i, layer in enumerate(export_layers(model))]
    monkeypatch.setattr(exporter, "export_layers", lambda _: layers)
    assert not agrees(model, pixels)


@pytest.mark.parametrize("axis", [0, 1])
def test_swapped_border_classes_are_found(monkeypatch, axis):
    model = random_model(1, "convnet")
    pixels = pixels_for(model, 200)
    assert agrees(model, pixels)
    monkeypatch.setattr(
        exporter, "borders", lambda *size: (np.flip(borders(*size)[0], axis), borders(*size)[1])
    )
    assert not agrees(model, pixels)
