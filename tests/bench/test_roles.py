"""Roles and variants: one word in JSON, one name in tables, and back from the first alone."""

import itertools

import pytest

from bnnrun import roles
from bnnrun.config import EngineChoice, FirstLayer
from bnnrun.gemm import cuda
from bnnrun.roles import PACK_BITS, YARDSTICK, Form, Implementation, Role, shown

KERNELS = ["xnor", *cuda.VARIANTS]
EVERY = [
    *(Implementation.of(role, method) for role, method in roles._METHODS),
    *(Implementation.of(Role.ours, *each) for each in itertools.product(KERNELS, Form)),
]


def test_every_implementation_comes_back_from_its_key():
    assert [Implementation.parse(of.key) for of in EVERY] == EVERY
    assert {YARDSTICK, PACK_BITS} <= set(EVERY)


def test_no_two_have_the_same_name():
    assert len({of.name for of in EVERY}) == len(EVERY)


def test_a_name_says_method_form_and_what_changes_from_run_to_run():
    of = Implementation.of(Role.low_precision, "bf16", Form.rounded)
    assert of.name == "torch bf16, sums rounded"
    assert shown(of, "") == of.name
    baseline = Implementation.of(Role.baseline, "unoptimized")
    assert shown(baseline, "47 rows") == "baseline float32 (47 rows)"


def test_every_form_and_every_engine_and_first_layer_has_words():
    assert set(roles._FORMS) == set(Form)
    engines = {choice.value for choice in EngineChoice} - {"auto"}
    assert engines <= {method for role, method in roles._METHODS if role is Role.ours}
    assert {first.value for first in FirstLayer} - {"auto"} <= {form.value for form in Form}


@pytest.mark.parametrize("key", ["theirs:xnor", "ours:xnor/sideways", "None:None", ""])
def test_an_unknown_role_or_form_is_refused(key):
    with pytest.raises(ValueError, match="is not a valid"):
        Implementation.parse(key)


def test_ours_stand_first_and_the_roofline_last():
    ordered = [Role.ours, Role.baseline, Role.roofline]
    found = sorted((Implementation(role, "x") for role in Role), key=lambda of: of.order)
    assert [of.role for of in found if of.role in ordered] == ordered
