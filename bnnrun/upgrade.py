"""Older forms of what is read: saved words, configurations, records. Nothing else knows of them."""

from typing import Any

# A setting that has gone, and what to type in its place.
RENAMED = {
    "trainer.precision": "trainer.engine=auto, reference or fast",
    "binarization.gate": "binarization.estimator=ste (gate=true) or identity (gate=false)",
}
# What was called precision=float32 fused its kernels and deferred gradients: no engine of today's.
FUSED_FLOAT32 = "float32, fused"

_WORDS = {
    "trainer.precision=fast": "trainer.engine=fast",
    "trainer.precision=float32": "trainer.engine=reference",
    "binarization.gate=true": "binarization.estimator=ste",
    "binarization.gate=false": "binarization.estimator=identity",
}


def words(saved: list[str]) -> list[str]:
    """The words that began a run, in the keys of today."""
    return [_WORDS.get(word, word) for word in saved]


def config(saved: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint or a record says that a run computed with, in the settings of today."""
    found = dict(saved)
    for group, upgrade in (("trainer", _trainer), ("binarization", _binarization)):
        if group in found:
            found[group] = upgrade(dict(found[group]))
    return found


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
