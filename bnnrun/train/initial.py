"""`init=`: the weights that a training run starts from, of another run or of a network file."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnrun.config import EngineChoice, computed
from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.train import BEST, STATE

if TYPE_CHECKING:  # a sweep that asks for a checksum waits for no torch
    from bnnrun.nn.network import Network


def network_file(init: str) -> Path:
    """A run folder's network at its latest epoch, else at its picked one; or the file named."""
    path = user_path(init)
    if not path.is_dir():
        return path
    files = [path / name for name in (STATE, BEST) if (path / name).is_file()]
    if not files:
        raise InputError(f"init={init}: no run folder (neither {STATE} nor {BEST} is there)")
    return files[0]


def sha256(init: str) -> str:
    """Of the file whose weights `init` names."""
    path = network_file(init)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"init={init}: {path} cannot be read ({error.strerror})") from None


def settings(
    config: object, init_sha256: str | None, engine: EngineChoice = EngineChoice.fast
) -> dict[str, Any]:
    """What a run computes with: the engine that `auto` becomes, and the file of its first weights.

    That file only where one was named: so the settings of a run without `init` equal those in
    records that are older than it.
    """
    values = computed(config)
    values["trainer"]["engine"] = engine.value
    return {**values, **({"init": init_sha256} if init_sha256 else {})}


def load(network: "Network", init: str) -> dict[str, Any]:
    """Give `network` the weights and statistics that `init` names; its input stays its own.

    Returns:
        path, sha256 and epoch of the file

    Raises:
        InputError: there is none, it is damaged, or its network has another shape
    """
    from bnnrun.train import checkpoint

    path = network_file(init)
    saved = checkpoint.load(path, "network", "checkpoint")
    # How pixels are scaled is fitted to the images that this run trains on.
    theirs = {k: v for k, v in saved["network"].items() if not k.startswith("input.")}
    ours = {k: v for k, v in network.state_dict().items() if not k.startswith("input.")}
    for name in [*ours, *theirs]:
        here, there = (tuple(t[name].shape) if name in t else None for t in (ours, theirs))
        if here != there:
            raise InputError(
                f"init={init}: {_shown(network, name)} is {there or 'not there'} in {path}, "
                f"{here or 'not there'} in this network"
            )
    network.load_state_dict({**network.state_dict(), **theirs})
    epoch = saved["epoch"] if saved["kind"] == "checkpoint" else saved["row"]["epoch"]
    return {"path": init, "sha256": sha256(init), "epoch": epoch}


def _shown(network: "Network", name: str) -> str:
    """'fc1 weight' of 'stack.0.product.weight'."""
    _, _, rest = name.partition("stack.")
    number, _, array = rest.partition(".")
    layers = [block.layer.name for block in network.blocks]
    layer = layers[int(number)] if number.isdigit() and int(number) < len(layers) else number
    return f"{layer} {array.rpartition('.')[2]}" if rest else name
