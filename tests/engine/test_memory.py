"""Memory that a process keeps when it is freed, and that is found again."""

import os
import subprocess
import sys

import pytest
import torch

from bnnrun.engine.memory import empty, empty_like

# New pages of fifty arrays of 64 MiB, one after the other, behind a first one.
SCRIPT = """
import resource, sys
import torch
from bnnrun.engine.memory import keep_freed

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

told = keep_freed() if sys.argv[1] == "kept" else False
torch.zeros(2**24)
before = pages()
for _ in range(50):
    torch.zeros(2**24)
print(told, pages() - before)
"""

# New pages while each of eight arrays is freed and made again, small ones coming in between.
AGAIN = """
import resource
import torch
from bnnrun.engine.memory import empty, keep_freed

told = keep_freed()
held = [empty(2**20).fill_(1) for _ in range(8)]
small = []
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(400):
    held[i % 8] = None
    small += [torch.empty(12) for _ in range(20)]
    held[i % 8] = empty(2**20).fill_(1)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is for Linux")


def counted(*words: str, script: str = SCRIPT, **environment: str) -> tuple[str, int]:
    """The word and the number that a script says."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True,
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


@linux
def test_a_freed_array_fits_where_it_lay():
    told, pages = counted(script=AGAIN)
    if told == "False":
        pytest.skip("this C library is not glibc")
    assert pages < 2**22 // 4096  # of 408 arrays made, not one lies in new memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7), (2, 3, 5, 4), (2, 1, 5, 4)], ids=str)
def test_new_arrays_are_as_torchs_and_begin_on_a_line(shape, dtype):
    for last in {False, len(shape) == 4}:
        t = empty(*shape, channels_last=last, dtype=dtype)
        order = torch.channels_last if last else torch.contiguous_format
        expected = torch.empty(shape, dtype=dtype, memory_format=order)
        other = empty_like(t, torch.float32)
        assert t.dtype == dtype and other.dtype == torch.float32
        for new in (t, other):
            assert new.shape == expected.shape
            assert new.is_contiguous(memory_format=order)
            assert new.data_ptr() % 64 == 0
