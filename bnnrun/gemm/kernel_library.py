"""What Numba makes of a kernel, without the machine code that nobody calls.

Of a loop with `prange` Numba makes three functions, one inside the other: its body, what a thread
calls, and what starts the threads. Each of them, like the kernel, is a library, which links the one
inside it and is optimized and turned to machine code as soon as it is complete: the body four times
over. The machine code of the two wrappers is never called. Here they are only linked, which saves a
quarter of the time that a kernel takes to compile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

# How Numba names the libraries of the wrappers.
WRAPPERS = ("parallelgufuncwrapper", "<numba.np.ufunc.wrappers._GufuncWrapper object")


class _KernelLibrary(JITCodeLibrary):
    """A library of Numba's; of a wrapper it makes no machine code."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)  # type: ignore[no-untyped-call]
        self.wraps = name.startswith(WRAPPERS)

    def _optimize_final_module(self) -> None:
        if not self.wraps:
            super()._optimize_final_module()  # type: ignore[no-untyped-call]

    def _finalize_final_module(self) -> None:
        if self.wraps:
            self._finalized = True
        else:
            super()._finalize_final_module()  # type: ignore[no-untyped-call]


@contextmanager
def without_wrappers() -> Iterator[None]:
    """Within the block this thread compiles kernels so; others wait, as they do anyway."""
    with global_compiler_lock:
        codegen = cpu_target.target_context.codegen()
        codegen._library_class = _KernelLibrary
        try:
            yield
        finally:
            del codegen._library_class  # the class's own is back
