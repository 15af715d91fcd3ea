"""Exported C against the reference implementation: every sum and class, whatever the options."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import packed
import packed_files
import pytest
from c_program import (
    NAME,
    SANITIZED,
    STRICT,
    answers,
    assert_as_reference,
    build,
    compile_with,
    needs,
    run,
    write_sources,
)
from made_up import config
from packed_files import CONVNET, MLP, images_of
from packed_networks import BY_LAYER, MIXES, NETWORKS, model_of, packed_model

from bnnrun.architecture import Layer
from bnnrun.config import ExportLayout, Preprocessing
from bnnrun.data import load
from bnnrun.pack.convert import convert
from bnnrun.runtime.reference import ReferenceNetwork

WORD_BITS = (8, 16, 32, 64)
POPCOUNTS = ("BUILTIN", "SWAR", "LOOKUP")
IMAGES = 60


def options(bits: int, popcount: str) -> list[str]:
    prefix = NAME.upper()
    return [f"-D{prefix}_WORD_BITS={bits}", f"-D{prefix}_POPCOUNT={prefix}_{popcount}"]


@needs("gcc")
@pytest.mark.parametrize("kind", packed.KINDS)
def test_each_word_and_popcount_gives_the_references_sums(kind, tmp_path):
    """Each with each for two networks; for the others each word with one of the popcounts."""
    model = packed.random_model(3, kind)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    for i, bits in enumerate(WORD_BITS):
        some = POPCOUNTS if kind in {"mlp", "convnet, odd image"} else [POPCOUNTS[i % 3]]
        for popcount in some:
            build(tmp_path, "gcc", *STRICT, *SANITIZED, *options(bits, popcount))
            assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("architecture", [MLP, CONVNET])
@pytest.mark.parametrize("seed", range(3))
def test_thresholds_of_any_size_give_the_references_sums(architecture, seed, tmp_path):
    model = packed_files.random_model(*architecture, seed=seed)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", *STRICT, *SANITIZED)
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("bits", MIXES)
@pytest.mark.parametrize("name", ["five inputs", "one unit", "2x9", "odd, pooled to one"])
def test_more_bits_give_the_references_sums(name, bits, tmp_path):
    weight, activation = bits
    model = packed_model(
        *NETWORKS[name], weight_bits=weight, activation_bits=activation, seed=weight
    )
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", *STRICT, "-O1")
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("bits", WORD_BITS)
@pytest.mark.parametrize("popcount", POPCOUNTS)
def test_bits_of_each_layer_by_each_word_and_popcount(bits, popcount, tmp_path):
    model = packed_model(*NETWORKS["13x11"], weight_bits=BY_LAYER[0], activation_bits=BY_LAYER[1])
    pixels = images_of(model, 20)
    write_sources(tmp_path, model)
    sanitized = SANITIZED if popcount == POPCOUNTS[0] else ["-O1"]
    build(tmp_path, "gcc", *STRICT, *sanitized, *options(bits, popcount))
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("flips", ["some", "all"])
def test_codes_of_a_pooled_first_convolution(flips, tmp_path):
    """Its windows have pixels of several border classes, whose thresholds differ."""
    layers = [
        Layer("conv1", 3, 21, 3, (5, 7), pool=True, weight_bits=2, output_bits=3),
        Layer("fc1", 21 * 2 * 3, 10, last=True, weight_bits=3, input_bits=3),
    ]
    model = model_of(layers, (3, 5, 7), flips=flips)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", *STRICT, *SANITIZED)
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
def test_double_and_integer_scores_of_more_bits(tmp_path):
    model = packed.random_model(3, "convnet, odd image", bits=packed.bits_of(2, 3))
    pixels = images_of(model, IMAGES)
    expected = ReferenceNetwork(model).scores(pixels)
    write_sources(tmp_path, model)
    assert wrong_images(tmp_path) == 0
    build(tmp_path, "gcc", *STRICT, "-O1")
    for ours, theirs in zip(answers(tmp_path, pixels).scores, expected, strict=True):
        np.testing.assert_array_equal(
            np.sign(ours[:, None] - ours), np.sign(theirs[:, None] - theirs)
        )
    build(tmp_path, "gcc", *STRICT, "-O1", "-DNET_DOUBLE_SCORES", "-DDOUBLE_SCORES")
    np.testing.assert_array_equal(answers(tmp_path, pixels).scores, expected)


@needs("gcc")
@pytest.mark.parametrize(
    ("pattern", "replaced"),
    [
        (r"if \(code > before\)", "code |= before;"),
        (r"unit - \(int32_t\)count", "unit + 1 - (int32_t)count"),
        (r"<< \(i \+ j\)", "<< (i * j)"),
        (r"const unsigned top = y == 0,", "const unsigned top = 0,"),
        (r"outputs \* FIRST_LEVELS", "outputs"),
    ],
)
def test_a_wrong_generator_of_more_bits_is_caught(pattern, replaced, tmp_path):
    model = packed.random_model(8, "convnet, odd image", bits=packed.bits_of(2, 2))
    pixels = images_of(model, 400)
    write_sources(tmp_path, model)
    source = tmp_path / f"{NAME}.c"
    text, count = re.subn(pattern, replaced, source.read_text(), count=1)
    assert count == 1
    source.write_text(text)
    build(tmp_path, "gcc", "-O1", "-w")
    with pytest.raises(AssertionError):
        assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
def test_standardized_pixels(tmp_path):
    model = packed.random_model(5, "convnet, odd image", Preprocessing.standardize)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", *STRICT, *SANITIZED)
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("run_of", ["mlp", "convnet", "shift"])
def test_every_digit(run_of, runs_dir, tmp_path):
    """As a user compiles it: no flag but the optimization's."""
    model = convert(runs_dir / run_of / "best.pt")
    digits = load(config("digits"))
    pixels = np.concatenate([part.pixels for part in (digits.train, digits.valid, digits.test)])
    assert len(pixels) == 1797
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", "-O2")
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("clang")
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
def test_clang(kind, tmp_path):
    model = packed.random_model(4, kind)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "clang", *STRICT, *SANITIZED)
    assert_as_reference(model, pixels, answers(tmp_path, pixels))


