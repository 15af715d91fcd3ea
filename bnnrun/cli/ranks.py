"""Programs that start one command as several ranks: a single run is no work for them."""

import os
from collections.abc import Mapping

from bnnrun.errors import InputError

# By the variable that holds the number of processes. `srun` gives the number of its step: SLURM's
# SLURM_NTASKS is that of the whole job, in which one process may run.
STARTERS = {
    "WORLD_SIZE": "torchrun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
    "SLURM_STEP_NUM_TASKS": "srun",
}


def refuse_ranks(verb: str, environment: Mapping[str, str] = os.environ) -> None:
    """InputError where this process is one of several that would all do the same run."""
    for name, starter in STARTERS.items():
        number = environment.get(name, "")
        if number.isdigit() and int(number) > 1:
            raise InputError(
                f"{starter} ({name}={number}): one run is the work of one process; `bnnrun {verb} "
                "-m ...` has several share the jobs of a sweep, or starts them itself with "
                "hydra/launcher=joblib or submitit_slurm (docs/clusters.md)"
            )
