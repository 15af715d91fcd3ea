"""The learning rate of each epoch. Alg. 1 decays at each update; the authors' code each epoch."""

import math

from bnnrun.config import OptimizerConfig, Schedule


def learning_rate(config: OptimizerConfig, epoch: int, epochs: int) -> float:
    """The rate of `epoch` (from 1) out of `epochs`.

    halving: a right shift each `halve_every` epochs, as the authors' Torch7 code.
    geometric: lr · (lr_end / lr)^((epoch - 1) / epochs): the first epoch runs at lr, and lr_end
    is what the epoch after the last would have, as in the authors' scripts.
    """
    if config.schedule is Schedule.constant:
        return config.lr
    if config.schedule is Schedule.halving:
        return math.ldexp(config.lr, -((epoch - 1) // config.halve_every))
    return config.lr * math.pow(config.lr_end / config.lr, (epoch - 1) / epochs)
