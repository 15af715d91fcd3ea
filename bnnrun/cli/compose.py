"""From the words of a command line to a typed, checked configuration, before any work is done.

Hydra composes; this module asks it early and puts what it finds wrong into one line: what was
given, what was expected, what to do.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bnnrun import config, upgrade
from bnnrun.cli import launchers
from bnnrun.cli.faults import check_plugin, explained, one_line
from bnnrun.cli.verbs import VERBS, Verb
from bnnrun.cli.words import TextKey, literal, parse, text_keys
from bnnrun.errors import InputError, nearest
from bnnrun.settings import check

PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel the configuration is inside the package, in a checkout it stands beside it.
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parent / "conf") if p.is_dir())
VERSION_BASE = "1.3"
SWEPT_AT_MOST = 64  # values of one sweep that are composed to be checked
# What may differ between two calls of one job: the folder of a sweep's job does not tell it. Of a
# profile the values that are used stand in the other groups.
NOT_IN_NAME = {"resume", "overwrite", "plan", "debug", "profile"}


@functools.cache
def register_schemas() -> None:
    """Tell Hydra the dataclasses that conf/ is checked against, and what names a job's folder."""
    for name, resolver in (
        ("run_name", run_name),
        ("jobs_at_once", launchers.jobs_at_once),
        ("gpus", launchers.number_of_gpus),
    ):
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    store = ConfigStore.instance()
    for verb in VERBS.values():
        store.store(group="schema", name=verb.name, node=verb.schema, package="_global_")
    for group, name, node in (
        ("arch", "mlp", config.MlpConfig),
        ("arch", "convnet", config.ConvNetConfig),
        ("dataset", "svhn", config.SvhnConfig),
        ("dataset", "folder", config.FolderConfig),
        ("norm", "shift", config.ShiftNormConfig),
        ("optimizer", "adam", config.AdamConfig),
        ("optimizer", "sgd", config.SgdConfig),
        ("optimizer", "shift_adamax", config.ShiftAdaMaxConfig),
    ):
        store.store(group=f"schema/{group}", name=name, node=node)


