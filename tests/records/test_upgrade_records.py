"""Older forms: every committed record in today's form, equal to a new one of the same settings."""

import json
from pathlib import Path

import pytest
from made_records import trained

from bnnrun import records, upgrade
from bnnrun.errors import InputError
from bnnrun.report.pooling import pool
from bnnrun.roles import Form, Implementation, Role, shown

RUNS = sorted((Path(__file__).parents[2] / "results" / "runs").glob("*.json"))
# What is named otherwise today; all other names of format 1 are today's.
RENAMED = {
    "bnnrun": "bnnrun, before engines had names",
    "bnnrun, float32": "bnnrun, float32, fused",
    "eager float32": "torch float32",
    "eager float32, memory kept": "torch float32, memory kept",
}


def today(name: str) -> str:
    return RENAMED.get(name, name.replace("limit:", "roofline:"))


def as_format_1(record, **config):
    """The content of a record as version 1 wrote it, with its checksum."""
    content = {name: value for name, value in vars(record).items() if name != "checksum"}
    content |= {"format": 1, "config": content["config"] | config}
    return content | {"checksum": records._checksum(content)}


def read(content, tmp_path, name="record.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return records.read(path)


def test_every_committed_record_of_a_time_has_a_role_and_keeps_its_name_in_tables():
    names = set()
    for path in RUNS:
        content, record = json.loads(path.read_text()), records.read(path)
        assert (record.name, record.format) == (path.name, records.FORMAT)
        if content["format"] != 1 or "competitor" not in content["details"]:
            continue
        old, details = content["details"], record.details
        implementation = Implementation.parse(f"{details['role']}:{details['variant']}")
        assert shown(implementation, details["remark"]) == today(old["competitor"])
        assert "competitor" not in details
        together = {Implementation.parse(key).name for key in details["in_the_same_run"]}
        bare = {today(name).partition(" (")[0] for name in old["in_the_same_run"]}
        assert together == bare
        assert len(details["in_the_same_run"]) == len(old["in_the_same_run"])
        names.add(old["competitor"])
    assert len(names) > 25, "the committed records of format 1 are gone"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xnor_gemm_wgmma, bits out, cold", (Role.ours, "xnor_gemm_wgmma", Form.bits_out_cold)),
        ("xnor_gemm, float32 in, int32 out", (Role.ours, "xnor_gemm", Form.packing)),
        ("xnor_gemm_mma, float32 out", (Role.ours, "xnor_gemm_mma", Form.float32_out)),
        ("xnor_gemm_mma, first layer by planes", (Role.ours, "xnor_gemm_mma", Form.planes)),
        ("pack_bits, float32 in", (Role.ours, "pack_bits", None)),
        ("torch tf32", (Role.low_precision, "tf32", None)),
        ("torch fp8, sums rounded", (Role.low_precision, "fp8", Form.rounded)),
        ("baseline float32", (Role.baseline, "unoptimized", None)),
    ],
)
def test_names_that_gpus_gave_have_roles_too(name, expected):
    content = {"format": 1, "config": {}, "details": {"competitor": name}}
    details = upgrade.record(content)["details"]
    implementation = Implementation.of(*expected)
    assert (details["role"], details["variant"]) == (
        implementation.role.value,
        implementation.variant,
    )
    assert implementation.name == name


def test_a_name_that_no_version_wrote_is_told(tmp_path):
    record = trained(details={"competitor": "luck"}, quantity="gemm_time")
    with pytest.raises(InputError, match="competitor 'luck'"):
        read(as_format_1(record), tmp_path)


def older(record, precision: str, *, gate: bool):
    """The settings by the keys of before."""
    config = json.loads(json.dumps(record.config))
    del config["trainer"]["engine"], config["binarization"]["estimator"]
    config["trainer"]["precision"] = precision
    config["binarization"]["gate"] = gate
    return as_format_1(record, **config)


def test_an_old_record_is_the_equal_of_a_new_one_of_the_same_settings(tmp_path):
    new, old = trained(seed=0), read(older(trained(seed=1), "fast", gate=True), tmp_path)
    assert [len(each.records) for each in pool([new, old])] == [2]
    changed = trained(seed=0, changed={"binarization__estimator": "identity"})
    old = read(older(trained(seed=1), "fast", gate=False), tmp_path)
    assert [len(each.records) for each in pool([changed, old])] == [2]


def test_what_was_called_float32_is_no_engine_of_today(tmp_path):
    old = read(older(trained(seed=1), "float32", gate=True), tmp_path)
    for engine in ("fast", "reference"):
        assert len(pool([trained(changed={"trainer__engine": engine}), old])) == 2


def test_an_old_record_that_is_altered_is_refused_before_it_is_upgraded(tmp_path):
    content = older(trained(), "fast", gate=True) | {"value": 0.1}
    with pytest.raises(InputError, match="altered"):
        read(content, tmp_path)


def test_an_old_record_keeps_the_checksum_and_the_name_of_its_file(tmp_path):
    content = older(trained(), "fast", gate=True)
    record = read(content, tmp_path)
    assert record.checksum == content["checksum"]
    assert content["checksum"][:8] in record.name


def test_a_sweep_skips_a_job_whose_record_is_an_old_one(bnnrun):
    words = ("train", "-m", "experiment=digits_binary", "arch.width=8", "threads=1",
             "trainer.epochs=1")  # fmt: skip
    assert bnnrun(*words).status == 0
    (path,) = Path("results/runs").glob("*.json")
    old = older(records.read(path), "fast", gate=True)
    path.unlink()
    Path("results/runs", "old-test_error-s0-1.json").write_text(json.dumps(old))
    outcome = bnnrun(*words)
    assert outcome.status == 0, outcome.err
    assert "skipped: its record is" in outcome.out
