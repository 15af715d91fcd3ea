"""What a setting is: a field of a dataclass with its meaning, unit and range, and their check."""

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from bnnrun.errors import InputError

T = TypeVar("T")
MISSING: Any = "???"  # OmegaConf's mark of a value that conf/ must give


def setting(
    default: Any, meaning: str, *, unit: str = "", valid: str = "", place: bool = False
) -> Any:
    """A field of the configuration.

    Args:
        default: the value where neither conf/ nor the user gives one
        meaning: one line for `--help`
        unit:    of the value, for `--help`
        valid:   the range of a number as an interval, such as "[1, inf)" or "(0, 1]"
        place:   a file or folder, relative to the folder where the command is given
    """
    metadata = {"meaning": meaning, "unit": unit, "valid": valid, "place": place}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check(config: object, path: str = "") -> None:
    """Raise InputError for the first number that is not finite or lies outside its range."""
    for f in fields(config):  # type: ignore[arg-type]
        value, key = getattr(config, f.name), f"{path}{f.name}"
        if is_dataclass(value):
            check(value, f"{key}.")
            continue
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check_number(key, number, f.metadata.get("valid", ""))


def _check_number(key: str, number: float, valid: str) -> None:
    interval = valid or "(-inf, inf)"
    match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    assert match is not None, f"{key}: {interval!r} is no interval"
    low, high = float(match[2]), float(match[3])
    above = number >= low if match[1] == "[" else number > low
    below = number <= high if match[4] == "]" else number < high
    if not (math.isfinite(number) and above and below):
        raise InputError(f"{key}={number}: expected {describe_interval(interval)}")


def describe_interval(valid: str) -> str:
    """'[1, inf)' -> 'a number >= 1'; '' -> 'a finite number'."""
    low, high = valid[1:-1].split(", ") if valid else ("-inf", "inf")
    parts = []
    if low != "-inf":
        parts.append(f"{'>=' if valid[0] == '[' else '>'} {low}")
    if high != "inf":
        parts.append(f"{'<=' if valid[-1] == ']' else '<'} {high}")
    return f"a number {' and '.join(parts)}" if parts else "a finite number"


def plain(config: object) -> Any:
    """A configuration as dicts, lists, strings and numbers: what records and checkpoints hold."""
    if is_dataclass(config):
        return {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, Enum):
        return config.value
    if isinstance(config, list):
        return [plain(item) for item in config]
    return config


def restore(schema: type[T], tree: dict[str, Any]) -> T:
    """A dataclass of settings from what `plain` made of it; KeyError where one is missing."""
    values: dict[str, Any] = {}
    for f in fields(schema):  # type: ignore[arg-type]
        hint = get_type_hints(schema)[f.name]
        value = tree[f.name]
        if is_dataclass(hint):
            value = restore(hint, value)  # type: ignore[arg-type]
        elif isinstance(hint, type) and issubclass(hint, Enum):
            value = hint(value)
        values[f.name] = value
    return schema(**values)


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted key, its field, its value) of every setting of a composed configuration."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from leaves(value, f"{path}{f.name}.")
        else:
            yield f"{path}{f.name}", f, value