def run_name(*, _root_: DictConfig) -> str:
    """`${run_name:}`: 'digits_binary-s3-1f3a9c2e', the same for the same configuration alone.

    A value that cannot be resolved stands as it is: it fails its own job and not the sweep.
    """
    composed = _root_.copy()
    OmegaConf.set_struct(composed, False)
    experiment = composed.pop("hydra").runtime.choices.get("experiment")
    if composed.get("init") is None:  # folders are older than this key
        composed.pop("init", None)
    content: Any
    try:
        content = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    except OmegaConfBaseException:
        content = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    for key in NOT_IN_NAME:  # only now: other values may refer to them
        content.pop(key, None)
    text = json.dumps([experiment, content], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{experiment or composed.dataset.name}-s{composed.seed}-{digest}"


@contextmanager
def hydra_session() -> Iterator[None]:
    """Hydra's Compose API over conf/, within the block."""
    register_schemas()
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        yield


def to_config(composed: DictConfig) -> Any:
    """The dataclass of a composed tree, every value checked against its range."""
    try:
        typed = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise InputError(one_line(error)) from None
    check(typed)
    return typed


def keys_of(verb: Verb) -> dict[str, TextKey]:
    """The keys of a verb, of its groups and of Hydra that hold text."""
    return text_keys(
        verb.schema,
        tuple(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"),
    )


class Checked(NamedTuple):
    """What the words of a command line make.

    Attributes:
        words:    as Hydra will take them
        typed:    the configuration, every value checked; of a sweep its first job's
        composed: Hydra's tree of the same, its own settings with it; of a sweep by default values
    """

    words: list[str]
    typed: Any
    composed: DictConfig


def checked_config(verb: Verb, words: list[str], *, multirun: bool) -> Checked:
    """Compose and check the words of a command line.

    In a sweep every value of every key is composed once, the other keys at their first value;
    Hydra's own settings are checked by who composes the jobs.

    Raises:
        InputError: a word that is no override, an unknown group, choice or key, a value of the
            wrong type or outside its range
    """
    keys = keys_of(verb)
    overrides = parse([literal(word, keys, multirun=multirun) for word in words])
    overrides += parse([word for o in overrides if (word := _launcher_defaults(o))])
    lines = [o.input_line for o in overrides if o.input_line is not None]
    own, hydras = [], []
    for override in overrides:
        if override.key_or_group.startswith("hydra"):
            hydras.append(override.input_line or "")
        else:
            own.append(override)
    search = [line for line in hydras if line.startswith("hydra.searchpath=")]
    with hydra_session():
        swept = [_values(o, multirun) for o in own]
        for override in overrides:
            _check_plugin(override)
        if any(len(values) > SWEPT_AT_MOST for values in swept):  # not every one is composed
            _check_names(verb, own, swept, search)
        try:
            composed = composed_of(
                verb, [*(search if multirun else hydras), *(values[0] for values in swept)]
            )
            typed = _typed(composed)
            for i, values in enumerate(swept):
                for value in values[1:SWEPT_AT_MOST]:
                    now = [v[0] for v in swept]
                    now[i] = value
                    _typed(composed_of(verb, [*search, *now]))
        except InputError:
            _check_names(verb, own, swept, search)  # what a wrong name was meant to be
            raise
    return Checked(lines, typed, composed)


def _values(override: Override, multirun: bool) -> list[str]:
    """The override as words of one value each."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        return [line]
    if not multirun:
        key, _, value = line.partition("=")
        raise InputError(f"{line!r}: several values for {key}; add -m to run each, or quote: "
                         f"{key}='\"{value}\"'")  # fmt: skip
    prefix = line.partition("=")[0]
    try:
        override.config_loader = GlobalHydra.instance().config_loader()  # of which glob() asks
        return [f"{prefix}={value}" for value in override.sweep_string_iterator()]
    except HydraException:
        raise InputError(
            f"{line!r}: expected values to sweep over: a,b,c, choice(...), range(...) or glob(...)"
        ) from None


def _launcher_defaults(override: Override) -> str | None:
    """For hydra/launcher=NAME the word that lays our defaults over the launcher's own."""
    path = CONF / "hydra" / "launcher_defaults" / f"{override.value()}.yaml"
    if override.key_or_group != "hydra/launcher" or not path.is_file():
        return None
    return f"+hydra/launcher_defaults@hydra.launcher={override.value()}"


def _check_plugin(override: Override) -> None:
    group = override.key_or_group
    if group.startswith("hydra/"):
        installed = GlobalHydra.instance().config_loader().get_group_options(group)
        check_plugin(group, str(override.value()), installed)


def _check_names(
    verb: Verb, overrides: list[Override], swept: list[list[str]], search: list[str]
) -> None:
    groups, _ = _known(verb.name, tuple(search))
    chosen = list(search)
    for override, values in zip(overrides, swept, strict=True):
        name = override.key_or_group
        if name not in groups:
            continue
        options = groups[name]
        for value in values:
            choice = value.partition("=")[2].strip("'\"")
            if choice not in (*options, "null") and not override.is_delete():
                raise InputError(f"{name}={choice}: no such choice; {nearest(choice, options)}")
        chosen.append(values[0])
    _, keys = _known(verb.name, tuple(chosen))
    for override in overrides:
        name = override.key_or_group
        if name not in groups and name not in keys:
            renamed = upgrade.RENAMED.get(name, "")
            if re.split(r"[.=]", renamed)[0] in keys:
                raise InputError(f"{name}: no key of `bnnrun {verb.name}` any more; use {renamed}")
            known = sorted({*keys, *groups})
            plain = "." in name or len(known) < 20
            hint = nearest(name, known) if plain else _nearest_leaf(name, known)
            raise InputError(f"{name}: no such key or group of `bnnrun {verb.name}`; {hint}")


@functools.cache
def _known(verb: str, chosen: tuple[str, ...]) -> tuple[dict[str, list[str]], set[str]]:
    """(each group with its choices, every key) of a verb when those choices are made."""
    composed = composed_of(VERBS[verb], list(chosen))
    loader = GlobalHydra.instance().config_loader()
    groups = [name for name in composed.hydra.runtime.choices if "/" not in name]
    added = _folders(chosen)  # the loader lists its own; into those it only looks
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    keys = set(_keys(OmegaConf.to_container(composed, resolve=False)))
    options = {
        name: loader.get_group_options(name)
        + sorted(path.stem for folder in added for path in (folder / name).glob("*.yaml"))
        for name in groups
    }
    return options, keys


def _nearest_leaf(name: str, known: list[str]) -> str:
    """For `epochs` or `lrr`, the nearest full key whose last word it is meant to be."""
    leaves = {
        key.rpartition(".")[2]: key
        for key in sorted(known, reverse=True)
        if not key.startswith("profile.")
    }
    hint = nearest(name, [*leaves, *known])
    match = re.fullmatch(r"did you mean '(.*)'\?", hint)
    if match is None:
        first = sorted({key.partition(".")[0] for key in known})
        return f"`--help` lists them all; they begin with {', '.join(first)}"
    return f"did you mean {leaves.get(match[1], match[1])!r}?"


def _keys(tree: Any, path: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{name}.")


def _folders(words: Iterable[str]) -> list[Path]:
    """The folders of a word of hydra.searchpath."""
    paths = [o.value() for o in parse(list(words)) if o.key_or_group == "hydra.searchpath"]
    return [Path(str(p).removeprefix("file://")) for each in paths for p in cast(list[str], each)]


def composed_of(verb: Verb, words: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    """Hydra's tree of a verb's words, its own settings with it; within a `hydra_session`.

    Raises:
        InputError: what makes no tree, by the word or the file and line
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    try:
        return hydra.compose_config(verb.name, words, mode, from_shell=False)
    except Exception as error:
        raise explained(error, words, _folders(words)) from None


def _typed(composed: DictConfig) -> Any:
    own = composed.copy()
    with open_dict(own):
        del own["hydra"]
    return to_config(own)
