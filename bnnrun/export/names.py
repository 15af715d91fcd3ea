"""Names of exported functions and files."""

import re
from pathlib import Path

from bnnrun.errors import InputError
from bnnrun.runtime.file import NAME
from bnnrun.runtime.model import PackedModel

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LONGEST = 48  # C99 guarantees 63 significant characters; suffixes take the rest
# C99, and what C++ adds, for the header serves both.
_KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while alignas alignof and and_eq asm bitand bitor bool catch class compl
    concept consteval constexpr constinit const_cast co_await co_return co_yield decltype delete
    dynamic_cast explicit export false friend mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private protected public reinterpret_cast requires static_assert static_cast
    template this thread_local throw true try typeid typename using virtual wchar_t xor xor_eq
    """.split()  # noqa: SIM905
)


def default_name(path: Path, model: PackedModel) -> str:
    """A C identifier after the packed file, or after its folder where it is `model.safetensors`."""
    text = path.resolve().parent.name if path.name == NAME else path.stem
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST].rstrip("_")
    if not name or not name[0].isalpha():  # a run folder that is named after its time
        dataset = re.sub(r"[^A-Za-z0-9]+", "_", model.source.get("dataset", "")).strip("_")
        name = dataset if _IDENTIFIER.fullmatch(dataset) else "bnn"
    return f"{name}_bnn" if name in _KEYWORDS else name


def check_identifier(name: str) -> None:
    """InputError where `name` cannot begin the names of C functions, types and macros."""
    if not _IDENTIFIER.fullmatch(name) or name in _KEYWORDS or len(name) > _LONGEST:
        raise InputError(
            f"name={name}: expected a C identifier of at most {_LONGEST} characters: letters, "
            "digits and _, the first a letter, no keyword of C or C++"
        )
