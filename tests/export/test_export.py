"""`bnnrun export` on the command line: names, places, refusals."""

import pytest
from digit_runs import assert_refused


def test_the_default_name_is_the_runs_and_the_files_lie_beside_the_model(here, tmp_path):
    shown = here("export", "model=mlp")
    assert shown.status == 0, shown.err
    folder = tmp_path / "mlp" / "mlp_c"
    assert {p.name for p in folder.iterdir()} == {"mlp.h", "mlp.c", "mlp_test.c"}
    assert "mlp_c/mlp.h: " in shown.out
    assert "XOR + popcount" in shown.out
    text = (folder / "mlp.h").read_text()
    assert "int mlp_predict(const uint8_t *image, mlp_score_t *scores, void *scratch);" in text
    assert "#define MLP_IMAGE_BYTES 64" in text
    assert "dataset: digits" in text


def test_a_file_gives_its_own_name(bnnrun, saved, tmp_path):
    saved.rename(tmp_path / "2 café-nets.safetensors")
    shown = bnnrun("export", "model=2 café-nets.safetensors")
    assert shown.status == 0, shown.err
    assert (tmp_path / "made_up_c" / "made_up.c").is_file()  # after the data set


def test_a_name_and_a_place(bnnrun, saved, tmp_path):
    shown = bnnrun("export", "model=model.safetensors", "name=Digits", "out=fw")
    assert shown.status == 0, shown.err
    assert "int Digits_predict(" in (tmp_path / "fw" / "Digits.h").read_text()
    assert "#define DIGITS_CLASSES 3" in (tmp_path / "fw" / "Digits.h").read_text()


def test_nothing_is_overwritten_unasked(bnnrun, saved, tmp_path):
    words = ("export", "model=model.safetensors", "name=net", "out=fw")
    assert bnnrun(*words).status == 0
    header = tmp_path / "fw" / "net.h"
    header.write_text("mine")
    assert_refused(bnnrun(*words), "fw/net.h", "overwrite=true")
    assert header.read_text() == "mine"
    assert bnnrun(*words, "overwrite=true").status == 0
    assert header.read_text() != "mine"


@pytest.mark.parametrize(
    "name", ["2nd", "my-net", "ünet", "while", "class", "_net", "a" * 60, "a b"]
)
def test_a_name_that_is_no_identifier_is_refused(name, bnnrun, saved, tmp_path):
    shown = bnnrun("export", "model=model.safetensors", f"name='{name}'", "out=fw")
    assert_refused(shown, f"name={name}", "C identifier")
    assert not (tmp_path / "fw").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("model=none.safetensors",), ("none.safetensors", "no such file")),
        ((), ("model: not given",)),
        (("model=model.safetensors", "format=tflite"), ("format", "tflite", "onnx")),
        (
            ("model=model.safetensors", "layout=arduino", "format=onnx"),
            ("layout=arduino", "format=c"),
        ),
    ],
)
def test_wrong_words(words, named, bnnrun, saved):
    assert_refused(bnnrun("export", *words), *named)


def test_out_that_is_a_file(bnnrun, saved, tmp_path):
    (tmp_path / "fw").write_text("a file")
    shown = bnnrun("export", "model=model.safetensors", "name=net", "out=fw")
    assert shown.status != 0
    assert len(shown.err.splitlines()) == 1 and "fw" in shown.err
    assert (tmp_path / "fw").read_text() == "a file"
