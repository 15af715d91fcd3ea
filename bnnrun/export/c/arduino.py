"""The layout of an Arduino library: its description, the sources in src/, an example sketch."""

from bnnrun import __version__
from bnnrun.export.c.source import fill


def library(name: str, sources: dict[str, str]) -> dict[str, str]:
    """The files of a library called `name`; `sources` from the layout of plain files."""
    properties = {
        "name": name,
        "version": "1.0.0",
        "author": f"bnnrun {__version__}",
        "maintainer": "you",
        "sentence": "A binarized neural network that classifies images.",
        "paragraph": "Integers and bits only; made by `bnnrun export format=c layout=arduino`.",
        "category": "Data Processing",
        "url": "https://arxiv.org/abs/1602.02830",
        "architectures": "*",
        "includes": f"{name}.h",
    }
    return {
        "library.properties": "".join(f"{key}={value}\n" for key, value in properties.items()),
        f"src/{name}.h": sources[f"{name}.h"],
        f"src/{name}.c": sources[f"{name}.c"],
        f"extras/{name}_test.c": sources[f"{name}_test.c"],
        f"examples/{name}_example/{name}_example.ino": fill("sketch.ino", name),
    }
