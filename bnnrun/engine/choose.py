"""The choice of an engine: the only function that knows which there are."""

from bnnrun.config import EngineChoice
from bnnrun.errors import InputError
from bnnrun.gemm.cuda_device import open_device
from bnnrun.nn.engine import Engine
from bnnrun.nn.network import Network
from bnnrun.nn.optim import Rule


def make_engine(
    choice: EngineChoice, network: Network, optimizer: Rule | None = None, seed: int = 0
) -> Engine:
    """The engine of a choice for a network, on the device that it lies on.

    fast is the engine of the processor or of an NVIDIA GPU; auto is fast where there is one.

    Raises:
        InputError: fast was asked for and this device has none, with the reason
    """
    if choice is EngineChoice.reference:
        return Engine(network, optimizer, seed)
    if network.input.p.device.type == "cpu":
        from bnnrun.engine.cpu.engine import CpuEngine

        return CpuEngine(network, optimizer, seed)
    try:
        device = open_device()
    except InputError as error:
        if choice is EngineChoice.auto:
            return Engine(network, optimizer, seed)
        raise InputError(
            f"trainer.engine=fast: this device has none ({error}); trainer.engine=reference works"
        ) from None
    from bnnrun.engine.cuda.engine import CudaEngine

    return CudaEngine(network, optimizer, seed, device=device)
