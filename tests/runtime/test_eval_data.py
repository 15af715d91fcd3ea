"""`bnnrun eval`: which files it asks for, and what it says of a test part that is another one."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from digit_runs import assert_refused, records
from made_up import WRITERS, config, python2_pickle, write_folder
from packed_files import random_model

import bnnrun as package
from bnnrun.config import MlpConfig
from bnnrun.data import PUBLISHED, describe, mnist
from bnnrun.runtime import file

SMALL = MlpConfig(name="mlp", depth=2, width=17)
TEST_FILES = {
    "mnist": [f.path for f in mnist.TEST],
    "cifar10": ["cifar-10-batches-py/test_batch"],
    "svhn": ["svhn/test_32x32.mat"],
}


def write_model(path, kind, **source: str) -> None:
    """A packed network of random bits for images of a kind."""
    model = random_model(SMALL, kind.image_shape, kind.classes, kind.max_pixel)
    file.save(dataclasses.replace(model, source={"seed": "0", "epoch": "1", **source}), path)


@pytest.fixture
def trained(bnnrun, tmp_path):
    """A network trained on a folder, packed, in a folder of its own."""
    write_folder(tmp_path / "pets", ("cat", "dog", "eel"), per_class=12)
    words = ["dataset=folder", "dataset.path=pets", "dataset.image_size=[8,8]"]
    words += ["arch=mlp", "arch.width=8", "trainer.batch_size=6", "trainer.epochs=1"]
    outcome = bnnrun("train", *words, "device=cpu", "threads=1", "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    assert bnnrun("pack", "run=run").status == 0
    return bnnrun


EVAL = ["dataset=folder", "dataset.image_size=[8,8]", "device=cpu", "threads=1"]


# ---- the files of the test part alone


@pytest.mark.parametrize("name", list(WRITERS))
def test_eval_asks_for_the_files_of_the_test_part_alone(name, bnnrun, tmp_path):
    WRITERS[name](tmp_path / "data")
    write_model(tmp_path / "m.safetensors", describe(config(name)), dataset=name)
    words = ["model=m.safetensors", f"dataset={name}", "dataset.root=data", "dataset.verify=off"]
    assert bnnrun("eval", *words).status == 0
    for each in PUBLISHED[name]:
        if each.path not in TEST_FILES[name]:
            (tmp_path / "data" / each.path).unlink(missing_ok=True)
    outcome = bnnrun("eval", *words)
    assert outcome.status == 0, outcome.err
    all_parts, test_alone = records(tmp_path)
    assert all_parts["value"] == test_alone["value"]
    assert test_alone["data"]["test"] == 50 and "train" not in test_alone["data"]
    assert [f["name"] for f in test_alone["data"]["files"]] == TEST_FILES[name]
    assert not set(test_alone["data"]["notes"]) - set(all_parts["data"]["notes"])
    (tmp_path / "data" / TEST_FILES[name][0]).unlink()
    line = bnnrun("eval", *words)
    assert_refused(line, TEST_FILES[name][0], "dataset.holdout_test=N")


@pytest.mark.parametrize("name", list(WRITERS))
def test_eval_of_a_held_out_test_set_reads_the_training_file(name, bnnrun, tmp_path):
    written = WRITERS[name](tmp_path / "data")["train"]
    for path in TEST_FILES[name]:
        (tmp_path / "data" / path).unlink()
    write_model(tmp_path / "m.safetensors", describe(config(name)), dataset=name)
    validation = 2 if name == "svhn" else 20
    words = ["model=m.safetensors", f"dataset={name}", "dataset.root=data", "dataset.verify=off"]
    words += ["dataset.holdout_test=30", f"dataset.validation={validation}"]
    outcome = bnnrun("eval", *words)
    assert outcome.status == 0, outcome.err
    (record,) = records(tmp_path)
    assert record["data"]["test"] == 30 and "held out from train" in record["data"]["notes"][0]
    last = written.take(slice(70, None))
    ours = package.load(tmp_path / "m.safetensors").predict(last.pixels)
    assert record["value"] == pytest.approx(100 * np.mean(ours != last.labels))


def test_eval_of_cifar10_still_checks_the_names_where_they_are(bnnrun, tmp_path):
    WRITERS["cifar10"](tmp_path / "data")
    names = python2_pickle({"label_names": ["a", "b"]})
    (tmp_path / "data" / "cifar-10-batches-py" / "batches.meta").write_bytes(names)
    write_model(tmp_path / "m.safetensors", describe(config("cifar10")), dataset="cifar10")
    words = ["model=m.safetensors", "dataset=cifar10", "dataset.root=data", "dataset.verify=off"]
    assert_refused(bnnrun("eval", *words), "batches.meta", "label_names")


def test_eval_of_a_folder_with_the_test_part_alone(trained, tmp_path):
    test = tmp_path / "elsewhere" / "test"
    write_folder(test, ("cat", "dog", "eel"), per_class=4)
    outcome = trained("eval", "model=run", *EVAL, "dataset.path=elsewhere")
    assert outcome.status == 0, outcome.err
    assert "read 12 images of 3 classes (test): cat 4, dog 4, eel 4" in outcome.out
    assert records(tmp_path)[-1]["data"]["test"] == 12


# ---- another test part than the one that training was measured on


def test_a_packed_file_says_what_its_parts_were(trained, tmp_path):
    record = records(tmp_path)[0]
    source = file.load(tmp_path / "run" / "model.safetensors").source
    for part, of_record in zip(("train", "valid", "test"), record["data"]["files"], strict=True):
        assert source[f"{part}_images"] == str(record["data"][part])
        assert source[f"{part}_md5"] == of_record["md5"]
        assert of_record["name"] == f"pets, {part}" and of_record["published_md5"] is None
    assert set(of_record) == {"name", "size", "md5", "published_md5"}


@pytest.mark.parametrize("model", ["run", "run/best.pt"])
def test_eval_tells_both_where_the_test_images_are_others(model, trained, tmp_path):
    words = [f"model={model}", *EVAL]
    outcome = trained("eval", *words, "dataset.path=pets")
    assert outcome.status == 0 and "other test images" not in outcome.out
    trained_on, same = records(tmp_path)
    assert trained_on["value"] == same["value"]
    assert same["data"]["files"][0]["md5"] == trained_on["data"]["files"][2]["md5"]
    shutil.copytree("pets", "moved/below/pets")
    outcome = trained("eval", *words, "dataset.path=moved/below/pets")
    assert outcome.status == 0 and "other test images" not in outcome.out
    write_folder(tmp_path / "new" / "test", ("cat", "dog", "eel"), per_class=2)
    outcome = trained("eval", *words, "dataset.path=new")
    assert outcome.status == 0, outcome.err
    record = records(tmp_path)[-1]
    then, now = trained_on["data"]["files"][2]["md5"], record["data"]["files"][0]["md5"]
    note = (
        f"other test images than the training's: 6 images with md5 {now} here, "
        f"{trained_on['data']['test']} with md5 {then} then"
    )
    assert f"note: {note}" in outcome.out and note in record["data"]["notes"]


def test_a_packed_file_that_does_not_know_its_parts_is_evaluated_as_before(trained, tmp_path):
    model = file.load(tmp_path / "run" / "model.safetensors")
    old = {k: v for k, v in model.source.items() if not k.endswith(("_md5", "_images"))}
    file.save(dataclasses.replace(model, source=old), tmp_path / "old.safetensors")
    outcome = trained("eval", "model=old.safetensors", *EVAL, "dataset.path=pets")
    assert outcome.status == 0 and "other test images" not in outcome.out


def test_what_is_published_leaves_no_checksums_in_a_packed_file(runs_dir):
    source = file.load(runs_dir / "mlp" / "model.safetensors").source
    assert set(source) == {"dataset", "seed", "epoch", "valid_error_pct", "test_error_pct"}
    saved = json.loads(next((runs_dir / "results" / "runs").glob("*.json")).read_text())["data"]
    assert set(saved) == {"name", "train", "valid", "test", "files", "verified", "notes"}


# ---- other classes


@pytest.mark.parametrize(
    ("classes", "parts"),
    [
        (("cat", "dog"), ["2 classes, not the network's 3: without eel"]),
        (("cat", "dog", "eel", "owl"), ["4 classes", "with owl, unknown to it"]),
        (("cat", "dgo", "eel"), ["without dog and with dgo, unknown to it"]),
        (("Cat", "dog", "eel"), ["without cat and with Cat"]),
    ],
)
def test_eval_names_the_classes_that_differ(classes, parts, trained, tmp_path):
    write_folder(tmp_path / "new" / "test", classes, per_class=2)
    for path in (tmp_path / "new").rglob("*.png"):
        path.write_bytes(b"not read before the classes are known to fit")
    outcome = trained("eval", "model=run", *EVAL, "dataset.path=new")
    assert_refused(outcome, "dataset=folder: ", *parts)


def test_eval_names_an_order_that_differs(bnnrun, tmp_path):
    write_folder(tmp_path / "pets", ("cat", "dog"), per_class=5)
    kind = describe(config("folder", path=tmp_path / "pets", image_size=[8, 8]))
    turned = dataclasses.replace(kind, classes=kind.classes[::-1])
    write_model(tmp_path / "m.safetensors", turned, dataset="folder")
    outcome = bnnrun("eval", "model=m.safetensors", *EVAL, "dataset.path=pets")
    assert_refused(outcome, "in another order: cat, dog; its own: dog, cat")


def test_eval_takes_names_of_another_unicode_form(bnnrun, tmp_path):
    """As a packed file made on macOS may have them."""
    write_folder(tmp_path / "pets", ("\u00e9", "\u00fc"), per_class=5)
    kind = describe(config("folder", path=tmp_path / "pets", image_size=[8, 8]))
    write_model(
        tmp_path / "m.safetensors",
        dataclasses.replace(kind, classes=("e\u0301", "u\u0308")),
        dataset="folder",
    )
    outcome = bnnrun("eval", "model=m.safetensors", *EVAL, "dataset.path=pets")
    assert outcome.status == 0, outcome.err


def test_eval_says_what_images_the_network_takes(bnnrun, tmp_path):
    write_folder(tmp_path / "pets", ("cat", "dog"), per_class=5)
    kind = describe(config("folder", path=tmp_path / "pets"))
    write_model(tmp_path / "m.safetensors", kind, dataset="folder")
    outcome = bnnrun("eval", "model=m.safetensors", *EVAL, "dataset.path=pets")
    assert_refused(outcome, "images of (3, 8, 8)", "takes (3, 32, 32)")
