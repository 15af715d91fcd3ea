"""From a run to its packed network and its test error: pack and eval, as a user calls them."""

import shutil

import numpy as np
import pytest
from digit_runs import assert_refused, best, records

import bnnrun as package
from bnnrun.nn.engine import Engine
from bnnrun.pack.convert import trained
from bnnrun.runtime import file
from bnnrun.train import checkpoint

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
        ("mlp", ["first_layer=bytes"]),
        ("mlp", ["first_layer=planes"]),
        ("convnet", ["first_layer=planes"]),
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
    assert record["details"][{"first_layer": "first"}.get(key, key)] == value
    assert record["details"]["first" if key == "kernel" else "kernel"] in ("reference", "xnor")
    assert record["details"]["verified"]["images"] == 400


def test_a_sweep_over_kernels_leaves_a_record_each(here, tmp_path):
    words = [
        "-m",
        "model=mlp",
        "dataset=digits",
        "first_layer=bytes,planes",
        "hydra.sweep.dir=sweep",
    ]
    assert here("eval", *words).status == 0
    evaluations = records(tmp_path)
    assert sorted(record["details"]["first"] for record in evaluations) == ["bytes", "planes"]
    assert len({record["value"] for record in evaluations}) == 1


def test_another_data_set_is_refused_with_the_one_to_add(here, tmp_path):
    """By default the data set is MNIST."""
    assert_refused(here("eval", "model=mlp"), "dataset=mnist", "digits: add dataset=digits")
    assert records(tmp_path) == []


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_the_data_sets_of_convnets_can_be_named(here, dataset):
    """Their profiles choose arch=convnet; eval has neither group."""
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
        trace = Engine(network).trace(torch.from_numpy(pixels.copy()))
        *hidden, scores = [y.numpy() for y in trace]
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