@needs("gcc")
@pytest.mark.parametrize("compiler", ["gcc", pytest.param("clang", marks=needs("clang"))])
def test_double_scores_are_the_packed_networks_to_the_last_bit(compiler, tmp_path):
    model = packed.random_model(4, "convnet, odd image")
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, compiler, *STRICT, *SANITIZED, "-DNET_DOUBLE_SCORES", "-DDOUBLE_SCORES")
    computed = answers(tmp_path, pixels)
    np.testing.assert_array_equal(computed.scores, ReferenceNetwork(model).scores(pixels))


@needs("gcc")
@pytest.mark.parametrize("kind", packed.KINDS)
def test_integer_scores_are_affine_and_order_the_classes(kind, tmp_path):
    model = packed.random_model(6, kind)
    pixels = images_of(model, IMAGES)
    write_sources(tmp_path, model)
    build(tmp_path, "gcc", "-O1")
    computed, expected = answers(tmp_path, pixels), ReferenceNetwork(model).scores(pixels)
    for ours, theirs in zip(computed.scores, expected, strict=True):
        np.testing.assert_array_equal(
            np.sign(ours[:, None] - ours), np.sign(theirs[:, None] - theirs)
        )


@needs("gcc", "nm")
@pytest.mark.parametrize("popcount", POPCOUNTS)
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
def test_it_needs_no_library(kind, popcount, tmp_path):
    """Freestanding: only what compilers themselves call remains undefined."""
    write_sources(tmp_path, packed.random_model(2, kind))
    compile_with(tmp_path, "gcc", *STRICT, "-ffreestanding", "-O2", *options(64, popcount), "-c",
                 f"{NAME}.c", "-o", "net.o")  # fmt: skip
    shown = run(["nm", "-u", "net.o"], tmp_path).stdout.split()
    assert set(shown) - {"U"} <= {"memcpy", "memset", "__popcountdi2"}
    shown = run(["nm", "-g", "--defined-only", "net.o"], tmp_path).stdout.split("\n")
    names = {line.split()[2] for line in shown if line}
    assert names == {f"{NAME}_predict", f"{NAME}_sums", f"{NAME}_class_names"}
    includes = re.findall(r"#include (\S+)", (tmp_path / f"{NAME}.c").read_text())
    includes += re.findall(r"#include (\S+)", (tmp_path / f"{NAME}.h").read_text())
    assert set(includes) == {f'"{NAME}.h"', "<stdint.h>", "<avr/pgmspace.h>"}


