"""A training step on a GPU as one CUDA graph: all its launches recorded, then launched at once.

A step of a small network is some hundred launches of a few microseconds each, which Python is not
fast enough to feed to a GPU.
"""

from collections.abc import Callable

import torch

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

WARM = 3  # steps before the recording: libraries choose and set up, the optimizer makes its state


class RecordedStep:
    """`work`, which takes pixels and labels and returns the loss, recorded after WARM steps.

    What is recorded works on the same memory each time: pixels and labels are copied to their
    place, the loss is in its own, valid until the next step. It may wait for nothing and must draw
    random numbers from torch's generators, which count on as if each step were launched anew.
    Nothing but `work` may change the weights from the first step on.

    Attributes:
        how: "CUDA graph" or "eager", with the reason where a recording failed
    """

    def __init__(self, work: Step, undo: Callable[[], None]) -> None:
        """`undo` is called where the recording fails: it may forget what `work` has noted."""
        self.work, self.undo = work, undo
        self.how = "eager"
        self.runs = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.tries = True
        self.given: tuple[torch.Tensor, ...] = ()
        self.loss: torch.Tensor | None = None

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One step; the loss, a scalar on the device."""
        if self.graph is None and self.tries and self.runs >= WARM:
            self._record(pixels, labels)
        if self.graph is None:
            self.runs += 1
            return self._beside(pixels, labels)
        for place, t in zip(self.given, (pixels, labels), strict=True):
            place.copy_(t)
        self.graph.replay()
        assert self.loss is not None
        return self.loss

    def _beside(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """On another stream than the usual one, as the recording will be."""
        stream, usual = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):
            loss = self.work(pixels, labels)
        usual.wait_stream(stream)
        return loss

    def _record(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.tries = False
        self.given = pixels.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.loss = self.work(*self.given)
        except RuntimeError as error:
            self.how = f"eager: {str(error).splitlines()[0]}"
            self.undo()
            return
        self.graph, self.how = graph, "CUDA graph"
