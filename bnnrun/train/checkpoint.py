"""Checkpoints: plain tensors, numbers and strings in PyTorch's own format, checked when read.

A run folder holds two. `checkpoint.pt` is the state at the end of the latest epoch (or at the
step where the run was stopped); `best.pt` is the network of the epoch picked by validation.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch

from bnnrun import upgrade
from bnnrun.errors import InputError
from bnnrun.files import write_atomically
from bnnrun.train import BEST, STATE

__all__ = ["BEST", "STATE", "load", "save"]
FORMAT = 2  # 1 also held the state of torch's generators, from which dropout was sampled
READ = 1, 2


def save(path: Path, kind: str, state: dict[str, Any]) -> None:
    """Write a state beside `path` and rename it, so that the last good one survives a failure."""
    content = {"format": FORMAT, "kind": kind, **state}
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: Path, *kinds: str) -> dict[str, Any]:
    """Read a state, of one of the kinds, back onto the CPU.

    Raises:
        InputError: the file is absent, cut short, altered (by the CRC of each part), of another
            kind or of a newer format
    """
    kind = " or ".join(kinds)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected a {kind} file")
    if not path.exists():
        raise InputError(f"{path}: no such {kind}; name the folder of a run that has one")
    try:
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()
        if broken is not None:
            raise InputError(f"{path}: damaged {kind}: {broken} does not have its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a whole {kind} ({str(error).splitlines()[0]})") from None
    except Exception as error:
        # torch.load raises pickle.UnpicklingError, and whatever a foreign pickle makes it raise.
        raise InputError(f"{path}: not a {kind} of bnnrun ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("kind") not in kinds:
        raise InputError(f"{path}: not a {kind} of bnnrun")
    if content["format"] not in READ:
        raise InputError(f"{path}: {kind} of format {content['format']}, expected {FORMAT}")
    return {**content, "config": upgrade.config(content["config"])}
