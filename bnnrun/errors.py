"""What a user can put right, told in one line: what was given, what was expected, what to do."""

import difflib
from collections.abc import Iterable


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
