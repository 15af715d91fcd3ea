"""Words as they are meant: the value of a key that holds text is the text that was typed.

Hydra's grammar reads 1e3 as a number, true as a truth value, `a,b` as two values and `${p}` as
another key. Of a key of numbers that is right; of a file's name it is another file. So the type of
the key decides, and a text that Hydra would read as anything else is quoted before Hydra sees it.
"""

import dataclasses
import functools
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.settings import MISSING

# A quoted value of Hydra's grammar, and what begins a resolver: ${oc.env:HOME}.
QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
OPENING = re.compile(r"(\\*)\$\{(\s*[A-Za-z_][\w.]*\s*:)?")
CHOICE = re.compile(r"choice\s*\((.*)\)", re.DOTALL)
OTHER_SWEEP = re.compile(r"(?:range|glob|interval|shuffle|sort|tag)\s*\(.*\)", re.DOTALL)
# Folders of Hydra's own that a user names; Hydra does not know of a home folder.
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")


@dataclass(frozen=True)
class TextKey:
    """A key that holds text.

    Attributes:
        is_list:     a list of texts
        is_place:    a file or folder
        is_template: Hydra's own, in which `${...}` names other keys
        is_group:    a group, whose choices are names; several of them are refused without -m
    """

    is_list: bool = False
    is_place: bool = False
    is_template: bool = False
    is_group: bool = False


def text_keys(schema: type, groups: tuple[str, ...] = ()) -> dict[str, TextKey]:
    """Of a verb's dataclass, of every choice of its groups, and Hydra's own, by dotted key."""
    return {
        **dict(_text_keys(HydraConf, "hydra.", is_template=True)),
        **dict(_text_keys(schema)),
        **{group: TextKey(is_group=True, is_template=True) for group in groups},
    }


@functools.cache
def _text_keys(
    schema: type, path: str = "", *, is_template: bool = False
) -> tuple[tuple[str, TextKey], ...]:
    keys: list[tuple[str, TextKey]] = []
    hints = get_type_hints(schema)
    for f in dataclasses.fields(schema):
        key, hint = f"{path}{f.name}", hints[f.name]
        if dataclasses.is_dataclass(hint):
            for choice in (hint, *hint.__subclasses__()):  # type: ignore[union-attr]
                keys += _text_keys(choice, f"{key}.", is_template=is_template)
        elif _is_text(hint):
            place = bool(f.metadata.get("place")) or key in FOLDERS
            keys.append((key, TextKey(get_origin(hint) is list, place, is_template)))
        elif get_origin(hint) is dict and get_args(hint) == (str, str):
            keys.append((f"{key}.*", TextKey(is_template=is_template)))
    return tuple(keys)


def _is_text(hint: Any) -> bool:
    """str, str | None or list[str]."""
    if get_origin(hint) in (types.UnionType, Union):
        return set(get_args(hint)) == {str, type(None)}
    return hint is str or (get_origin(hint) is list and get_args(hint) == (str,))


def literal(word: str, keys: dict[str, TextKey], *, multirun: bool = False) -> str:
    """A typed word with its text quoted where Hydra would read something else.

    Left as they are: `null`, a resolver (`${oc.env:HOME}`), what the user has quoted, and with -m
    the commas and functions of a sweep, each of whose values is a text again.
    """
    head, equals, value = word.partition("=")
    name = head.lstrip("+")
    key = keys.get(name) or keys.get(f"{name.rpartition('.')[0]}.*")
    if not equals or key is None:
        return word
    if key.is_place and key.is_template and value.startswith("~"):
        value = str(user_path(value))
    if key.is_list:
        if not (value.startswith("[") and value.endswith("]")):
            return word
        parts = [part.strip() for part in _split(value[1:-1])]
        return f"{head}=[{','.join(_text(part, key) for part in parts)}]"
    if key.is_group and value.startswith("["):
        return word
    if key.is_group or (multirun and not key.is_template):
        return f"{head}={_swept(word, value, key)}"
    return f"{head}={_text(value, key)}"


def _swept(word: str, value: str, key: TextKey) -> str:
    """Every value of a sweep as text."""
    if OTHER_SWEEP.fullmatch(value):
        return value
    match = CHOICE.fullmatch(value)
    parts = list(_split(match[1] if match else value))
    if len(parts) == 1 and not match:
        return _text(value, key)
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise InputError(f"{word!r}: an empty value among several; '' is the empty text")
    # Without choice(), within which Hydra takes quotes off: a quoted 1e3 would be a number again.
    return ",".join(_text(part, key) for part in parts)


