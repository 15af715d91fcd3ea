"""Where a record's number comes from, as lines to read."""

from typing import Any

from bnnrun.records import Record
from bnnrun.report.timing import implementation, milliseconds, roofline_share, spread
from bnnrun.roles import shown
from bnnrun.table import number

Facts = tuple[tuple[str, str], ...]


def facts(record: Record) -> Facts:
    """(what, its text) of the run itself; what a record does not tell is left out."""
    lines = (
        ("value", f"{record.value:.6g} {record.unit}"),
        ("command", record.command),
        ("commit", commit(record)),
        ("seed", str(record.seed)),
        ("experiment", record.experiment),
        ("competitor", competitor(record)),
        ("timed", timed(record)),
        ("protocol", str(record.details.get("protocol", ""))),
        ("began from", began_from(record)),
        ("curve", curve(record)),
        ("data", "; ".join(data(record))),
        ("device", record.device),
        ("made", f"{record.created}, in {record.wall_time_s:,.0f} s"),
        ("peak memory", f"{record.peak_memory_bytes / 2**30:.2f} GiB"),
        ("SHA-256", record.checksum),
    )
    return tuple((what, text) for what, text in lines if text)


def competitor(record: Record) -> str:
    """'baseline float32 (47 rows)'; "" of a record of no time."""
    if "role" not in record.details:
        return ""
    return shown(implementation(record), str(record.details.get("remark", "")))


def began_from(record: Record) -> str:
    """'outputs/train/RUN, epoch 20, SHA-256 1a2b…' where it was not weights of its own."""
    init = record.details.get("init")
    if not isinstance(init, dict):
        return ""
    return f"{init.get('path')}, epoch {init.get('epoch')}, SHA-256 {init.get('sha256')}"


def commit(record: Record, digits: int = 40) -> str:
    """'abc123', with a warning where the tree was not what that commit holds."""
    known = {True: "", False: ", with changes that are in no commit", None: ", tree not known"}
    name = str(record.source.get("commit") or "not known")
    return name[:digits] + known.get(record.source.get("clean"), "")


def timed(record: Record) -> str:
    """'7 calls, fastest 498 ms, spread 5 %; 704 GMAC/s, 51.1 % of the roofline; 2 threads'."""
    details = record.details
    if "role" not in details:
        return ""
    groups = (
        (
            f"{details.get('count', '?')} calls",
            number(details.get("minimum"), lambda x: f"fastest {milliseconds(x)}"),
            spread(details, "spread {:.0f} %"),
        ),
        (
            number(details.get("gmac_per_s"), "{:,.4g} GMAC/s"),
            roofline_share(details, "{:.3g} % of the roofline"),
        ),
        (
            f"{details.get('threads', '?')} threads",
            number(details.get("stolen_pct"), "{:.1f} % taken by a hypervisor"),
        ),
    )
    texts = (", ".join(filter(None, map(str, group))) for group in groups)
    return "; ".join(filter(None, texts))


def curve(record: Record) -> str:
    """'20 epochs; training cost 0.24 to 0.01; validation error 7.5 to 1.9 %, least 1.8 at 19'."""
    values = record.details.get("curve")
    text = [f"{record.details['epochs']} epochs"] if "epochs" in record.details else []
    if not isinstance(values, dict):
        return "; ".join([*text, "not kept by this record"]) if text else ""
    cost, error = values.get("train_loss"), values.get("valid_error_pct")
    if cost:
        text.append(f"training cost {cost[0]:.3g} to {cost[-1]:.3g}")
    if error:
        epoch = max(range(len(error)), key=lambda i: (-error[i], i)) + 1
        text.append(f"validation error {error[0]:.2f} to {error[-1]:.2f} %, "
                    f"least {min(error):.2f} % at epoch {epoch}")  # fmt: skip
    return "; ".join(text)


def data(record: Record) -> list[str]:
    """The data set, the sizes of its parts, and what a reader must know of it."""
    dataset = record.data
    if "name" not in dataset:
        return []
    sizes = [f"{dataset[part]:,} {part}" for part in ("train", "valid", "test") if part in dataset]
    return [", ".join([str(dataset["name"]), *sizes]), *map(str, dataset.get("notes", []))]


def files(record: Record) -> tuple[tuple[str, str, str, str], ...]:
    """(name, bytes, MD5, how that compares with the published one) of each data file."""
    return tuple(
        (str(f.get("name", "")), f"{f.get('size', 0):,}", str(f.get("md5", "")), _as_published(f))
        for f in record.data.get("files", [])
    )


def _as_published(file: dict[str, Any]) -> str:
    published = file.get("published_md5")
    if not published:
        return "none published"
    return "as published" if published == file.get("md5") else f"published: {published}"


def environment(record: Record) -> Facts:
    """Processor, GPU and versions."""
    cpu = record.cpu
    lines = [
        ("processor", f"{cpu.get('model', 'not known')}, {cpu.get('cores', '?')} cores, "
                      f"{cpu.get('memory_bytes', 0) / 2**30:.0f} GiB; "
                      f"{' '.join(cpu.get('features', []))}"),
    ]  # fmt: skip
    if record.gpu:
        lines.append(("GPU", ", ".join(f"{key} {value}" for key, value in record.gpu.items())))
    lines.append(("versions", ", ".join(f"{k} {v}" for k, v in record.versions.items())))
    return tuple(lines)
