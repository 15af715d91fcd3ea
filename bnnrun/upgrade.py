"""Older forms of what is read: saved words, configurations, records. Nothing else knows of them."""

from typing import Any

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
        elif key.removeprefix("dataset.recipe.") in _RECIPE:
            others.append(f"profile.{key.removeprefix('dataset.recipe.')}={value}")
        else:
            others.append(_WORDS.get(f"{key}={value.lower()}", word))
    # A rate of the optimizer's own, among the others, is read later and wins, as it did.
    return rates + others


def config(saved: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint or a record says that a run computed with, in the settings of today."""
    found = dict(saved)
    for group, upgrade in (
        ("dataset", _dataset), ("trainer", _trainer), ("binarization", _binarization),
    ):  # fmt: skip
        if group in found:
            found[group] = upgrade(dict(found[group]))
    return found


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
    return settings


def record(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a record, in the form of today."""
    return {**content, "config": config(content.get("config", {}))}
