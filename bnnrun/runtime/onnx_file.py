"""An ONNX file that `bnnrun export` wrote, run by ONNX Runtime on the processor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.data.dataset import ImageSpec
from bnnrun.errors import InputError
from bnnrun.machine import cores
from bnnrun.runtime.classifier import ImageClassifier
from bnnrun.runtime.file import source_of, spec_of

SUFFIX = ".onnx"
FORMAT, VERSION = "bnnrun-onnx", 1  # in the file's metadata
IMAGE, SCORES, CLASS = "image", "scores", "class"  # input and outputs of the graph
CHUNK = 100  # images of a run: the activations of a convolution are floats


class OnnxClassifier(ImageClassifier):
    """An exported ONNX file as a classifier of images.

    Not for a process that was forked from one that has loaded it: ONNX Runtime's threads are gone.

    Attributes:
        packed_sha256: of the packed file that it was exported from
        version:       of ONNX Runtime
    """

    form = "onnx"

    def __init__(self, path: Path, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise InputError(
                f"{path}: ONNX Runtime is not installed; `pip install 'bnnrun[onnx]'`"
            ) from None
        threads = threads or cores()
        self.version: str = onnxruntime.__version__
        self._session = _session(path, threads, onnxruntime)
        spec, source, self.packed_sha256 = _metadata(path, self._session)
        super().__init__(spec, source, threads)

    @property
    def runtime(self) -> str:
        return f"ONNX Runtime {self.version}"

    def described(self) -> dict[str, Any]:
        return {
            "runtime": "ONNX Runtime",
            "runtime_version": self.version,
            "packed_sha256": self.packed_sha256,
        }

    def _scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        out = np.empty((len(pixels), len(self.classes)))
        for start in range(0, len(pixels), CHUNK):
            part = np.ascontiguousarray(pixels[start : start + CHUNK])
            out[start : start + len(part)] = self._session.run([SCORES], {IMAGE: part})[0]
        return out


def _session(path: Path, threads: int, onnxruntime: Any) -> Any:
    """A session of ONNX Runtime; InputError where it cannot load the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; `bnnrun export format=onnx` makes one")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common but this
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: no ONNX file that ONNX Runtime runs, or cut short or altered ({reason})"
        ) from None


def _metadata(path: Path, session: Any) -> tuple[ImageSpec, dict[str, str], str]:
    """(spec, source, packed_sha256) of the metadata; InputError where they are none of ours."""
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: an ONNX file, but not of `bnnrun export format=onnx`")
    if metadata.get("version") != str(VERSION):
        raise InputError(
            f"{path}: exported form {metadata.get('version', '')[:20]!r}, "
            f"this version reads {VERSION}: update bnnrun"
        )
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    try:
        spec = spec_of(
            shapes[IMAGE][1:], json.loads(metadata["classes"]), json.loads(metadata["max_pixel"])
        )
        if shapes[SCORES][1:] != [len(spec.classes)]:
            raise ValueError(f"{len(spec.classes)} classes, scores of shape {shapes[SCORES]}")
        return spec, source_of(json.loads(metadata["source"])), metadata["packed_sha256"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: altered: its metadata do not fit it ({error!r})") from None
