"""Short runs on the bundled digits, and what the verbs leave of them."""

import json

import numpy as np
from PIL import Image

from bnnrun.train import checkpoint

RUNS = {
    "mlp": ["arch.width=32", "trainer.epochs=2"],
    "convnet": ["arch=convnet", "arch.channels=[8,8]", "arch.fc=[16]", "trainer.epochs=2"],
    "shift": ["arch.width=32", "trainer.epochs=1", "norm=shift", "seed=4"],
    "float": ["arch.width=8", "trainer.epochs=1", "binarization=none"],
    "whitened": ["arch.width=8", "trainer.epochs=1", "dataset.preprocessing=zca"],
}
PACKED = ("mlp", "convnet", "shift")


def records(tmp_path) -> list[dict]:
    paths = sorted((tmp_path / "results" / "runs").glob("*.json"), key=lambda p: p.stat().st_mtime)
    return [json.loads(path.read_text()) for path in paths]


def best(folder) -> dict:
    return checkpoint.load(folder / "best.pt", "network")


def assert_refused(outcome, *named: str, status: int = 2) -> None:
    assert outcome.status == status, outcome.err
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("bnnrun: ")
    assert "Traceback" not in outcome.err + outcome.out
    for text in named:
        assert text in lines[0]


def digits(count: int) -> tuple[np.ndarray, list[Image.Image]]:
    """Test images as pixels to 16, and as 8-bit pictures."""
    from made_up import config

    from bnnrun.data import load

    pixels = load(config("digits")).test.pixels[:count]
    grey = np.rint(pixels[:, 0] * (255 / 16)).astype(np.uint8)
    return pixels, [Image.fromarray(image) for image in grey]
