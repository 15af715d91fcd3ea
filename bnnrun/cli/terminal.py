"""What the program's output goes to: a terminal, a file or a pipe, of any encoding."""

import sys


def prepare() -> None:
    """Have characters that the output cannot hold shown escaped: a ± never fails a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
