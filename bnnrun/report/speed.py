"""Figures of times: the bars of Figure 3, and the speed-up over float32 against size."""

import math
from dataclasses import dataclass

from bnnrun import paper
from bnnrun.records import Record
from bnnrun.report.content import Figure, Panel, Series
from bnnrun.table import Parts

YARDSTICK = "torch float32"
MACHINE = "machine threads"  # of `where` in CSV files
CUBE = 8192  # of Figure 3's product
BARS = ("baseline", "float32", "XNOR")
BITS, PACKING = "XNOR, bits in and out", "XNOR, packing of A timed"
KINDS = {"torch int8": "int8", "torch bf16, sums rounded": "bf16", "torch tf32": "TF32",
         "torch fp8, sums rounded": "fp8"}  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """One competitor of one timing, as a record tells it."""

    machine: str
    competitor: str
    size: tuple[int, int, int]  # M, N, K; (images, 0, 0) of a network
    time_s: float  # of the whole workload, though only some of its rows were timed
    speedup: float  # over float32 in the same run; nan where that was not timed
    record: str


def figures(records: list[Record]) -> list[Figure]:
    """Figure 3 and the speed-up, each where there are records for it."""
    products, networks = _products(records), _networks(records)
    cubes = [t for t in products if len(set(t.size)) == 1]
    return [
        *_figure3([t for t in cubes if t.size[0] == CUBE], networks),
        *_speedup([t for t in cubes if _kind(t.competitor)]),
    ]


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


def _products(records: list[Record]) -> list[Timed]:
    """The latest timing of each competitor on each machine in each size."""
    latest: dict[tuple[object, ...], Timed] = {}
    for r in records:
        config, macs = r.config, r.details.get("macs")
        if r.quantity != "gemm_time" or not macs or "competitor" not in r.details:
            continue
        size = (int(config["m"]), int(config["n"]), int(config["k"]))
        time_s = r.value / 1e3 * math.prod(size) / macs
        float32 = r.details.get("in_the_same_run", {}).get(YARDSTICK, math.nan) / 1e3
        timed = Timed(machine(r), r.details["competitor"], size, time_s, float32 / time_s, r.name)
        latest[timed.machine, timed.competitor, size] = timed
    return list(latest.values())


def _networks(records: list[Record]) -> list[Timed]:
    """The same of Figure 3's network: the whole MLP on MNIST's 10,000 test images."""
    bars = [r for r in records if _is_figure3_network(r) and _bar(r.details["competitor"]) >= 0]
    whole = max((r.details["macs"] for r in bars), default=0.0)
    latest: dict[tuple[object, ...], Timed] = {}
    for r in bars:
        time_s = r.value / 1e3 * whole / r.details["macs"]
        timed = Timed(machine(r), r.details["competitor"], (10_000, 0, 0), time_s, math.nan, r.name)
        latest[timed.machine, timed.competitor] = timed
    return list(latest.values())


def _is_figure3_network(r: Record) -> bool:
    if r.quantity != "mlp_time" or not r.details.get("macs") or "competitor" not in r.details:
        return False
    config, arch = r.config, r.config["arch"]
    whole = (arch.get("depth"), arch.get("width")) == (3, 4096)
    return whole and config["dataset"]["name"] == "mnist" and config["batch"] == 10_000


# ---- Figure 3 --------------------------------------------------------------------------------


def _figure3(products: list[Timed], networks: list[Timed]) -> list[Figure]:
    panels = [
        Panel(title, "time, s (log scale)", "", (_paper_bars(workload), *_bars(timed)),
              log_x=True, names=BARS, bars=True, name=workload, x_name="kernel", y_name="time_s")
        for title, workload, timed in (
            (f"product of two {CUBE} x {CUBE} matrices of ±1", "gemm", products),
            ("MNIST network, 10,000 images", "mlp", networks),
        )
        if timed
    ]  # fmt: skip
    if not panels:
        return []
    caption = (
        "Shorter is better. XNOR is the fastest kernel whose time holds the packing of A (product) "
        "or takes pixels to labels (network); a baseline timed on some rows or images is scaled to "
        "all. float32 is cuBLAS and Theano in the paper, PyTorch here. The paper's bars are read "
        "off its plot."
    )
    title = f"Figure 3: times beside the paper's {paper.FIGURE3_GPU}"
    return [Figure("figure3", title, caption, tuple(panels))]


