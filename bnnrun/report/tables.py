"""`bnnrun report`: the tables, made from the records alone."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bnnrun import records
from bnnrun.config import ReportConfig
from bnnrun.errors import InputError
from bnnrun.files import write_text
from bnnrun.records import Record
from bnnrun.table import csv_text, markdown_text, print_table


def report(config: ReportConfig) -> None:
    """Print the table of test errors and write it to `results_dir` as Markdown and CSV."""
    whole, damaged = records.read_all(config.results_dir)
    for line in damaged:
        print(f"bnnrun: left out: {line}", file=sys.stderr)
    if not whole:
        raise InputError(
            f"results_dir={config.results_dir}: no records in its runs/; `bnnrun train "
            "dataset=digits` makes one in half a minute"
        )
    folder = Path(config.results_dir).expanduser()
    text = "# Results\n\nMade by `bnnrun report` from the records in `runs/`; not edited by hand.\n"
    for title, name, (columns, rows) in (
        ("Test errors", "errors", error_table(whole)),
        ("Packed networks", "packed", packed_table(whole)),
        ("Unique filters", "filters", filter_table(whole)),
        ("Times", "times", time_table(whole)),
    ):
        if not rows:
            continue
        print_table(columns, rows, title=title)
        text += f"\n## {title}\n\n{markdown_text(columns, rows)}"
        write_text(folder / f"{name}.csv", csv_text(columns, rows))
    path = folder / "tables.md"
    write_text(path, text)
    print(f"written: {path}")


def error_table(whole: list[Record]) -> tuple[list[str], list[list[str]]]:
    """A row for each group of runs alike in all but the seed."""
    columns = ["runs", "data", "network", "test error %", "n", "epochs", "last epoch %", "valid %"]
    rows = []
    for group in pool([r for r in whole if r.quantity == "test_error"]):
        first = group[0]
        arch, binarization = first.config["arch"], first.config["binarization"]
        rows.append(
            [
                first.experiment or "(own settings)",
                "; ".join([first.data["name"], *first.data.get("notes", [])]),
                f"{shape(arch)}, weights {binarization['weights']}, "
                f"activations {binarization['activations']}",
                mean_and_deviation([r.value for r in group]),
                str(len(group)),
                str(first.details["epochs"]),
                mean_and_deviation([r.details["last_epoch_test_error_pct"] for r in group]),
                mean_and_deviation([r.details["valid_error_pct"] for r in group]),
            ]
        )
    return columns, rows


def packed_table(whole: list[Record]) -> tuple[list[str], list[list[str]]]:
    """A row for each packed file that was evaluated, the latest evaluation of each."""
    columns = ["data", "packed bytes", "test error %", "trained network's %", "kernel",
               "compared with the trained network", "images/s", "machine"]  # fmt: skip
    latest = {
        (r.details["sha256"], r.details["kernel"], r.details["first"], r.cpu["model"]): r
        for r in whole
        if r.quantity == "packed_test_error"
    }
    return columns, [
        [
            "; ".join([r.data["name"], *r.data.get("notes", [])]),
            f"{r.details['packed_bytes']:,}",
            f"{r.value:.2f}",
            f"{float(r.details['trained']['test_error_pct']):.2f}",
            f"{r.details['kernel']}, first layer by {r.details['first']}",
            _compared(r.details["verified"]),
            f"{r.details['images_per_s']:,.0f}",
            r.cpu["model"],
        ]
        for r in latest.values()
    ]


def _compared(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "not compared"
    return f"{counts['hidden_bits']:,} bits, {counts['scores']:,} scores: equal"


def filter_table(whole: list[Record]) -> tuple[list[str], list[list[str]]]:
    """A row for each packed ConvNet whose filters were counted."""
    columns = ["data", "epoch", "unique 3x3 filters %", "by chance %"]
    latest = {r.details["sha256"]: r for r in whole if r.quantity == "unique_filters"}
    return columns, [
        [r.details["trained"].get("dataset", ""), r.details["trained"].get("epoch", ""),
         f"{r.value:.1f}", f"{r.details['by_chance_pct']:.1f}"]
        for r in latest.values()
    ]  # fmt: skip


def time_table(whole: list[Record]) -> tuple[list[str], list[list[str]]]:
    """A row for each competitor of the latest timing of each kind."""
    columns = ["workload", "competitor", "device", "threads", "median", "fastest", "spread",
               "calls", "GMAC/s", "of the limit"]  # fmt: skip
    latest: dict[tuple[Any, ...], Record] = {}
    for record in whole:
        if record.quantity.endswith("_time"):
            machine = (record.gpu or record.cpu)["model"]
            of = record.details["competitor"], machine, record.details["threads"], _cell(record)
            latest[of] = record
    in_order = sorted(
        latest.values(),
        key=lambda r: (
            workload(r),
            (r.gpu or r.cpu)["model"],
            list(r.details["in_the_same_run"]).index(r.details["competitor"]),
        ),
    )
    return columns, [
        [
            workload(r),
            r.details["competitor"],
            (r.gpu or r.cpu)["model"],
            str(r.details["threads"]),
            f"{r.value:.2f} {r.unit}",
            f"{r.details['minimum']:.2f} {r.unit}",
            f"{100 * r.details['spread']:.0f} %",
            str(r.details["count"]),
            _optional(r.details.get("gmac_per_s"), "{:,.0f}"),
            _optional(r.details.get("share_of_limit"), "{:.1%}"),
        ]
        for r in in_order
    ]


def workload(record: Record) -> str:
    """What was timed: 'gemm 4096 x 4096 x 4096', 'mlp, mnist, 1000 images'."""
    name, config = record.quantity.removesuffix("_time"), record.config
    if name == "gemm":
        return f"gemm, M {config['m']}, N {config['n']}, K {config['k']}"
    data = config["dataset"]["name"]
    return f"{name}, {data}" + ("" if name == "train_step" else f", {config['batch']} images")


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def pool(errors: list[Record]) -> list[list[Record]]:
    """Records alike in all but the seed, together; of a repeated seed the latest."""
    groups: dict[str, dict[int, Record]] = {}
    for record in errors:  # oldest first
        groups.setdefault(_cell(record), {})[record.seed] = record
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]


def shape(arch: dict[str, Any]) -> str:
    """'mlp 3 x 512' or 'convnet 128-128-256'."""
    if "depth" in arch:
        return f"{arch['name']} {arch['depth']} x {arch['width']}"
    return f"{arch['name']} {'-'.join(map(str, arch['channels']))}"


def mean_and_deviation(values: list[float]) -> str:
    """'1.33 ± 0.14', or '1.33' of a single value."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _cell(record: Record) -> str:
    """What records of one cell have in common: all but the seed; with the data that was read."""
    config = {key: value for key, value in record.config.items() if key != "seed"}
    files = [file["md5"] for file in record.data.get("files", [])]
    kind = [record.experiment, record.quantity, record.device, config, files]
    return json.dumps(kind, sort_keys=True)