@needs("gcc", "g++")
def test_the_header_serves_c_plus_plus(tmp_path):
    write_sources(tmp_path, packed.random_model(2, "mlp"))
    (tmp_path / "main.cpp").write_text(
        f'#include "{NAME}.h"\n#include <cstdio>\n'
        f"int main() {{ std::puts({NAME}_class_names[NET_CLASSES - 1]); return 0; }}\n"
    )
    compile_with(tmp_path, "gcc", *STRICT, "-c", f"{NAME}.c")
    compile_with(tmp_path, "g++", "-Wall", "-Wextra", "-Werror", "main.cpp", f"{NAME}.o", "-o", "p")
    assert run(["./p"], tmp_path).stdout == "9\n"


def wrong_images(folder: Path) -> int:
    """Build NAME_test.c and run it: the number of images that it finds wrong."""
    compile_with(folder, "gcc", *STRICT, f"{NAME}_test.c", f"{NAME}.c", "-o", "own_test")
    return run(["./own_test"], folder).returncode


@needs("gcc")
@pytest.mark.parametrize("kind", packed.KINDS)
def test_its_own_test_passes(kind, tmp_path):
    write_sources(tmp_path, packed.random_model(7, kind))
    assert wrong_images(tmp_path) == 0


# What a wrong generator would write: the pattern of a correct line, and what stands in its place.
MUTATIONS = {
    "threshold off by one": (r"(conv2_thresholds\[\d+\] NET_TABLE = \{\n +)(-?\d+)",
                             lambda m: f"{m[1]}{int(m[2]) - 1}"),
    "threshold of the first layer off by one": (
        r"(conv1_thresholds\[[^]]+\] NET_TABLE = \{\n +)(-?\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}"
    ),
    "border classes swapped": (r"\(x == 0 \? 1u : 0u\)", lambda m: "(x == 0 ? 2u : 0u)"),
    "border row as the inner ones": (r"\(y == 0 \? 4u : 0u\)", lambda m: "0u"),
    "channels in another order": (r"image \+ channel \* height \* width",
                                  lambda m: "image + (channels - 1 - channel) * height * width"),
    "padding as bits": (r"const unsigned top = y == 0,", lambda m: "const unsigned top = 0,"),
    "a tap too few": (r"unsigned runs = bottom - top", lambda m: "unsigned runs = 1"),
    "pooling of one in four": (r"(?s)(static void conv\(.*?)i < window \* window",
                               lambda m: f"{m[1]}i < 1"),
    "a turned weight": (r"(output_weights\[[^]]+\] NET_TABLE = \{\n +B\d\(\w*)(\w)\)",
                        lambda m: f"{m[1]}{int(m[2], 16) ^ 1:x})"),
    "the last of equal scores": (r"score > largest", lambda m: "score >= largest"),
}  # fmt: skip


@needs("gcc")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_generator_is_caught(mutation, tmp_path):
    model = packed.random_model(8, "convnet, odd image")
    last = model.layers[-1]
    # Two classes alike in all: their scores are equal for every image.
    alike = {part: getattr(last, part)[[0, 0, 2]] for part in ("mean", "scale", "shift")}
    alike["weight"] = last.weight[:, [0, 0, 2]]
    last = dataclasses.replace(last, **alike)
    model = dataclasses.replace(model, layers=(*model.layers[:-1], last))
    pixels = images_of(model, 400)
    write_sources(tmp_path, model)
    source = tmp_path / f"{NAME}.c"
    pattern, replaced = MUTATIONS[mutation]
    text, count = re.subn(pattern, replaced, source.read_text(), count=1)
    assert count == 1
    source.write_text(text)
    build(tmp_path, "gcc", "-O1", "-w")
    with pytest.raises(AssertionError):
        assert_as_reference(model, pixels, answers(tmp_path, pixels))
    if mutation == "a turned weight":  # which any image shows
        assert wrong_images(tmp_path) == 5


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_sources(tmp_path / folder, packed.random_model(1, "convnet"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@needs("gcc")
def test_arduino_layout(tmp_path):
    write_sources(tmp_path, packed.random_model(1, "mlp"), ExportLayout.arduino)
    properties = (tmp_path / "library.properties").read_text().splitlines()
    assert {"name=net", "includes=net.h", "architectures=*"} <= set(properties)
    assert (tmp_path / "examples" / "net_example" / "net_example.ino").is_file()
    compile_with(tmp_path, "gcc", *STRICT, "-Isrc", "src/net.c", "extras/net_test.c", "-o", "t")
    assert run(["./t"], tmp_path).returncode == 0
