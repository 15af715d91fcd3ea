"""The published networks in results/models: whole, recorded, and what their records say."""

import hashlib
import json
from pathlib import Path

import pytest
from real_data import read

from bnnrun.runtime import Classifier, load

RESULTS = Path(__file__).parents[2] / "results"
MODELS = sorted((RESULTS / "models").glob("*.safetensors"))
RECORDS = [json.loads(path.read_text()) for path in sorted((RESULTS / "runs").glob("*.json"))]


def sums() -> dict[str, str]:
    """{file: checksum}, of a list as `sha256sum` writes it."""
    lines = (RESULTS / "models" / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def evaluations(path: Path) -> list[dict]:
    """The records of a packed file that was compared with its trained network, the oldest first."""
    digest = sums()[path.name]
    return [
        record
        for record in RECORDS
        if record["quantity"] == "packed_test_error"
        and record["details"]["sha256"] == digest
        and record["details"]["verified"]
    ]


def error_pct(classifier: Classifier, record: dict) -> float:
    data = record["config"]["dataset"]
    held_out = {"holdout_test": data["holdout_test"]} if data.get("holdout_test") else {}
    images = read(data["name"], **held_out).test
    wrong = (classifier.predict(images.pixels) != images.labels).sum()
    return 100 * int(wrong) / len(images)


def test_the_list_of_checksums_is_whole():
    assert MODELS, "no published network"
    assert sums() == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in MODELS}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_published_network_is_that_of_a_recorded_run(path):
    """Every bit and score of its whole test set was compared; its run's record has its error."""
    source = load(path).model.source
    (*_, evaluation) = evaluations(path)
    assert evaluation["details"]["verified"]["images"] == evaluation["data"]["test"]
    assert evaluation["source"]["clean"] is True
    runs = [
        record
        for record in RECORDS
        if record["quantity"] == "test_error"
        and record["experiment"] == path.stem.rsplit("_", 2)[0]  # EXPERIMENT_EPOCHS_SEED
        and str(record["seed"]) == source["seed"]
        and str(record["details"]["epoch"]) == source["epoch"]
        and record["value"] == evaluation["value"]
    ]
    assert len(runs) == 1
    assert f"{runs[0]['value']:.4f}" == source["test_error_pct"]


@pytest.mark.realdata
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_published_network_gives_its_error_again(path):
    (*_, evaluation) = evaluations(path)
    assert error_pct(load(path), evaluation) == evaluation["value"]
