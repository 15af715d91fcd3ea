"""Bytes of a compiled network, where a cross compiler for small devices is at hand."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# (compiler, its size command, flags of a common small device)
_TARGETS = (
    ("arm-none-eabi-gcc", "arm-none-eabi-size", ["-mcpu=cortex-m3", "-mthumb"]),
    ("riscv64-unknown-elf-gcc", "riscv64-unknown-elf-size", ["-march=rv32imac", "-mabi=ilp32"]),
)
_SECTIONS = (".text", ".rodata", ".data", ".bss")
_TIME_S = 120


def compiled_sizes(header: str, source: str, name: str) -> list[str]:
    """A line for each cross compiler: the bytes of each section of the network's object file."""
    lines = []
    for compiler, size, target in _TARGETS:
        if shutil.which(compiler) and shutil.which(size):
            flags = ["-Os", *target]
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                (place / f"{name}.h").write_text(header, encoding="utf-8")
                (place / f"{name}.c").write_text(source, encoding="utf-8")
                sections = _sections(place, name, [compiler, *flags], size)
            lines.append(f"{compiler} {' '.join(flags)}: {sections}")
    return lines


def _sections(place: Path, name: str, compiler: list[str], size: str) -> str:
    """'.text 1,020, .rodata 34,112, .data 0, .bss 0 bytes', or why there are none."""
    build = [*compiler, "-std=c99", "-ffreestanding", "-c", f"{name}.c", "-o", "network.o"]
    try:
        subprocess.run(build, cwd=place, check=True, capture_output=True, text=True,
                       timeout=_TIME_S)  # fmt: skip
        shown = subprocess.run([size, "-A", "network.o"], cwd=place, check=True,
                               capture_output=True, text=True, timeout=_TIME_S)  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        output = str(getattr(error, "stderr", "") or error).strip()
        return f"failed: {(output.splitlines() or ['no output'])[0]}"
    counts = dict.fromkeys(_SECTIONS, 0)
    for section, count in re.findall(r"^(\.\w+)\S*\s+(\d+)", shown.stdout, re.MULTILINE):
        if section in counts:
            counts[section] += int(count)
    return ", ".join(f"{section} {count:,}" for section, count in counts.items()) + " bytes"
