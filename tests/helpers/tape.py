"""CUDA graphs on the processor: what a recording sees, does and forbids, for tests.

Recording a graph runs the Python of a step once, does none of its work, and keeps each launch with
the addresses and the numbers it was given. So does a `Tape`: operations of torch and launches of an
emulated device are kept and later done again on the same tensors.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from emulated_device import EmulatedDevice
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default,
         aten.masked_select.default, aten.equal.default}  # fmt: skip


class Tape(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in WAITS, f"{func} waits for the device, which no recording may"
        kwargs = kwargs or {}
        result = func(*args, **kwargs)

        def again() -> None:
            for place, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)),
                                  strict=True):  # fmt: skip
                if isinstance(new, torch.Tensor) and new.data_ptr() != place.data_ptr():
                    place.copy_(new)

        self.entries.append(again)
        return result

    def replay(self) -> None:
        with torch.no_grad():
            for entry in self.entries:
                entry()


class TapedDevice(EmulatedDevice):
    """Its launches go to the tape that runs."""

    tape: Tape | None = None

    def launch(self, launch) -> None:
        super().launch(launch)
        if self.tape is not None:
            self.tape.entries.append(lambda: EmulatedDevice.launch(self, launch))


def put_in_place(monkeypatch, device: TapedDevice, state: Callable[[], list[torch.Tensor]]) -> None:
    """Has torch.cuda's graphs and streams be tapes; `state`: what a recording must leave alone."""

    @contextlib.contextmanager
    def graph(tape: Tape) -> Iterator[None]:
        saved = [t.clone() for t in state()]
        generator = torch.get_rng_state()
        device.tape = tape
        try:
            with tape:
                yield
        finally:
            device.tape = None
            for t, before in zip(state(), saved, strict=True):
                t.data.copy_(before)
            torch.set_rng_state(generator)

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
