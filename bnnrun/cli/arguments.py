"""The words of a command line: Hydra's flags, the verb's own, bare words, settings."""

import os
from argparse import ArgumentParser
from typing import Any

from hydra._internal.utils import get_args_parser

from bnnrun.cli.verbs import Verb
from bnnrun.cli.words import as_list, quoted
from bnnrun.errors import InputError
from bnnrun.files import user_path


def split(verb: Verb, argv: list[str]) -> tuple[Any, list[str], list[str]]:
    """(Hydra's flags as parsed, the words that they are, the settings that all others make).

    Raises:
        InputError: an unknown flag, a bare word that the verb does not take
    """
    own = {f"--{name}": f"{name}=true" for name in verb.flags}
    parser = _parser()
    takes_files = bool(verb.words) and not verb.action
    files: list[str] = []  # "--": all that follows are files
    if takes_files and "--" in argv:
        at = argv.index("--")
        argv, files = argv[:at], argv[at + 1 :]
    if takes_files:
        argv = [f"./{word}" if _is_dashed_file(word, parser) else word for word in argv]
    flags, hydra_flags, others = _split_flags(parser, [word for word in argv if word not in own])
    words = _as_settings(verb, others, files)
    words += [own[word] for word in argv if word in own]
    if flags.config_dir is not None:  # handed on as a setting, which is checked as all others
        words.append(_search_path(flags.config_dir))
    return flags, hydra_flags, words


def _parser() -> ArgumentParser:
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise InputError(f"{message}; `--help` and `--hydra-help` list what there is")

    parser.error = refuse  # type: ignore[method-assign, assignment]
    return parser


def _split_flags(parser: ArgumentParser, argv: list[str]) -> tuple[Any, list[str], list[str]]:
    """Hydra's flags as parsed, the words that they are, and the other words."""
    flags = parser.parse_intermixed_args(argv)
    if flags.config_path is not None or flags.config_name is not None:
        raise InputError("--config-path, --config-name: the verb decides; --config-dir adds files")
    if (flags.resolve or flags.package is not None) and flags.cfg is None and not flags.help:
        raise InputError("--resolve, --package: say what --cfg shows; add --cfg job")
    if flags.experimental_rerun is not None:
        raise InputError("--experimental-rerun: not taken; resume=FOLDER goes on with a run")
    others = list(flags.overrides)
    settings = set(others)
    flag_words = [word for word in argv if word not in settings]
    if flags.config_dir is not None:
        at = next(
            i for i, word in enumerate(flag_words) if word.startswith(("--config-dir", "-cd"))
        )
        del flag_words[at : at + (1 if "=" in flag_words[at] else 2)]
    return flags, flag_words, others


def _search_path(folder: str) -> str:
    """--config-dir FOLDER as a setting: the user's own experiments stand beside ours."""
    path = user_path(folder).resolve()
    if not path.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder")
    return f"hydra.searchpath=[{quoted(f'file://{path}')}]"


def _as_settings(verb: Verb, words: list[str], files: list[str]) -> list[str]:
    """The bare words of a verb that takes some, as settings.

    `data verify mnist svhn` is `data action=verify "sets=['mnist','svhn']"`.

    Args:
        files: words that are bare whatever they look like
    """
    if not verb.action and not verb.words:
        return words
    bare = [word for word in words if _is_bare(word, files=not verb.action)]
    others = [word for word in words if not _is_bare(word, files=not verb.action)]
    bare += files
    if verb.action and bare:
        others.append(f"{verb.action}={bare.pop(0)}")
    if bare and not verb.words:
        raise InputError(f"{bare[0]!r}: expected key=value after `bnnrun {verb.name} ACTION`")
    return [*others, as_list(verb.words, bare)] if bare else others


def _is_bare(word: str, *, files: bool) -> bool:
    """A word with "=" and one that begins with "~", which deletes a key, are files where there is
    one of that name; no key begins with a slash.
    """
    if "=" in word or (word.startswith("~") and not (files and word.startswith("~/"))):
        return files and _exists(word)
    return True


def _is_dashed_file(word: str, parser: ArgumentParser) -> bool:
    """Whether a word that looks like a flag is none and names a file."""
    flag = word.partition("=")[0]
    return word.startswith("-") and flag not in parser._option_string_actions and _exists(word)


def _exists(word: str) -> bool:
    return os.path.exists(user_path(word))  # noqa: PTH110 -- Path raises where a name is too long
