"""Which XNOR kernel a device gets: by its compute capability, and by what came of a trial."""

import numpy as np
import pytest
from emulated_device import EmulatedDevice

from bnnrun.gemm import dispatch
from bnnrun.gemm.dispatch import RIGHT, products, variants

HOPPER = (9, 0)
ALL = ("xnor_gemm", "xnor_gemm_mma", "xnor_gemm_wgmma")


class Tried(EmulatedDevice):
    """Counts the launches of the kernel that is tried, and does to them what `after` says."""

    def __init__(self, after=lambda launch: None, cache=None):
        super().__init__(HOPPER)
        self.after, self.cache, self.trials = after, cache, 0

    def launch(self, launch):
        super().launch(launch)
        if launch.kernel == dispatch.TRIAL_KERNEL:
            self.trials += 1
            self.after(launch)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(dispatch, "_verdicts", {})
    monkeypatch.setattr(dispatch, "TRIAL_SHAPES", dispatch.TRIAL_SHAPES[:2])


@pytest.mark.parametrize(
    ("capability", "kernels"),
    [
        ((7, 0), ALL[:1]),
        ((7, 5), ALL[:1]),
        ((8, 0), ALL[:2]),
        ((8, 9), ALL[:2]),
        (HOPPER, ALL),
        ((10, 0), ALL[:1]),
        ((12, 0), ALL[:1]),
    ],
)
def test_tensor_cores_are_used_where_they_count_bits(capability, kernels):
    device = EmulatedDevice(capability)
    assert variants(device) == kernels
    assert products(device).kernel == kernels[-1]
    assert products(device, "xnor_gemm").kernel == "xnor_gemm"


def test_what_was_seen_to_work_is_tried_once_a_process(capsys):
    device = Tried()
    assert products(device).kernel == ALL[2]
    trials = device.trials
    assert trials == 4 * len(dispatch.TRIAL_SHAPES)
    assert products(device).kernel == ALL[2]
    assert device.trials == trials
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("output", ["INT32", "INT16", "FLOAT32", "BITS", "ones"])
def test_a_wrong_answer_sends_to_the_next_kernel(capsys, output):
    """One element in the last of the shapes."""

    def one_off(launch):
        if dict(launch.defines)["OUT"] == ("BITS" if output == "ones" else output):
            written = launch.arguments[3 if output == "ones" else 2]
            if len(written) > 1:
                written.flat[-1] += 1

    device = Tried(one_off)
    assert products(device).kernel == ALL[1]
    assert products(device).kernel == ALL[1]
    what = "bits" if output == "ones" else output.lower()
    assert capsys.readouterr().err == (
        "bnnrun: xnor_gemm_wgmma is not used: a product of (129, 257, 1025) has a wrong answer as "
        f"{what}\n"
    )


def test_an_error_sends_to_the_next_kernel(capsys):
    def fails(launch):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_INSTRUCTION:\nan illegal instruction")

    assert products(Tried(fails)).kernel == ALL[1]
    assert capsys.readouterr().err == (
        "bnnrun: xnor_gemm_wgmma is not used: RuntimeError: CUDA_ERROR_ILLEGAL_INSTRUCTION: an "
        "illegal instruction\n"
    )


def next_process(monkeypatch):
    monkeypatch.setattr(dispatch, "_verdicts", {})


def test_the_next_process_reads_what_was_found(tmp_path, monkeypatch, capsys):
    assert variants(Tried(cache=tmp_path / "new")) == ALL
    next_process(monkeypatch)
    device = Tried(cache=tmp_path / "new")
    assert variants(device) == ALL
    assert device.trials == 0
    (note,) = (tmp_path / "new").iterdir()
    assert note.read_text() == f"{RIGHT}\n"

    note.write_text("a wrong answer\n")
    next_process(monkeypatch)
    assert variants(device) == ALL[:2]
    assert capsys.readouterr().err == (
        f"bnnrun: xnor_gemm_wgmma is not used: a wrong answer; without {note} it is tried again\n"
    )


def test_an_attempt_that_did_not_come_back_is_not_repeated(tmp_path, monkeypatch, capsys):
    class Gone(BaseException):
        pass

    def ends(launch):
        raise Gone

    with pytest.raises(Gone):
        variants(Tried(ends, tmp_path))
    next_process(monkeypatch)
    device = Tried(cache=tmp_path)
    assert variants(device) == ALL[:2]
    assert device.trials == 0
    assert "not used: an earlier attempt did not come back; without" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["text", "compiler"])
def test_another_text_or_compiler_is_tried_anew(tmp_path, monkeypatch, what):
    variants(Tried(cache=tmp_path))
    device = Tried(cache=tmp_path)
    if what == "text":
        monkeypatch.setattr(dispatch, "source", lambda name: "another")
    else:
        monkeypatch.setattr(device, "describe", lambda: {"nvrtc": "13.3"})
    assert variants(device) == ALL
    assert device.trials > 0


def test_where_nothing_can_be_kept_each_process_tries(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        next_process(monkeypatch)
        device = Tried(cache=tmp_path / "file" / "below")
        assert variants(device) == ALL
        assert device.trials > 0


def test_what_is_tried_fills_every_buffer_and_passes_every_edge(monkeypatch):
    monkeypatch.undo()
    m, n, k = np.max(dispatch.TRIAL_SHAPES, axis=0)
    of = dispatch.VARIANTS[dispatch.TRIAL_KERNEL]
    assert m > 2 * 128 and n > 2 * of.columns and k > 2 * of.stages * 1024
