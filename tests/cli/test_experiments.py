"""Every experiment runs: three steps on made-up images in the data set's own file format."""

import csv
import json

import made_up
import pytest
from command import configure

from bnnrun.cli.compose import CONF
from bnnrun.config import AdaMaxRule, Binarizer, Clip, LrScale, NormName, Preprocessing

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
WRITERS = {
    "mnist": lambda root: made_up.write_mnist(root, train=40, test=20),
    "cifar10": lambda root: made_up.write_cifar10(root, train=40, test=20),
    "svhn": lambda root: made_up.write_svhn(root, {"train": 60, "test": 20}),
    "digits": lambda root: None,
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_trains_and_leaves_its_record(bnnrun, tmp_path, experiment):
    """The networks are narrowed, all else is the experiment's own."""
    typed = configure("train", f"experiment={experiment}")
    name = typed.dataset.name
    WRITERS[name](tmp_path / "data")
    words = [f"experiment={experiment}", "trainer.epochs=1", "dataset.root=data"]
    if typed.arch.name == "mlp":
        words += ["arch.width=24"]
    else:
        words += ["arch.channels=[4,4,6,6,8,8]", "arch.fc=[16,16]"]
    if name != "digits":
        words += ["dataset.verify=off", "trainer.batch_size=10"]
        words += ["dataset.validation=1" if name == "svhn" else "dataset.validation=10"]
    outcome = bnnrun("train", *words, "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    (path,) = (tmp_path / "results" / "runs").glob("*.json")
    record = json.loads(path.read_text())
    assert record["experiment"] == experiment
    assert record["command"].startswith(f"bnnrun train experiment={experiment} trainer.epochs=1")
    assert "dataset.root" not in record["command"]
    assert record["data"]["name"] == name
    assert record["cell"] == typed.cell
    table, *rest = experiment.split("_")
    assert typed.cell == (".".join([table, *rest]) if table == "table1" else "")
    if name != "digits":
        assert record["data"]["train"] // 10 >= 3
        assert record["data"]["verified"] is False
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train_loss"]) > 0
    assert record["details"]["curve"]["valid_error_pct"] == [float(row["valid_error_pct"])]
    binary = typed.binarization.weights is not Binarizer.none
    assert (float(row["flipped_pct"]) > 0) == binary
    assert 0 <= float(row["closed_fc1_pct"]) <= 100


def test_the_theano_cells_are_the_authors_settings():
    """Epochs, batch, rates and width of the three Theano scripts."""
    expected = {
        "mnist": (1000, 100, 0.003, 3e-7),
        "cifar10": (500, 50, 0.001, 3e-7),
        "svhn": (200, 50, 0.001, 1e-6),
    }
    for name, settings in expected.items():
        typed = configure("train", f"experiment=table1_{name}_theano")
        trainer, optimizer = typed.trainer, typed.optimizer
        shown = (trainer.epochs, trainer.batch_size, optimizer.lr, optimizer.lr_end)
        assert shown == settings
        assert (typed.norm.name, typed.norm.eps, typed.norm.momentum) == (NormName.batch, 1e-4, 0.1)
        assert typed.dataset.preprocessing is Preprocessing.scale
        assert typed.binarization.activations is Binarizer.sign
        assert optimizer.lr_scale is LrScale.c
        assert optimizer.clip is Clip.weights
    mlp = configure("train", "experiment=table1_mnist_theano").arch
    assert (mlp.depth, mlp.width, mlp.dropout_input, mlp.dropout_hidden) == (3, 4096, 0.2, 0.5)


def test_the_torch7_cells_are_the_codes_settings():
    """Width, rates, intervals, c, clip and input of the three Torch7 scripts."""
    expected = {
        "mnist": (100, 2**-6, 20, LrScale.c, True, Clip.weights, Preprocessing.standardize),
        "cifar10": (200, 2**-6, 50, LrScale.c_power_of_two, False, Clip.all, Preprocessing.zca),
        "svhn": (200, 2**-7, 20, LrScale.c_power_of_two, False, Clip.weights, Preprocessing.scale),
    }
    for name, settings in expected.items():
        typed = configure("train", f"experiment=table1_{name}_torch7")
        o = typed.optimizer
        assert (
            typed.trainer.batch_size, o.lr, o.halve_every, o.lr_scale, o.scale_gamma, o.clip,
            typed.dataset.preprocessing,
        ) == settings  # fmt: skip
        assert (o.rule, o.beta1, o.beta2) == (AdaMaxRule.code, 0.9, 0.999)
        assert typed.binarization.activations is Binarizer.stochastic
        assert typed.binarization.weights is Binarizer.sign
        assert (typed.norm.name, typed.norm.eps, typed.norm.momentum) == (
            NormName.shift, 1e-5, 0.125,
        )  # fmt: skip
        assert typed.norm.output is NormName.batch
    mlp = configure("train", "experiment=table1_mnist_torch7").arch
    assert (mlp.depth, mlp.width, mlp.dropout_input, mlp.dropout_hidden) == (3, 2048, 0.0, 0.0)


def test_shift_adamax_alone_is_the_papers():
    typed = configure("train", "optimizer=shift_adamax").optimizer
    assert (typed.rule, typed.lr) == (AdaMaxRule.paper, 2.0**-10)
    assert (typed.beta1, typed.beta2) == (1 - 2.0**-3, 1 - 2.0**-10)


def test_every_experiment_of_a_table_names_its_cell_and_its_deviations():
    for experiment in EXPERIMENTS:
        text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
        assert text.splitlines()[1].startswith("# ")
        if experiment.startswith("table1"):
            assert "Deviations from" in text
