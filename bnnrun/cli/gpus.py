"""GPUs of this machine, and one of them for each process of a sweep."""

import os
import time
from contextlib import ExitStack, suppress
from functools import cache

from bnnrun.files import private_folder
from bnnrun.lock import HeldError, locked

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held = ExitStack()  # until the process ends


def visible() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; asking initializes none."""
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get(VISIBLE)
    return named.split(",")[:number] if named else [str(i) for i in range(number)]


@cache
def take_one() -> None:
    """Where there are several, make one of them the only one that this process sees.

    It is held by a lock until the process ends; where all are held, wait for one.
    """
    names, places = visible(), private_folder()
    if len(names) < 2 or places is None:
        return
    while True:
        for name in names:
            with suppress(HeldError):
                _held.enter_context(locked(places / f"gpu-{name}"))
                os.environ[VISIBLE] = name
                return
        time.sleep(1)