def _paper_bars(workload: str) -> Series:
    y = tuple(paper.FIGURE3[workload, kernel].value for kernel in ("baseline", "blas", "xnor"))
    of = f"paper, {paper.FIGURE3_GPU}"
    return Series(of, (0.0, 1.0, 2.0), y, of=of, of_paper=True)


def _bars(timed: list[Timed]) -> list[Series]:
    """A colour for each machine; a bar that was not run is left out."""
    series = []
    for name in sorted({t.machine for t in timed}):
        fastest: dict[int, Timed] = {}
        for t in timed:
            i = _bar(t.competitor)
            if t.machine == name and i >= 0 and (i not in fastest or t.time_s < fastest[i].time_s):
                fastest[i] = t
        bars = sorted(fastest.items())
        if bars:
            series.append(
                Series(f"ours, {name}", tuple(float(i) for i, _ in bars),
                       tuple(t.time_s for _, t in bars), of=name,
                       records=tuple(t.record for _, t in bars))
            )  # fmt: skip
    return series


def _bar(competitor: str) -> int:
    """Which of `BARS` a competitor is, -1 for none."""
    if competitor.startswith("xnor"):
        whole = "first layer by" in competitor or competitor.endswith("float32 in, int32 out")
        return 2 if whole else -1
    return 0 if competitor.startswith("baseline") else 1 if competitor == YARDSTICK else -1


# ---- speed-up against size -------------------------------------------------------------------


def _speedup(timed: list[Timed]) -> list[Figure]:
    timed = [t for t in timed if not math.isnan(t.speedup)]
    panels, caption = [], []
    for name in sorted({t.machine for t in timed}):
        series = _lines([t for t in timed if t.machine == name])
        packing = next((s for s in series if s.label == PACKING), None)
        crossing, words = crossover(packing.x, packing.y) if packing else (None, "not run")
        panels.append(
            Panel(name, "size M = N = K (log scale)", "times as fast as float32\n(log scale)",
                  tuple(series), log_x=True, log_y=True, mark=crossing, x_name="size",
                  y_name="over_float32")
        )  # fmt: skip
        caption.append(f"{name}: {words}.")
    if not panels:
        return []
    text = ("Of each size the fastest kernel of its kind, over float32 in the same run; 1 is "
            "float32 itself. Crossover of XNOR with packing: ")  # fmt: skip
    title = "Speed-up over float32 against size"
    return [Figure("speedup", title, text + " ".join(caption), tuple(panels))]


def _kind(competitor: str) -> str:
    if competitor.startswith("xnor") and competitor.endswith(", bits out"):
        return BITS
    if competitor.startswith("xnor") and competitor.endswith("float32 in, int32 out"):
        return PACKING
    return KINDS.get(competitor, "")


def _lines(timed: list[Timed]) -> list[Series]:
    """Of each kind and size the fastest."""
    best: dict[str, dict[int, Timed]] = {}
    for t in timed:
        of_size = best.setdefault(_kind(t.competitor), {})
        if t.size[0] not in of_size or t.speedup > of_size[t.size[0]].speedup:
            of_size[t.size[0]] = t
    series = []
    for kind in (k for k in (BITS, PACKING, *KINDS.values()) if k in best):
        points = sorted(best[kind].items())
        series.append(
            Series(kind, tuple(float(size) for size, _ in points),
                   tuple(t.speedup for _, t in points), of=kind, dashed=not kind.startswith("XNOR"),
                   records=tuple(t.record for _, t in points))
        )  # fmt: skip
    return series


def crossover(sizes: tuple[float, ...], speedups: tuple[float, ...]) -> tuple[float | None, str]:
    """The size from which on the speed-up stays above 1, and the same in words.

    Between two sizes it is read off the straight line of the logarithms.
    """
    slower = [i for i, s in enumerate(speedups) if s < 1]
    if not slower:
        return None, f"faster than float32 at every size measured, {sizes[0]:g} to {sizes[-1]:g}"
    i = slower[-1]
    if i == len(sizes) - 1:
        return None, f"not faster than float32 at the largest size measured, {sizes[-1]:g}"
    (x0, x1), (y0, y1) = map(math.log, sizes[i : i + 2]), map(math.log, speedups[i : i + 2])
    size = math.exp(x0 - y0 * (x1 - x0) / (y1 - y0))
    return size, f"faster than float32 from about {size:.0f} on"
