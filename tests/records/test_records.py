"""Records: written whole, read back, refused when altered."""

import dataclasses
import json

import pytest
from llvmlite import binding

from bnnrun import machine, records
from bnnrun.errors import InputError
from bnnrun.records import Record


def record(seed=0, value=1.5, created="2026-01-02T03:04:05+00:00", **changes) -> Record:
    config = {
        "seed": seed,
        "dataset": {"name": "digits"},
        "arch": {"name": "mlp", "depth": 3, "width": 512},
        "binarization": {
            "weights": "sign",
            "activations": "sign",
            "weight_bits": 1,
            "activation_bits": 1,
        },
        "trainer": {"epochs": 60},
    }
    base = Record(
        experiment="digits_binary",
        cell="",
        quantity="test_error",
        value=value,
        unit="%",
        seed=seed,
        device="cpu",
        details={"epochs": 60, "last_epoch_test_error_pct": 2.0, "valid_error_pct": 1.0},
        config=config,
        command="bnnrun train experiment=digits_binary",
        data={"name": "digits"},
        created=created,
    )
    return dataclasses.replace(base, **changes)


def signed(content):
    """With the checksum that its content has."""
    content = {k: v for k, v in content.items() if k != "checksum"}
    return content | {"checksum": records._checksum(content)}


def test_a_record_comes_back_as_it_was(tmp_path):
    written = record()
    path = records.write(written, tmp_path)
    assert path.parent == tmp_path / "runs"
    assert records.read(path) == written


def test_a_record_says_what_it_was_measured_with(tmp_path):
    content = json.loads(records.write(record(), tmp_path).read_text())
    assert {"torch", "python", "bnnrun"} <= set(content["versions"])
    assert content["cpu"]["cores"] >= 1
    assert content["peak_memory_bytes"] > 1e6
    assert set(content["source"]) == {"commit", "clean"}


def test_processors_of_one_name_and_two_makes_are_told_apart(monkeypatch):
    def model(microarchitecture):
        monkeypatch.setattr(binding, "get_host_cpu_name", lambda: microarchitecture)
        return machine.cpu.__wrapped__()["model"]

    assert model("znver4").endswith(" (znver4)") and model("znver5").endswith(" (znver5)")


def test_the_commit_can_be_told_where_there_is_no_repository(monkeypatch):
    monkeypatch.setenv("BNNRUN_COMMIT", "abc123")
    assert machine.source_state.__wrapped__() == {"commit": "abc123", "clean": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"value": 0.1}, "altered"),
        (lambda c: c | {"format": 99}, "format 99"),
        (lambda c: {k: v for k, v in c.items() if k != "checksum"}, "no checksum"),
        (lambda c: [c], "no checksum"),
        (lambda c: signed({k: v for k, v in c.items() if k != "cpu"}), "no cpu"),
    ],
)
def test_an_altered_record_is_refused_and_the_rest_is_read(tmp_path, change, message):
    good = records.write(record(seed=1), tmp_path)
    bad = records.write(record(seed=2), tmp_path)
    bad.write_text(json.dumps(change(json.loads(bad.read_text()))))
    with pytest.raises(InputError, match=message):
        records.read(bad)
    intact, damaged = records.read_all(tmp_path)
    assert [r.name for r in intact] == [good.name]
    assert len(damaged) == 1
    assert bad.name in damaged[0]


def test_half_a_record_is_refused(tmp_path):
    path = records.write(record(), tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match="not a record"):
        records.read(path)
