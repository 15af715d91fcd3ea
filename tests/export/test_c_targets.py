"""Exported C on other processors, emulated: a Cortex-M3, a big-endian one, an AVR."""

import packed
import pytest
from c_program import (
    NAME,
    STRICT,
    C,
    answers,
    assert_as_reference,
    build,
    compile_with,
    needs,
    run,
    write_sources,
)
from made_up import config
from packed_files import images_of

from bnnrun.data import load
from bnnrun.pack.convert import convert

CORTEX_M3 = (
    *STRICT, "-mcpu=cortex-m3", "-mthumb", "-Os", "--specs=rdimon.specs", "-nostartfiles",
    f"-T{C / 'mps2.ld'}", C / "mps2.c",
)  # fmt: skip
QEMU_M3 = (
    "qemu-system-arm", "-M", "mps2-an385", "-display", "none", "-monitor", "none",
    "-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel",
)  # fmt: skip
AVR = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Os", "-mmcu=atmega2560")


@needs("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("run_of", ["mlp", "convnet"])
def test_every_digit_on_a_cortex_m3(run_of, runs_dir, tmp_path):
    model, pixels = convert(runs_dir / run_of / "best.pt"), load(config("digits")).test.pixels
    write_sources(tmp_path, model)
    build(tmp_path, "arm-none-eabi-gcc", *CORTEX_M3)
    assert_as_reference(model, pixels, answers(tmp_path, pixels, *QEMU_M3))


@needs("s390x-linux-gnu-gcc", "qemu-s390x")
@pytest.mark.parametrize("bits", [8, 32, 64])
@pytest.mark.parametrize("kind", ["mlp", "convnet, odd image"])
def test_a_big_endian_processor(kind, bits, tmp_path):
    model = packed.random_model(3, kind)
    pixels = images_of(model, 60)
    write_sources(tmp_path, model)
    build(tmp_path, "s390x-linux-gnu-gcc", *STRICT, "-O2", "-static", f"-DNET_WORD_BITS={bits}")
    assert_as_reference(model, pixels, answers(tmp_path, pixels, "qemu-s390x"))


@needs("avr-gcc", "simavr")
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
def test_an_avr_with_its_tables_in_program_memory(kind, tmp_path):
    write_sources(tmp_path, packed.random_model(3, kind))
    compile_with(tmp_path, "avr-gcc", *AVR, "-Dmain=network_test", "-DNET_TEST_SILENT", "-c",
                 f"{NAME}_test.c", f"{NAME}.c")  # fmt: skip
    compile_with(
        tmp_path, "avr-gcc", *AVR, C / "avr.c", f"{NAME}_test.o", f"{NAME}.o", "-o", "t.elf"
    )
    shown = run(["simavr", "-m", "atmega2560", "-f", "16000000", "t.elf"], tmp_path)
    assert "W0" in shown.stdout + shown.stderr
    (data,) = (line.split()[1] for line in run(["avr-size", "-A", "t.elf"], tmp_path)
               .stdout.splitlines() if line.startswith(".data"))  # fmt: skip
    assert int(data) < 2000  # the vectors' sums and the names of classes: no table of the network
