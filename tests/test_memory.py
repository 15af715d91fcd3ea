"""Memory that a process keeps when it is freed."""

import os
import subprocess
import sys

import pytest

# New pages of fifty arrays of 64 MiB, one after the other, behind a first one.
SCRIPT = """
import resource, sys
import torch
from bnnrun.nn.memory import keep_freed

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

told = keep_freed() if sys.argv[1] == "kept" else False
torch.zeros(2**24)
before = pages()
for _ in range(50):
    torch.zeros(2**24)
print(told, pages() - before)
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is for Linux")


def counted(word: str, **environment: str) -> tuple[str, int]:
    """(what keep_freed said, new pages of the fifty arrays)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, word], capture_output=True, text=True, check=True,
        env=clean | environment, timeout=200,
    )  # fmt: skip
    told, pages = done.stdout.split()
    return told, int(pages)


@linux
def test_freed_memory_is_kept_where_it_is_asked_for():
    told, pages = counted("kept")
    if told == "False":
        pytest.skip("this C library is not glibc")
    told, returned = counted("returned")
    assert told == "False"
    assert 3 * pages < returned  # counted, not computed: the system may make its pages larger


@linux
@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_has_set_the_librarys_variables_has_chosen(name):
    told, _ = counted("kept", **{name: ""})
    assert told == "False"
