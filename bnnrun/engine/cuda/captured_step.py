"""A training step on a GPU as one CUDA graph: all its launches captured, then launched at once.

A step of a small network is some hundred launches of a few microseconds each, which Python is not
fast enough to feed to a GPU.
"""

from collections.abc import Callable

import torch

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

WARM = 3  # steps before the capture: libraries choose and set up, the optimizer makes its state


class CapturedStep:
    """`work`, which takes pixels and labels and returns the loss, captured after WARM steps.

    What is captured works on the same memory each time: pixels and labels are copied to their
    place, the loss is in its own, valid until the next step. It may wait for nothing, and all that
    differs from step to step must lie on the device. Nothing but `work` may change the weights from
    the first step on.

    Attributes:
        mode: "CUDA graph" or "eager", with the reason where the capture failed
    """

    def __init__(self, work: Step, undo: Callable[[], None]) -> None:
        """`undo` is called where the capture fails: `work` marked signs fresh, but nothing ran."""
        self.work, self.undo = work, undo
        self.mode = "eager"
        self.runs = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.may_capture = True
        self.inputs: tuple[torch.Tensor, ...] = ()
        self.loss: torch.Tensor | None = None

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One step; the loss, a scalar on the device."""
        if self.graph is None and self.may_capture and self.runs >= WARM:
            self._capture(pixels, labels)
        if self.graph is None:
            self.runs += 1
            return self._run_eagerly(pixels, labels)
        for place, t in zip(self.inputs, (pixels, labels), strict=True):
            place.copy_(t)
        self.graph.replay()
        assert self.loss is not None
        return self.loss

    def _run_eagerly(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """On another stream than the usual one, as the capture will be."""
        stream, usual = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):
            loss = self.work(pixels, labels)
        usual.wait_stream(stream)
        return loss

    def _capture(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.may_capture = False
        self.inputs = pixels.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.loss = self.work(*self.inputs)
        except RuntimeError as error:
            self.mode = f"eager: {str(error).splitlines()[0]}"
            self.undo()
            return
        self.graph, self.mode = graph, "CUDA graph"
