"""The machine that a record was made on: a GPU, or a processor with its threads."""

from bnnrun.records import Record
from bnnrun.table import Parts

MACHINE = "machine threads"  # of `where` in CSV files


def machine(record: Record) -> str:
    """'NVIDIA H200' or 'a processor, 2 threads'."""
    return str(where(record))


def where(record: Record) -> Parts:
    """The machine of a record, a processor's threads apart."""
    if record.gpu:
        model = str(record.gpu.get("model", "GPU"))
        return Parts(model, (model,))
    model = str(record.cpu.get("model", "processor")).replace("(R)", "").replace(" Processor", "")
    threads = record.details.get("threads")
    return Parts(f"{model}, {'?' if threads is None else threads} threads", (model, threads))
