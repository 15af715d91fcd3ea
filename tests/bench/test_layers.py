"""The layers of a packed network, each against its own limit."""

import numpy as np
import pytest
from bench_runs import CONVNET, MLP, SMALL, records
from packed_files import CONVNET as SOME_LAYERS
from packed_files import images_of, random_model

from bnnrun.bench.layers import layers
from bnnrun.errors import RunError
from bnnrun.runtime.network import PackedNetwork


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (MLP, ["fc1, 64 to 64", "fc2, 64 to 64", "fc3, 64 to 64", "fc4, 64 to 10"]),
        (
            CONVNET,
            [
                "conv1, 3 to 8, 32x32", "conv2, 8 to 8, 32x32, pooled", "fc1, 2048 to 16",
                "fc2, 16 to 10",
            ],
        ),
    ],
    ids=["mlp", "convnet"],
)  # fmt: skip
def test_each_layer_is_timed_beside_its_limit(bnnrun, tmp_path, words, names):
    outcome = bnnrun(*SMALL, *words, "kernel=xnor", "layers=true")
    assert outcome.status == 0, outcome.err
    ours = [r for r in records(tmp_path).values() if r["details"]["role"] == "ours"]
    assert len(ours) == 2  # first layer by bytes, and by planes
    for record in ours:
        pixels, *of_layers = record["details"]["layers"]
        assert pixels["layer"] == "pixels" and pixels["ms_at_limit"] is None
        assert [each["layer"] for each in of_layers] == names
        for each in of_layers[1:]:
            assert each["ms_at_limit"] > 0 and each["ms"] > 0
            assert each["images"] == pixels["images"]
    assert all(outcome.out.count(name) == 2 for name in names)


def test_parts_that_lead_to_other_scores_are_not_timed(monkeypatch):
    model = random_model(*SOME_LAYERS)
    network = PackedNetwork(model)
    monkeypatch.setattr(network, "scores", lambda pixels: np.zeros((len(pixels), 10)))
    with pytest.raises(RunError, match="layers one by one give other scores"):
        layers(network, images_of(model, 5), rounds=3, seconds=1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("workload=gemm",), "layers=true: times the layers of workload=mlp and convnet"),
        (("workload=train_step", "dataset=digits"), "not of train_step"),
        ((*MLP, "kernel=blas"), "layers=true: times the packed network on the processor"),
    ],
    ids=" ".join,
)
def test_what_has_no_packed_layers_is_refused(bnnrun, words, said):
    outcome = bnnrun(*SMALL, *words, "layers=true")
    assert outcome.status == 2
    assert said in outcome.err and outcome.err.count("\n") == 1
