"""The verb `report` as the command line calls it: with every experiment composed."""

import functools

from hydra import compose

from bnnrun.cli.compose import CONF, hydra_session, to_config
from bnnrun.config import ReportConfig
from bnnrun.report.experiments import Experiment


def report(config: ReportConfig) -> None:
    """`bnnrun report`; the report itself knows nothing of Hydra."""
    from bnnrun.report import report as of_records

    of_records.report(config, experiments())


@functools.cache  # a quarter of a second each
def experiments() -> list[Experiment]:
    """Each file of conf/experiment as `bnnrun train` would run it."""
    with hydra_session():
        return [
            Experiment(
                path.stem,
                path.read_text(encoding="utf-8"),
                to_config(compose("train", [f"experiment={path.stem}"])),
            )
            for path in sorted((CONF / "experiment").glob("*.yaml"))
        ]
