"""The configuration: ranges, completeness, and that everything in conf/ composes."""

import dataclasses
import inspect
from itertools import combinations, product
from random import Random

import pytest
from command import configure
from hydra import compose

from bnnrun import config, settings
from bnnrun.cli.compose import CONF, hydra_session, to_config
from bnnrun.cli.verbs import VERBS
from bnnrun.errors import InputError

SCHEMAS = [c for _, c in inspect.getmembers(config, dataclasses.is_dataclass)]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = ("dataset", "profile", "arch", "binarization", "norm", "optimizer")
CHOICES = [
    [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))] for group in GROUPS
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_every_setting_says_what_it_means(schema):
    for field in dataclasses.fields(schema):
        nested = dataclasses.is_dataclass(field.type)
        assert nested or field.metadata.get("meaning"), f"{schema.__name__}.{field.name}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("verb", ["train", "bench"])
def test_every_experiment_composes(verb, experiment):
    configure(verb, f"experiment={experiment}")


def covering(groups: list[list[str]]) -> list[tuple[str, ...]]:
    """Some combinations of one choice a group in which every pair of choices stands together."""
    everything = list(product(*groups))
    Random(0).shuffle(everything)
    missing = {pair for two in combinations(groups, 2) for pair in product(*two)}
    picked = []
    for combination in everything:
        covered = set(combinations(combination, 2)) & missing
        if len(covered) >= 5 or (len(missing) < 60 and covered):
            picked.append(combination)
            missing -= covered
    assert not missing
    return picked


@pytest.mark.parametrize("choices", covering(CHOICES), ids=" ".join)
def test_every_choice_goes_with_every_other(choices):
    with hydra_session():
        typed = to_config(compose("train", list(choices)))
    for choice in choices:
        group, _, name = choice.partition("=")
        if group in ("dataset", "arch", "optimizer"):
            assert getattr(typed, group).name == name


def test_each_data_set_has_a_profile_of_its_name_which_another_may_take_the_place_of():
    names = [{path.stem for path in (CONF / group).glob("*.yaml")} for group in GROUPS[:2]]
    assert names[0] == names[1]
    typed = configure("train", "dataset=digits", "profile=svhn")
    assert (typed.dataset.name, typed.arch.name, typed.trainer.epochs) == ("digits", "convnet", 200)
    typed = configure("train", "experiment=table1_cifar10_theano", "profile=mnist")
    assert (typed.dataset.name, typed.arch.name, typed.trainer.epochs) == ("cifar10", "mlp", 1000)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "shift_adamax"])
def test_a_profile_may_have_a_rate_for_each_optimizer_and_need_not(optimizer):
    defaults = {"adam": (0.001, 1e-6), "sgd": (10.0, 0.01), "shift_adamax": (2.0**-10, 1e-6)}
    own = configure("train", "dataset=svhn", f"optimizer={optimizer}").optimizer
    assert (own.lr, own.lr_end) == defaults[optimizer]
    with hydra_session():
        words = [f"optimizer={optimizer}", f"+profile.lr.{optimizer}=0.5"]
        typed = to_config(compose("train", ["dataset=svhn", *words]))
    assert (typed.optimizer.lr, typed.optimizer.lr_end) == (0.5, defaults[optimizer][1])


def test_what_is_computed_does_not_hold_the_profile():
    """Two runs that differ in what a profile has for another network compute the same."""
    one = configure("train", "dataset=digits", "arch.width=64")
    other = configure("train", "dataset=digits", "profile.width=64", "profile.channels=[1]")
    assert config.computed(one) == config.computed(other)
    assert "profile" not in config.computed(one)


def test_a_data_set_decides_what_the_paper_fixes_for_it_and_the_user_wins():
    typed = configure("train")
    assert (typed.dataset.name, typed.arch.width, typed.trainer.epochs) == ("mnist", 4096, 1000)
    assert (typed.optimizer.lr, typed.optimizer.lr_end) == (0.003, 3e-7)
    typed = configure("train", "dataset=digits", "trainer.epochs=7", "optimizer.lr=0.5")
    assert (typed.arch.width, typed.trainer.epochs, typed.optimizer.lr) == (512, 7, 0.5)


@pytest.mark.parametrize(
    ("valid", "inside", "outside"),
    [
        ("[1, inf)", [1, 10**9], [0, -1, float("inf"), float("nan")]),
        ("(0, 1]", [1e-9, 1], [0, 1.1, float("nan")]),
        ("[0, 1)", [0, 0.999], [1, -0.1]),
        ("", [-5.0, 0], [float("inf"), float("nan")]),
    ],
)
def test_ranges(valid, inside, outside):
    @dataclasses.dataclass
    class Example:
        x: float = settings.setting(0.0, "an example", valid=valid)

    for x in inside:
        settings.check(Example(x))
    for x in outside:
        with pytest.raises(InputError, match=r"^x=.*: expected a (finite )?number"):
            settings.check(Example(x))


def test_the_first_bad_value_is_named_by_its_full_key():
    typed = configure("train", "dataset=digits")
    typed.optimizer.lr = -1.0
    with pytest.raises(InputError, match=r"^optimizer\.lr=-1\.0: expected a number > 0$"):
        settings.check(typed)


def test_plain_is_what_json_and_checkpoints_can_hold():
    shown = settings.plain(configure("train", "dataset=digits"))
    assert shown["binarization"] == {
        "weights": "sign",
        "activations": "sign",
        "estimator": "ste",
        "weight_bits": 1,
        "activation_bits": 1,
    }
    assert shown["optimizer"]["lr"] == 0.003


def test_every_verb_has_a_primary_configuration():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*VERBS, "run_folder", "torch7"}
