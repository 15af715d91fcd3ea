"""What differs between Hydra's launchers: where jobs run, how many at once, whether they go on."""

from typing import Any

from omegaconf import DictConfig

from bnnrun.cli import gpus
from bnnrun.config import Device
from bnnrun.machine import cores

# Those whose jobs go on without the process that launched them, and how they are looked after.
OUTLASTING = {
    "rq": "`rq info` shows them",
    "submitit_local": "`pgrep -af submitit` shows them, `kill` of one saves and ends it",
    "submitit_slurm": "`squeue --me` shows them, `scancel` ends them",
}


def jobs_on_a_machine(name: str, launcher: Any, jobs: int) -> int:
    """How many of `jobs` share a machine's processor: each takes its part of the cores."""
    if name == "joblib":
        most = int(launcher.joblib["n_jobs"])
        return min(jobs, most if most > 0 else max(1, cores() + 1 + most))
    return jobs if name == "submitit_local" else 1


def jobs_at_once(*, _root_: DictConfig) -> int:
    """`${jobs_at_once:}`: one a GPU, on a processor one a core."""
    return number_of_gpus(_root_=_root_) or cores()


def number_of_gpus(*, _root_: DictConfig) -> int:
    """`${gpus:}`: those that the jobs of a configuration can have on this machine."""
    on_processor = _root_.get("device") in (Device.cpu, None)
    return 0 if on_processor else len(gpus.visible())
