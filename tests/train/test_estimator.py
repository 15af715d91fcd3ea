"""`binarization.estimator`: another gradient of Sign, from its key to a packed network."""

import json

import pytest

TINY = ("dataset=digits", "arch.width=64", "trainer.epochs=4", "threads=1")


def trained(bnnrun, folder, *words):
    """The record of a run."""
    outcome = bnnrun("train", *TINY, *words, f"hydra.run.dir={folder.name}")
    assert outcome.status == 0, outcome.err
    (path,) = (
        p for p in (folder.parent / "results" / "runs").glob("*.json")
        if json.loads(p.read_text())["details"]["run_folder"].endswith(folder.name)
    )  # fmt: skip
    return json.loads(path.read_text())


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_approx_sign_learns_packs_and_gives_the_same_answers(bnnrun, tmp_path, engine):
    """It packs because its forward pass is Sign."""
    words = ("binarization.estimator=approx", f"trainer.engine={engine}")
    record = trained(bnnrun, tmp_path / "run", *words)
    assert record["config"]["binarization"]["estimator"] == "approx"
    assert record["config"]["trainer"]["engine"] == engine
    assert record["value"] < 30  # of ten digits, after a second
    assert bnnrun("pack", "run=run").status == 0
    outcome = bnnrun("eval", "model=run", "dataset=digits", "--verify")
    assert outcome.status == 0, outcome.err


def test_the_record_says_what_the_fast_engine_left_to_the_reference(bnnrun, tmp_path):
    said = {
        estimator: trained(
            bnnrun, tmp_path / estimator, f"binarization.estimator={estimator}"
        )["details"]["arithmetic"]["fc1"]
        for estimator in ("ste", "approx")
    }  # fmt: skip
    assert said["ste"].endswith("norm fused; update fused")
    assert said["approx"].endswith("norm plain; update fused")


def test_an_estimator_that_is_none_is_refused_by_name(bnnrun):
    outcome = bnnrun("train", *TINY, "binarization.estimator=swish")
    assert outcome.status == 2
    assert "expected one of ste, identity, approx" in outcome.err
