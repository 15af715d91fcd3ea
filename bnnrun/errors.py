"""What a user can put right, told in one line: what was given, what was expected, what to do."""

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path


class InputError(Exception):
    """Wrong input: a word, a value, a file. The command line shows it and exits with status 2."""


class RunError(Exception):
    """The input was right and the run failed. The command line shows it and exits with status 1."""


class Stopped(BaseException):
    """The run was asked to stop (Ctrl-C, SIGTERM), has saved its state, and can be resumed.

    Not an `Exception`: nothing that catches failures may take it for one.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the known name closest to `word`; the known names where none is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """'a, b, c', of many names the first ones and how many more there are."""
    shown = list(names)
    more = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {more:,} more" if more > 0 else "")


def printable(name: str | Path) -> str:
    r"""A file's name in one line of valid text: 'caf\xe9' for a byte that is not UTF-8.

    Python reads such bytes as lone surrogates, which can be neither printed nor written to JSON.
    """
    return "".join(map(_printable, str(name)))


def _printable(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cs" and "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    if category in ("Cs", "Cc", "Zl", "Zp"):
        return char.encode("unicode_escape").decode()
    return char
