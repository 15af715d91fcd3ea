"""The verbs: what each is called, does, reads and writes."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bnnrun import config


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        schema:   dataclass of its configuration; its docstring is the verb's line of help
        function: "module:name", imported when the verb runs, so that help never waits for torch
        is_run:   has a run folder and records: function(config, run) -> records;
                  otherwise function(config) prints what it is asked
        action:   key that a bare first word sets (`bnnrun data status`), or ""
        words:    key that the bare words after it set (`bnnrun data verify mnist svhn`), or ""
        flags:    keys that a flag sets true (`--verify` is `verify=true`)
        leaves:   quantity of the record of a finished run, where a sweep skips jobs that have
                  theirs and goes on with those that were cut off, or ""
        examples: command lines for its help
    """

    name: str
    schema: type
    function: str
    is_run: bool
    examples: tuple[str, ...]
    action: str = ""
    words: str = ""
    flags: tuple[str, ...] = ()
    leaves: str = ""

    @property
    def meaning(self) -> str:
        """One line on what the verb does."""
        return (self.schema.__doc__ or "").strip().splitlines()[0]

    def load(self) -> Callable[..., Any]:
        """The function that does the work."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "train",
            config.TrainConfig,
            "bnnrun.train.loop:train",
            is_run=True,
            examples=(
                "bnnrun train dataset=digits",
                "bnnrun train dataset=digits binarization=none seed=3",
                "bnnrun train -m experiment=digits_binary,digits_float 'seed=range(5)'",
                "bnnrun train resume=outputs/train/RUN",
                "bnnrun train init=outputs/train/RUN dataset=digits trainer.epochs=20",
            ),
            leaves="test_error",
        ),
        Verb(
            "pack",
            config.PackConfig,
            "bnnrun.pack.convert:pack",
            is_run=False,
            examples=(
                "bnnrun pack run=outputs/train/RUN",
                "bnnrun pack run=outputs/train/RUN out=mnist.safetensors",
            ),
        ),
        Verb(
            "export",
            config.ExportConfig,
            "bnnrun.export.export:export",
            is_run=False,
            examples=(
                "bnnrun export model=outputs/train/RUN format=c",
                "bnnrun export model=outputs/train/RUN format=c layout=arduino name=digits",
                "bnnrun export model=mnist.safetensors format=onnx out=mnist.onnx",
            ),
        ),
        Verb(
            "eval",
            config.EvalConfig,
            "bnnrun.pack.evaluate:evaluate",
            is_run=True,
            examples=(
                "bnnrun eval model=outputs/train/RUN dataset=digits",
                "bnnrun eval model=outputs/train/RUN dataset=digits --verify",
                "bnnrun eval model=mnist.safetensors kernel=reference",
            ),
            flags=("verify",),
        ),
        Verb(
            "predict",
            config.PredictConfig,
            "bnnrun.runtime.predict:predict",
            is_run=False,
            examples=(
                "bnnrun predict model=outputs/train/RUN photo.png",
                "bnnrun predict model=cifar10.safetensors photos/ format=csv",
            ),
            words="images",
        ),
        Verb(
            "filters",
            config.FiltersConfig,
            "bnnrun.report.filters:filters",
            is_run=True,
            examples=("bnnrun filters model=outputs/train/RUN",),
        ),
        Verb(
            "bench",
            config.BenchConfig,
            "bnnrun.bench.workloads:bench",
            is_run=True,
            examples=(
                "bnnrun bench workload=train_step",
                "bnnrun bench workload=train_step dataset=digits arch.width=2048 rounds=50",
            ),
        ),
        Verb(
            "report",
            config.ReportConfig,
            "bnnrun.cli.reporting:report",
            is_run=False,
            examples=(
                "bnnrun report",
                "bnnrun report --check",
                "bnnrun report cell=table1.mnist.theano",
                "bnnrun report results_dir=outputs/demo/results",
            ),
            flags=("check",),
        ),
        Verb(
            "summary",
            config.SummaryConfig,
            "bnnrun.report.summary:summary",
            is_run=False,
            examples=("bnnrun summary", "bnnrun summary arch.width=1024 format=markdown"),
        ),
        Verb(
            "data",
            config.DataConfig,
            "bnnrun.data.status:data",
            is_run=False,
            examples=(
                "bnnrun data status",
                "bnnrun data verify mnist cifar10 root=/data",
                "bnnrun data fetch svhn",
            ),
            action="action",
            words="sets",
        ),
        Verb(
            "doctor",
            config.DoctorConfig,
            "bnnrun.doctor:doctor",
            is_run=False,
            examples=("bnnrun doctor", "bnnrun doctor compile=true"),
        ),
    )
}
