"""QONNX files, executed by the package qonnx."""

import numpy as np
import onnx
import pytest
from packed import KINDS, bits_of, random_model
from packed_networks import MIXES, NETWORKS, mlp, packed_model, pixels_for
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from bnnrun.config import Preprocessing
from bnnrun.errors import InputError
from bnnrun.export.export import Source
from bnnrun.export.qonnx import export_qonnx
from bnnrun.runtime.reference import ReferenceNetwork


def content_of(model) -> bytes:
    (content,) = export_qonnx(Source(model, "bnn", "0" * 64)).files.values()
    return content


def executed(wrapper: ModelWrapper, pixels) -> np.ndarray:
    """Scores by qonnx's executor, which takes images as float32."""
    wrapper = wrapper.transform(ChangeBatchSize(len(pixels))).transform(InferShapes())
    (name,) = [each.name for each in wrapper.graph.output]
    scores = execute_onnx(wrapper, {wrapper.graph.input[0].name: pixels.astype(np.float32)})
    return scores[name]


@pytest.mark.parametrize("preprocessing", [Preprocessing.scale, Preprocessing.standardize])
@pytest.mark.parametrize("kind", KINDS)
def test_the_executor_gives_the_packed_networks_scores(kind, preprocessing):
    model = random_model(1, kind, preprocessing)
    pixels = pixels_for(model, 30)
    wrapper = ModelWrapper(onnx.load_from_string(content_of(model)))
    scores = executed(wrapper, pixels)
    np.testing.assert_array_equal(scores, ReferenceNetwork(model).scores(pixels))


@pytest.mark.parametrize("bits", MIXES)
@pytest.mark.parametrize("kind", ["mlp, odd image", "convnet, odd image"])
def test_more_bits(kind, bits):
    model = random_model(1, kind, bits=bits_of(*bits))
    pixels = pixels_for(model, 10)
    wrapper = ModelWrapper(onnx.load_from_string(content_of(model)))
    np.testing.assert_array_equal(executed(wrapper, pixels), ReferenceNetwork(model).scores(pixels))


def test_more_bits_are_signed_integers():
    model = random_model(0, "convnet", bits=bits_of(2, 3))
    wrapper = ModelWrapper(onnx.load_from_string(content_of(model)))
    wrapper = wrapper.transform(InferShapes()).transform(InferDataTypes())
    types = {
        node.op_type: str(wrapper.get_tensor_datatype(node.output[0]))
        for node in wrapper.graph.node
    }
    assert types["Quant"] == "INT3"
    assert types["MultiThreshold"] == types["MaxPool"] == "INT4"


@pytest.mark.parametrize("kind", ["mlp, odd image", "convnet, odd image"])
def test_its_own_clean_up_keeps_the_scores(kind):
    model = random_model(2, kind)
    pixels = pixels_for(model, 10)
    wrapper = cleanup_model(ModelWrapper(onnx.load_from_string(content_of(model))))
    np.testing.assert_array_equal(executed(wrapper, pixels), ReferenceNetwork(model).scores(pixels))


def test_weights_and_activations_are_bipolar_and_sums_integers():
    model = random_model(0, "convnet")
    wrapper = ModelWrapper(onnx.load_from_string(content_of(model)))
    wrapper = wrapper.transform(InferShapes()).transform(InferDataTypes())
    types = {
        node.op_type: str(wrapper.get_tensor_datatype(node.output[0]))
        for node in wrapper.graph.node
    }
    assert types["BipolarQuant"] == types["MultiThreshold"] == types["MaxPool"] == "BIPOLAR"
    assert types["MatMul"] == "INT32"
    assert str(wrapper.get_tensor_datatype("image")) == "UINT8"
    thresholds = [node for node in wrapper.graph.node if node.op_type == "MultiThreshold"]
    assert len(thresholds) == len(model.layers) - 1
    for node in thresholds:
        assert {a.name: a.f for a in node.attribute if a.f} == {"out_scale": 2.0, "out_bias": -1.0}


def test_the_same_model_gives_the_same_bytes():
    assert content_of(random_model(0, "convnet")) == content_of(random_model(0, "convnet"))


def test_what_no_batch_norm_gives_and_what_float32_does_not_hold_are_refused():
    with pytest.raises(InputError, match="conv1: no thresholds of its scaled pixels"):
        content_of(packed_model(*NETWORKS["13x11"]))
    with pytest.raises(InputError, match=r"fc1: its sums reach 16,779,000"):
        content_of(packed_model(mlp(1, 3), (1, 94, 700)))
