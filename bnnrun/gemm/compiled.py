"""Compilation of kernels, and the threads that they run on, by Numba.

A kernel is a Python function with `prange`, compiled at its first call. Any thread of the program
may call it. Numba's threads do not survive a fork: a process that was forked after they began runs
the same kernels compiled without threads.
"""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bnnrun.errors import InputError
from bnnrun.machine import cores

try:
    import numba
    from numba import prange
    from numba.core import event
    from numba.core.compiler_lock import global_compiler_lock
    from numba.np.ufunc import parallel as numba_threads
except ValueError as error:  # Numba reads its variables when it is imported
    raise InputError(
        f"NUMBA_NUM_THREADS={os.environ.get('NUMBA_NUM_THREADS')}: Numba cannot start "
        f"({error}); unset it, or give 1 or more"
    ) from None

from bnnrun.gemm.kernel_cache import KernelCache, open_cache
from bnnrun.gemm.kernel_library import without_wrappers

__all__ = ["kernel", "njit", "prange"]

# A function that kernels call. Python does not, so no way in from there is compiled. Unless it says
# that it is not, it inherits forceinline from a function that calls it.
# Without _nrt=False each call would count references to the arrays, which the caller holds anyway,
# by atomic additions: threads contend for the counters, and in an innermost loop the counting took
# longer than the loop. A function that allocates an array needs _nrt=True.
njit = functools.partial(
    numba.njit, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=False, _nrt=False
)

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise InputError(
        "NUMBA_DISABLE_JIT=1: the kernels are vector code and cannot run as Python; unset it, or "
        "take kernel=reference, which needs no Numba"
    )

log = logging.getLogger("bnnrun.kernels")
_lock = threading.RLock()


class _State:
    """Numba's threads in this process.

    Attributes:
        layer:    the threading layer that Numba chose; "" before it did
        forked:   this process is a fork of one whose threads had begun
        get, set: the number of threads of the calling thread, once there is a layer
    """

    layer = ""
    forked = False
    get: Callable[[], int]
    set: Callable[[int], None]


def threading_layer() -> str:
    """'tbb', 'omp' or 'workqueue', started; 'none' in a fork of a process that had started one.

    Raises:
        InputError: an environment variable names a threading layer that is not available
    """
    if _State.forked:
        return "none"
    if not _State.layer:
        with _lock:
            try:
                numba.get_num_threads()
            except ValueError as error:
                raise InputError(_layer_fault(error)) from None
            # Numba's public functions take two locks in every call.
            _State.get = numba_threads._get_num_threads  # type: ignore[attr-defined]
            _State.set = numba_threads._set_num_threads  # type: ignore[attr-defined]
            _State.layer = numba.threading_layer()  # type: ignore[attr-defined]
    return _State.layer


def _layer_fault(error: ValueError) -> str:
    """The message for a fault of Numba: the environment variable to change, and how."""
    name = "NUMBA_THREADING_LAYER"
    if "PRIORITY" in str(error):
        name = "NUMBA_THREADING_LAYER_PRIORITY"
    reason = " ".join(str(error).split())
    return f"{name}={os.environ.get(name, '')}: {reason}; unset {name}, or set it to omp"


