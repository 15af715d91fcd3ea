"""Whether a run's arrays can be had, before the system ends the process for want of memory."""

from bnnrun.architecture import Layer, plan
from bnnrun.config import NetworkConfig
from bnnrun.data.dataset import Dataset
from bnnrun.errors import InputError
from bnnrun.machine import free_memory_bytes

STATE_BYTES = 12  # of a weight in training, at least: itself and the optimizer's two means


def check_memory(config: NetworkConfig, dataset: Dataset) -> None:
    """InputError where weights, or a batch's activations, are more than the memory that is free.

    What is reckoned is surely needed, and the run needs more: float32 inputs and pre-activations
    of one layer in evaluation, of all layers in training.
    """
    layers = plan(config.arch, dataset.spec)
    activations = [4 * (layer.inputs + layer.outputs) * _pixels(layer) for layer in layers]
    evaluated = min(config.trainer.eval_batch_size, max(len(dataset.valid), len(dataset.test)))
    needs = {
        f"arch={config.arch.name} of {sum(layer.weights for layer in layers):,} weights": (
            STATE_BYTES * sum(layer.weights for layer in layers),
            "give it fewer or smaller layers",
        ),
        f"trainer.batch_size={config.trainer.batch_size}": (
            config.trainer.batch_size * sum(activations),
            "lower trainer.batch_size",
        ),
        f"trainer.eval_batch_size={config.trainer.eval_batch_size}": (
            evaluated * max(activations),
            "lower trainer.eval_batch_size",
        ),
    }
    free = free_memory_bytes()
    for setting, (needed, advice) in needs.items():
        if needed > free:
            raise InputError(
                f"{setting}: needs about {needed / 2**30:,.0f} GiB of memory, "
                f"{free / 2**30:,.0f} GiB are free; {advice}"
            )


def _pixels(layer: Layer) -> int:
    height, width = layer.size
    return height * width