def _text(text: str, key: TextKey) -> str:
    """A text as a value of Hydra's grammar."""
    if not text or QUOTED.fullmatch(text) or (text == "null" and not key.is_list):
        return text
    if text == MISSING and key.is_place:
        text = f"./{text}"  # alone it is OmegaConf's mark of a value that is not given
    escaped = text if key.is_template else escape(text)
    return text if escaped == text and _is_read_as(text) else quoted(escaped)


def _is_read_as(text: str) -> bool:
    """Whether Hydra reads an unquoted text as itself."""
    try:
        return bool(OverridesParser.create().parse_override(f"key={text}").value() == text)
    except HydraException:
        return False


def _split(text: str) -> Iterator[str]:
    """The parts between commas; those within quotes and resolvers are no commas."""
    begin = at = 0
    while at < len(text):
        quote = QUOTED.match(text, at) if not text[begin:at].strip() else None
        opening = OPENING.match(text, at)
        end = _closing(text, at) if opening and opening[2] else None
        if quote:
            at = quote.end()
        elif end:
            at = end
        elif text[at] == ",":
            yield text[begin:at]
            begin = at = at + 1
        else:
            at += 1
    if text:
        yield text[begin:]


def escape(text: str, *, resolvers: bool = True) -> str:
    r"""`text` as OmegaConf reads it back: each "${" escaped, but that of a resolver.

    A backslash is itself, except before "${", where it must be doubled.
    """
    done, at = "", 0
    while match := OPENING.search(text, at):
        begin = match.end(1)
        end = _closing(text, begin) if resolvers and match[2] else None
        done += text[at : match.start()] + match[1] * 2
        done += text[begin:end] if end else "\\${"
        at = end or begin + 2
    return done + text[at:]


def _closing(text: str, begin: int) -> int | None:
    """Where the braces that open at `begin` are closed."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, begin):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return match.end()
    return None


def quoted(text: str) -> str:
    """`text` as a quoted value of Hydra's grammar.

    Backslashes are themselves there, but before a quote: before those of the text and the last.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def as_word(key: str, place: str | Path) -> str:
    """key='a', the name of a place exactly as it is."""
    return f"{key}={quoted(as_value(place))}"


def as_list(key: str, places: list[str]) -> str:
    """key=['a','b'], every name exactly as it is."""
    return f"{key}=[{','.join(quoted(as_value(place)) for place in places)}]"


def as_value(place: str | Path) -> str:
    """The name of a place as a value that OmegaConf reads back exactly as it is."""
    named = f"./{place}" if str(place) == MISSING else str(place)
    return escape(named, resolvers=False)


def parse(words: list[str]) -> list[Override]:
    """Hydra overrides of the words; a value that only parses when quoted is quoted.

    Raises:
        InputError: a word that is no override
    """
    return [_parse(word) for word in words]


def _parse(word: str) -> Override:
    parser = OverridesParser.create()
    try:
        return parser.parse_override(word)
    except HydraException:
        key, equals, value = word.partition("=")
    if not equals:
        raise InputError(
            f"{word!r}: expected key=value or group=choice; `--help` lists both"
        ) from None
    try:
        return parser.parse_override(f"{key}={quoted(value)}")
    except HydraException:
        raise InputError(
            f"{word!r}: not a setting that Hydra can read; expected key=value"
        ) from None


def text_of(word: str) -> str | None:
    """What the word's key will hold, as text; None for null."""
    value = _parse(word).value()
    try:
        return None if value is None else str(OmegaConf.create([value])[0])
    except OmegaConfBaseException as error:
        raise InputError(f"{word}: {str(error).splitlines()[0]}") from None


def canonical(word: str, keys: dict[str, TextKey]) -> str:
    """A word of a run's .hydra/overrides.yaml, as it was read then: its text quoted."""
    override = _parse(word)
    key, value = keys.get(override.key_or_group), override.value()
    if key is None or key.is_group or value is None or override.is_delete():
        return word
    texts = [quoted(str(each)) for each in (value if isinstance(value, list) else [value])]
    shown = f"[{','.join(texts)}]" if key.is_list else texts[0]
    return f"{override.get_key_element()}={shown}"


def place_from(text: str, folder: Path) -> str:
    """A place named in `folder`, named from anywhere."""
    path = user_path(text)
    return str(path if path.is_absolute() else folder / path)
