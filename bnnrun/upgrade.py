"""Older forms of what is read: saved words, configurations, records. Nothing else knows of them."""

from typing import Any

from bnnrun.errors import InputError

# What a data set's recipe held, apart from rates: a profile holds the same.
_RECIPE = (
    "epochs", "batch_size", "halve_every", "width", "channels", "dropout_input", "dropout_hidden",
)  # fmt: skip
_RATES = {
    f"dataset.recipe.{rate}.{optimizer}": (optimizer, f"optimizer.{rate}")
    for rate in ("lr", "lr_end")
    for optimizer in ("adam", "sgd")
}
# A setting that has gone, and what to type in its place.
RENAMED = {
    "again": "overwrite",
    "first": "first_layer",
    "trainer.precision": "trainer.engine=auto, reference or fast",
    "binarization.gate": "binarization.estimator=ste (gate=true) or identity (gate=false)",
    "dataset.recipe": "profile=NAME",
    "dataset.recipe.lr": "optimizer.lr",
    "dataset.recipe.lr_end": "optimizer.lr_end",
    **{f"dataset.recipe.{key}": f"profile.{key}" for key in _RECIPE},
    **{old: f"{new} (optimizer={optimizer})" for old, (optimizer, new) in _RATES.items()},
}
# What was called precision=float32 fused its kernels and deferred gradients: no engine of today's.
FUSED_FLOAT32 = "float32, fused"

_WORDS = {
    "trainer.precision=fast": "trainer.engine=fast",
    "trainer.precision=float32": "trainer.engine=reference",
    "binarization.gate=true": "binarization.estimator=ste",
    "binarization.gate=false": "binarization.estimator=identity",
}


def words(saved: list[str], optimizer: str | None) -> list[str]:
    """The words that began a run, in the keys of today.

    Args:
        optimizer: the run's choice; the rates of others went unused and are left out
    """
    rates, others = [], []
    for word in saved:
        key, _, value = word.lstrip("+").partition("=")
        if key in _RATES:
            owner, rate = _RATES[key]
            rates += [f"{rate}={value}"] if owner == optimizer else []
        elif key == "again":
            others.append(f"overwrite={value}")
        elif key.removeprefix("dataset.recipe.") in _RECIPE:
            others.append(f"profile.{key.removeprefix('dataset.recipe.')}={value}")
        else:
            others.append(_WORDS.get(f"{key}={value.lower()}", word))
    # A rate of the optimizer's own, among the others, is read later and wins, as it did.
    return rates + others


def config(saved: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint or a record says that a run computed with, in the settings of today."""
    upgraded = dict(saved)
    for group, upgrade in (
        ("dataset", _dataset), ("trainer", _trainer), ("binarization", _binarization),
    ):  # fmt: skip
        if group in upgraded:
            upgraded[group] = upgrade(dict(upgraded[group]))
    return upgraded


def _dataset(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the recipe: its values stand where they were used."""
    settings.pop("recipe", None)
    return settings


def _trainer(settings: dict[str, Any]) -> dict[str, Any]:
    precision = settings.pop("precision", None)
    if precision is not None:
        settings["engine"] = {"fast": "fast", "float32": FUSED_FLOAT32}[precision]
    return settings


def _binarization(settings: dict[str, Any]) -> dict[str, Any]:
    gate = settings.pop("gate", None)
    if gate is not None:
        settings["estimator"] = "ste" if gate else "identity"
    return {"weight_bits": 1, "activation_bits": 1, **settings}


def record(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a record, in the form of today; what is damaged stays so, to be told of."""
    upgraded = dict(content)
    if isinstance(upgraded["config"], dict):
        upgraded["config"] = config(upgraded["config"])
    if upgraded["format"] == 1 and isinstance(upgraded["details"], dict):
        upgraded |= {"format": 2, "details": _roles(upgraded["details"])}
    return upgraded


def _roles(details: dict[str, Any]) -> dict[str, Any]:
    """The details of format 1, which told competitors by their names in tables."""
    upgraded = dict(details)
    if "competitor" in upgraded:
        name = upgraded.pop("competitor")
        role, variant, remark = _competitor(name)
        upgraded |= {"role": role, "variant": variant, "remark": remark}
    if "in_the_same_run" in upgraded:
        times = {_competitor(name): value for name, value in upgraded["in_the_same_run"].items()}
        upgraded["in_the_same_run"] = {
            f"{role}:{variant}": value for (role, variant, _), value in times.items()
        }
    return upgraded


# Names of format 1 in parts: (role, method) of what comes first, the form of what follows.
_METHODS = {
    "bnnrun": ("ours", "unnamed"),
    "bnnrun, fast": ("ours", "fast"),
    "bnnrun, reference": ("ours", "reference"),
    "bnnrun, float32": ("ours", "float32_fused"),
    "pack_bits, float32 in": ("ours", "pack_bits"),
    "baseline float32": ("baseline", "unoptimized"),
    "torch float32": ("float32", "torch"),
    "eager float32": ("float32", "torch"),
    "NumPy float32": ("float32", "numpy"),
    "torch bf16": ("low_precision", "bf16"),
    "torch fp8": ("low_precision", "fp8"),
    "torch int8": ("low_precision", "int8"),
    "torch tf32": ("low_precision", "tf32"),
    "reference": ("peer", "reference"),
    "limit: xor, popcount, add": ("roofline", "xor_popcount_add"),
    "limit: carry-save adders": ("roofline", "carry_save_adders"),
    "limit: copying memory": ("roofline", "memory_copy"),
    "limit: tables of sums": ("roofline", "lut_sums"),
    "limit: products of bytes": ("roofline", "byte_products"),
    "limit: float32 product": ("roofline", "float32_product"),
    **{
        kernel: ("ours", kernel)
        for kernel in ("xnor", "xnor_gemm", "xnor_gemm_mma", "xnor_gemm_wgmma")
    },
}
_FORMS = {
    "bits out": "bits_out",
    "bits out, cold": "bits_out_cold",
    "int32 out": "int32_out",
    "float32 out": "float32_out",
    "float32 in, int32 out": "packing",
    "first layer by bytes": "bytes",
    "first layer by planes": "planes",
    "sums rounded": "rounded",
    "first layer float32": "float32_first",
    "memory kept": "memory_kept",
}


def _competitor(name: str) -> tuple[str, str, str]:
    """(role, variant, remark) of a name of format 1; InputError where no version wrote it.

    The remark stood in parentheses: a library's version, the rows that were timed.
    """
    bare, _, remark = name.partition(" (")
    for method, (role, variant) in _METHODS.items():
        form = bare.removeprefix(f"{method}, ")
        if bare == method:
            return role, variant, remark.removesuffix(")")
        if form != bare and form in _FORMS:
            return role, f"{variant}/{_FORMS[form]}", remark.removesuffix(")")
    raise InputError(f"competitor {name!r}: no version of this program has one of this name")