def number_of_threads(wanted: int) -> int:
    """The threads for `wanted`: 0 is the number of cores; at most Numba's own maximum."""
    return min(wanted or cores(), int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def thread_count() -> int:
    """The number of threads that kernels called from this thread run on."""
    if _State.forked:
        return 1
    if not _State.layer:
        threading_layer()
    return _State.get()


def set_threads(wanted: int) -> int:
    """Set the number of threads of kernels called from this thread; 0 is the number of cores.

    Other threads of the program keep theirs. Returns the previous number.
    """
    before, number = thread_count(), number_of_threads(wanted)
    if number != before and not _State.forked:
        _State.set(number)
    return before


class Kernel:
    """A compiled function that runs on several threads; safe to call from any thread.

    Attributes:
        function: the Python function
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self._dispatcher: Any = None
        self._run: Callable[..., Any] | None = None
        functools.update_wrapper(self, function)
        _kernels.append(self)

    def __call__(self, *args: Any) -> Any:
        if _noted.calls is not None:
            types = tuple(map(self.dispatcher.typeof_pyval, args))
            _noted.calls[Call(self, types)] = None
            return None
        return (self._run or self._prepare())(*args)

    @property
    def dispatcher(self) -> Any:
        """Numba's dispatcher of this process."""
        self._prepare()
        return self._dispatcher

    def _prepare(self) -> Callable[..., Any]:
        with _lock:
            if self._run is None:
                layer = threading_layer()
                run = self._dispatcher = self.compiled(parallel=layer != "none")
                # workqueue aborts the process if two threads call it at once.
                self._run = _one_at_a_time(run) if layer == "workqueue" else run
            return self._run

    def compiled(self, *, parallel: bool) -> Any:
        """Numba's dispatcher, with or without threads; it compiles when it is called."""
        options = {**self.options, "parallel": parallel, "no_cfunc_wrapper": True}
        dispatcher = numba.njit(**options)(self.function)
        if (cache := open_cache(self.function, options)) is not None:
            dispatcher._cache = cache
        dispatcher.compile = without_wrappers()(dispatcher.compile)
        return dispatcher

    def forget(self) -> None:
        """Compile again at the next call."""
        self._run = None


_kernels: list[Kernel] = []


@dataclass(frozen=True)
class Call:
    """A kernel and the types of its arguments, for which it is compiled."""

    kernel: Kernel
    types: tuple[Any, ...]

    def is_kept(self) -> bool:
        """Whether this process or the cache holds the compiled kernel."""
        dispatcher = self.kernel.dispatcher
        return self.types in dispatcher.overloads or (
            isinstance(dispatcher._cache, KernelCache)
            and dispatcher._cache.holds(self.types, dispatcher.targetctx.codegen())
        )

    def compile(self) -> None:
        """Compile the kernel, or load it from the cache."""
        self.kernel.dispatcher.compile(self.types)


class _Noted(threading.local):
    """The calls that this thread notes instead of making them; None: it makes them."""

    calls: dict[Call, None] | None = None


_noted = _Noted()


@contextmanager
def noted_calls() -> Iterator[dict[Call, None]]:
    """Within the block the kernels that this thread calls do not run: their calls are noted."""
    _noted.calls = {}
    try:
        yield _noted.calls
    finally:
        _noted.calls = None


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator: a function with `prange` becomes a Kernel; options as of numba.njit."""
    return lambda function: Kernel(function, options)


def cache_folder() -> str | None:
    """The folder of the compiled kernels; None if there is none."""
    cache = open_cache(cache_folder, {})
    return None if cache is None else str(cache.cache_path)


def _one_at_a_time(run: Callable[..., Any]) -> Callable[..., Any]:
    def locked(*args: Any) -> Any:
        with _lock:
            return run(*args)

    return locked


class _Compilation(event.Listener):
    """Logs which kernels are compiled, and sums the time that it takes.

    Attributes:
        count:  kernels compiled in this process; loads from the cache do not count
        time_s: the time of these compilations
    """

    def __init__(self) -> None:
        self.count, self.time_s = 0, 0.0
        self.running: list[tuple[Any, float]] = []  # under Numba's own lock

    def on_start(self, e: Any) -> None:
        dispatcher = e.data["dispatcher"]
        if self.running or not dispatcher.py_func.__module__.startswith("bnnrun."):
            return  # a function that a kernel calls is part of it
        self.running.append((dispatcher, time.perf_counter()))
        self.count += 1
        log.info("compiling %s", dispatcher.py_func.__name__)

    def on_end(self, e: Any) -> None:
        if self.running and self.running[0][0] is e.data["dispatcher"]:
            dispatcher, began = self.running.pop()
            time_s = time.perf_counter() - began
            self.time_s += time_s
            log.info("compiled %s in %.1f s", dispatcher.py_func.__name__, time_s)


compilation = _Compilation()
event.register("numba:compile", compilation)


def stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since now, without those of compilations."""
    began, compiled = time.perf_counter(), compilation.time_s
    return lambda: time.perf_counter() - began - (compilation.time_s - compiled)


def _before_fork() -> None:
    # A lock that another thread holds would stay locked in the child.
    _lock.acquire()
    global_compiler_lock.acquire()


def _after_fork() -> None:
    global_compiler_lock.release()
    _lock.release()


def _after_fork_in_child() -> None:
    _after_fork()
    try:
        numba.threading_layer()  # type: ignore[attr-defined]
    except ValueError:  # not begun yet: the child begins its own
        return
    _State.forked = True
    for each in _kernels:
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
