"""The cache of compiled kernels: beside the package, in the user's cache, or a temporary folder.

Numba stores a compiled function in the first of its folders that can be written to, and raises an
error if there is none. Kernels work without a cache: each process then compiles them again.
"""

import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from inspect import getfile
from pathlib import Path
from typing import Any, ClassVar

from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    UserProvidedCacheLocator,
)

from bnnrun.files import private_folder

FOLDER = Path(__file__).parent  # kernels inline functions of this folder and of their own


class _TemporaryLocator(UserProvidedCacheLocator):
    """The last resort: `private_folder`."""

    def __init__(self, py_func: Any, py_file: str, folder: Path) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(folder / self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_TemporaryLocator | None":
        folder = private_folder()
        if folder is None:
            return None
        locator = cls(py_func, py_file, folder)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


class _Places(CompileResultCacheImpl):
    _locator_classes: ClassVar[list[Any]] = [  # type: ignore[misc]
        *CompileResultCacheImpl._locator_classes,
        _TemporaryLocator,
    ]


class KernelCache(FunctionCache):
    """Numba's cache of a kernel, except that a fault of the cache never fails a run.

    Numba checks only the file that defines the kernel. This cache is also stale when any file
    changed that kernels inline functions of.
    """

    _impl_class = _Places

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        super().__init__(function)
        self.options = tuple(sorted(options.items()))
        stamp = (self._impl.locator.get_source_stamp(), _digest(Path(getfile(function)).parent))
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba's key lacks the options: kernels with and without threads would be confused.
        return (*super()._index_key(sig, codegen), self.options)

    def holds(self, sig: Any, codegen: Any) -> bool:
        """Whether there is a compiled kernel of a signature, as far as the index tells."""
        try:
            return self._index_key(sig, codegen) in self._cache_file._load_index()
        except Exception:  # as below
            return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel of a signature, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # pickle and LLVM raise many types for a truncated file
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled kernel, if the disk has space."""
        try:
            super().save_overload(sig, data)
        except OSError:
            self.disable()
        except Exception:  # as above, for the index: start a new one
            with suppress(OSError):
                self.flush()
                super().save_overload(sig, data)


def open_cache(function: Callable[..., Any], options: dict[str, Any]) -> KernelCache | None:
    """The cache of a kernel; None if no folder can hold it."""
    try:
        return KernelCache(function, options)
    except (RuntimeError, OSError):  # Numba: "no locator available"
        return None


@functools.cache
def _digest(own: Path) -> str:
    """SHA-256 of all files whose functions the kernels of a folder may inline."""
    digest = hashlib.sha256()
    for path in sorted({*FOLDER.glob("*.py"), *own.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
