"""Packed files damaged in thousands of ways: refused, or still the same network."""

import json
import struct

import numpy as np
import pytest
from packed_files import CONVNET, MLP, images_of, random_model

from bnnrun.errors import InputError
from bnnrun.runtime import file
from bnnrun.runtime.reference import ReferenceNetwork


def split(content: bytes) -> tuple[str, bytes]:
    """(header, data) of a safetensors file."""
    (size,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + size].decode(), content[8 + size :]


def joined(header: str, data: bytes) -> bytes:
    encoded = header.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def flip_bits(rng, content):
    changed = np.frombuffer(content, np.uint8).copy()
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return changed.tobytes()


def set_bytes(rng, content):
    at, size = rng.integers(len(content)), rng.integers(1, 9)
    return content[:at] + rng.bytes(size) + content[at + size :]


def delete(rng, content):
    at, size = rng.integers(len(content)), rng.integers(1, 17)
    return content[:at] + content[at + size :]


def insert(rng, content):
    at, size = rng.integers(len(content) + 1), rng.integers(1, 17)
    return content[:at] + rng.bytes(size) + content[at:]


def truncate(rng, content):
    return content[: rng.integers(len(content))]


def duplicate(rng, content):
    a, b = sorted(rng.integers(len(content), size=2))
    return content[:b] + content[a:]


def edit_length(rng, content):
    sizes = [0, 1, 7, 8, len(content) - 8, len(content), 2**31, 2**63, 2**64 - 1]
    size = sizes[rng.integers(len(sizes))]
    if rng.random() < 0.5:
        size = max(0, struct.unpack("<Q", content[:8])[0] + int(rng.integers(-20, 21)))
    return struct.pack("<Q", size) + content[8:]


def edit_header_text(rng, content):
    """A few characters of the header, its length put right."""
    header, data = split(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(header)))
        new = rng.choice(list('0123456789{}[]",:\\ abcdefUIF-.eE'), int(rng.integers(0, 3)))
        header = header[:at] + "".join(new) + header[at + int(rng.integers(0, 3)) :]
    return joined(header, data)


def edit_header(rng, content):
    """An entry of the header: type, shape, place, name; or whitespace and order alone."""
    text_, data = split(content)
    header = json.loads(text_)
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names, 2)
    entry = header[name]
    kind = int(rng.integers(12))
    if kind == 0:
        entry["dtype"] = str(
            rng.choice(["U8", "I32", "F32", "U32", "BF16", "F8_E4M3", "BOOL", "X"])
        )
    elif kind == 1:
        entry["shape"] = entry["shape"][::-1] + [1] * int(rng.integers(2))
    elif kind == 2:
        at = int(rng.integers(2))
        entry["data_offsets"][at] += int(rng.choice([-8, -4, -1, 1, 4, 8, 2**40, -(2**40)]))
    elif kind == 3:
        header[name]["data_offsets"], header[other]["data_offsets"] = (
            header[other]["data_offsets"], entry["data_offsets"],
        )  # fmt: skip
    elif kind == 4:
        header[name], header[other] = header[other], header[name]
    elif kind == 5:
        del header[name]
    elif kind == 6:
        header[name + "x"] = header.pop(name)
    elif kind == 7:
        header["more"] = {"dtype": "U8", "shape": [0], "data_offsets": [len(data)] * 2}
    elif kind == 8:
        metadata = header["__metadata__"]
        del metadata[str(rng.choice(list(metadata)))]
    elif kind == 9:
        metadata = header["__metadata__"]
        metadata[str(rng.choice(list(metadata)))] = str(rng.choice(["", "1", "2", "{}", "pt"]))
    elif kind == 10:
        header["__metadata__"]["more"] = "of the same"  # harmless
    else:
        header = dict(sorted(header.items(), reverse=True))  # harmless
    return joined(json.dumps(header, indent=int(rng.integers(3)) or None), data)


MUTATIONS = [
    flip_bits, set_bytes, delete, insert, truncate, duplicate, edit_length, edit_header_text,
    edit_header, edit_header,
]  # fmt: skip


@pytest.mark.parametrize("architecture", [MLP, CONVNET], ids=["mlp", "convnet"])
def test_a_damaged_file_is_refused_or_is_the_same_network(tmp_path, architecture):
    """Ten thousand mutations, five thousand a network."""
    model = random_model(*architecture)
    x = images_of(model)
    expected = ReferenceNetwork(model).scores(x)
    original = tmp_path / "model.safetensors"
    file.save(model, original)
    content = original.read_bytes()
    rng = np.random.default_rng(0)
    survived, refused, lines = [], 0, set()
    path = tmp_path / "mutated"
    for i in range(5000):
        mutate = MUTATIONS[i % len(MUTATIONS)]
        mutated = mutate(rng, content)
        path.unlink(missing_ok=True)  # a file that is mapped must not shrink
        path.write_bytes(mutated)
        try:
            loaded = file.load(path)
        except InputError as error:
            lines.add(len(str(error).splitlines()))
            refused += 1
            continue
        np.testing.assert_array_equal(
            ReferenceNetwork(loaded).scores(x), expected, err_msg=f"mutation {i}"
        )
        if mutated != content:
            survived.append(mutate)
    assert refused > 4500
    assert lines == {1}
    # Order, whitespace and unknown metadata of the header change nothing.
    assert edit_header in survived
    assert set(survived) <= {edit_header, edit_header_text, insert, flip_bits, set_bytes}
