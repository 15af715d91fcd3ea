"""Speed-up over float32 against size: the table, and the curves of products with M = N = K."""

import math

from bnnrun.report.content import Cell, Figure, Panel, Series, Table
from bnnrun.report.machines import MACHINE
from bnnrun.report.timing import (
    Ratio,
    Timed,
    fastest_float32,
    latest_ratio,
    standing_times,
    time_id,
    times_as,
)
from bnnrun.report.workload import WORKLOAD, Work
from bnnrun.roles import PACK_BITS, Form, Implementation, Role
from bnnrun.table import Column, Number

Curve = dict[float, tuple[float, str]]  # of each size the speed-up, and its record
BITS_OUT, PACKING = "XNOR, bits in and out", "XNOR, packing of A timed"
OURS: dict[Form | None, str] = {Form.bits_out: BITS_OUT, Form.packing: PACKING}
PRECISIONS = {"int8": "int8", "bf16": "bf16", "tf32": "TF32", "fp8": "fp8"}


# ---- the table -------------------------------------------------------------------------------


def table(runs: list[Timed]) -> Table:
    """Our fastest kernel over float32 and the best precision by size, and where it overtakes."""
    by_work: dict[tuple[str, Work], list[Timed]] = {}
    for run in runs:
        is_ours = any(_is_packed(each) or _packs(each) for each in run.records)
        if is_ours and run.workload != "train_step":
            by_work.setdefault((run.machine, run.work), []).append(run)
    rows = []
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for same in sorted(
        by_work.values(), key=lambda r: (r[-1].machine, r[-1].workload, _volume(r[-1]))
    ):
        last = same[-1]
        packed, packing = last.fastest(_is_packed), last.fastest(_packs)
        best = latest_ratio(same, packed, Timed.precision) if packed else None
        rows.append(
            (
                Cell(last.where),
                Cell(last.work.value),
                _cell(same, packed),
                _cell(same, packing),
                Cell(best.over_name if best else "", records=best.records if best else ()),
            )
        )
        ratio = _over_float32(same, packing if last.workload == "gemm" else packed)
        if ratio is not None:
            size = round(_volume(last) ** (1 / 3)) if last.workload == "gemm" else _volume(last)
            curves.setdefault((last.machine, last.workload), {})[float(size)] = ratio.value
    return Table(
        name="speedup",
        title="Speed-up against size",
        columns=(
            Column("machine", MACHINE),
            Column("workload", WORKLOAD),
            Column("packed operands, over float32", "packed_over_float32"),
            Column("packing of A timed, over float32", "packing_over_float32"),
            Column("over the best precision", "over_best best_precision"),
        ),
        rows=tuple(rows),
        notes=(
            "float32 is the fastest library that the run timed in float32.",
            *(_crossing(*place, curve) for place, curve in sorted(curves.items())),
        ),
    )


def _is_packed(implementation: Implementation) -> bool:
    """Ours, from operands that are bits already."""
    return (
        implementation.role is Role.ours
        and implementation != PACK_BITS
        and implementation.form is not Form.packing
    )


def _packs(implementation: Implementation) -> bool:
    return implementation.role is Role.ours and implementation.form is Form.packing


def _volume(run: Timed) -> int:
    """Multiply-accumulates of a product, images of a network."""
    size = run.work.size
    return math.prod(size) if run.workload == "gemm" else int(size[1])


def _over_float32(runs: list[Timed], implementation: Implementation | None) -> Ratio | None:
    return latest_ratio(runs, implementation, fastest_float32) if implementation else None


def _cell(runs: list[Timed], implementation: Implementation | None) -> Cell:
    ratio = _over_float32(runs, implementation)
    if implementation is None or ratio is None:
        return Cell("")
    id = time_id("speedup", runs[-1], implementation)
    return Cell(Number(ratio.value, times_as), id, records=ratio.records)


def _crossing(where: str, workload: str, curve: dict[float, float]) -> str:
    _, words = crossover(tuple(sorted(curve)), tuple(curve[x] for x in sorted(curve)))
    measure = ("products with packing of A, by the cube root of M N K" if workload == "gemm"
               else f"{workload}, by images")  # fmt: skip
    return f"{where}, {measure}: {words}."


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


# ---- the curves ------------------------------------------------------------------------------


def figures(runs: list[Timed]) -> list[Figure]:
    """A panel for each machine; [] where no cube was timed beside float32."""
    panels, caption = [], []
    for machine in sorted({run.machine for run in runs}):
        curves = _curves([run for run in runs if run.machine == machine])
        if not curves:
            continue
        series = [_series(label, curve) for label, curve in curves.items()]
        packing = next((s for s in series if s.label == PACKING), None)
        crossing, words = crossover(packing.x, packing.y) if packing else (None, "not run")
        panels.append(
            Panel(machine, "size M = N = K (log scale)", "times as fast as float32\n(log scale)",
                  tuple(series), log_x=True, log_y=True, mark=crossing, x_name="size",
                  y_name="over_float32")
        )  # fmt: skip
        caption.append(f"{machine}: {words}.")
    if not panels:
        return []
    text = ("Of each size the fastest kernel of its kind, over the fastest library in float32 in "
            "the same run; 1 is float32 itself. Crossover of XNOR with packing: ")  # fmt: skip
    title = "Speed-up over float32 against size"
    return [Figure("speedup", title, text + " ".join(caption), tuple(panels))]


def _curves(runs: list[Timed]) -> dict[str, Curve]:
    """By label, of each size the fastest of its kind."""
    curves: dict[str, Curve] = {label: {} for label in (BITS_OUT, PACKING, *PRECISIONS.values())}
    for run, implementation in standing_times(runs):
        label = _label(implementation)
        if run.workload != "gemm" or len(set(run.work.size)) != 1 or not label:
            continue
        over, size = fastest_float32(run), float(run.work.size[0])
        value = run.ratio(implementation, over) if over else None
        if value is not None and value > curves[label].get(size, (0.0, ""))[0]:
            curves[label][size] = value, run.records[implementation].name
    return {label: curve for label, curve in curves.items() if curve}


def _label(implementation: Implementation) -> str:
    """ "" of what has no curve."""
    if implementation.role is Role.ours:
        return OURS.get(implementation.form, "")
    return PRECISIONS[implementation.method] if implementation.role is Role.low_precision else ""


def _series(label: str, curve: Curve) -> Series:
    points = sorted(curve.items())
    return Series(
        label,
        tuple(size for size, _ in points),
        tuple(value for _, (value, _) in points),
        group=label,
        dashed=label in PRECISIONS.values(),
        records=tuple(record for _, (_, record) in points),
    )
