"""Figures as PNG and SVG: the same bytes each time, colours that the colour-blind tell apart."""

import base64
import functools
import html
import io
import math
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from bnnrun.report import filters
from bnnrun.report.content import Figure, Panel, Series

# Inches. On the 340 pixels that a phone leaves for it, a letter of nine points has ten.
# Margins are fixed: letters have one size, and a layout found by trying costs a second a figure.
WIDTH, LEFT, RIGHT, RIGHT_SCALE = 4.2, 0.74, 0.14, 0.7
ABOVE, BELOW, CURVES, BAR, LEGEND = 0.28, 0.5, 1.75, 0.19, 0.18
INK, GRID, GROUND = "#1b1b1b", "#d5d5d5", "#ffffff"
# Okabe and Ito's colours that stand out on white by 3 to 1, each with its light one for the dark.
COLOURS = {
    "#0072b2": "#56b4e9",
    "#d55e00": "#e69f00",
    "#1c1c1c": "#f2f2f2",
    "#00805c": "#00b386",
    "#b0568c": "#cc79a7",
    "#6b6b6b": "#a8a8a8",
}
DARK = {INK: "#e8e8e8", GRID: "#454a52", **COLOURS}
MARKERS = "os^Dvx"
STYLE: Any = {
    "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True,
    "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.formatter.use_mathtext": False, "lines.linewidth": 1.5, "lines.markersize": 4.5,
    "hatch.linewidth": 0.8, "legend.frameon": False, "svg.fonttype": "none",
}  # fmt: skip


@functools.cache  # a report writes the files, then the page with the same drawings
def draw(figure: Figure) -> dict[str, bytes]:
    """The figure as "png", on white, and "svg", on no ground and light letters in the dark."""
    if figure.filters is not None:
        return _picture(figure, filters.draw(figure.filters))
    with mpl.rc_context():
        mpl.rcdefaults()  # a reader's own matplotlibrc changes nothing
        mpl.rcParams.update({**STYLE, "svg.hashsalt": figure.name})
        canvas = _canvas(figure)
        png, svg = io.BytesIO(), io.BytesIO()
        canvas.savefig(png, format="png", dpi=200, facecolor=GROUND, metadata={"Software": None})
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(svg, format="svg", transparent=True, metadata=none)
    return {"png": png.getvalue(), "svg": _for_pages(svg.getvalue().decode(), figure).encode()}


def _canvas(figure: Figure) -> Canvas:
    """The panels under each other, one legend under all."""
    colours = {group: i for i, group in enumerate(dict.fromkeys(map(_group, _all(figure))))}
    labels = list(dict.fromkeys(series.label for series in _all(figure)))
    across = 2 if max(map(len, labels)) < 24 else 1
    heights = [
        BAR * len(panel.names) * (len(panel.series) + 0.5) if panel.bars else CURVES
        for panel in figure.panels
    ]
    bottom = LEGEND * -(-len(labels) // across) + 0.08
    height = bottom + sum(heights) + len(heights) * (ABOVE + BELOW)
    canvas = Canvas(figsize=(WIDTH, height))
    wide = WIDTH - LEFT - max(RIGHT_SCALE if p.paper_label else RIGHT for p in figure.panels)
    shown: dict[str, Any] = {}
    top = height
    for panel, inside in zip(figure.panels, heights, strict=True):
        top -= ABOVE + inside
        ax = canvas.add_axes((LEFT / WIDTH, top / height, wide / WIDTH, inside / height))
        shown = (_bars if panel.bars else _curves)(panel, ax, colours) | shown
        top -= BELOW
    canvas.legend([shown[label] for label in labels], labels, loc="lower left", ncols=across,
                  borderpad=0, borderaxespad=0.3, handlelength=3)  # fmt: skip
    return canvas


def _all(figure: Figure) -> list[Series]:
    return [series for panel in figure.panels for series in panel.series]


def _group(series: Series) -> str:
    return series.group or series.label


# ---- curves ----------------------------------------------------------------------------------


def _curves(panel: Panel, ax: Axes, colours: dict[str, int]) -> dict[str, Any]:
    """Draw the panel's curves; returns what the legend shows of each label."""
    right = ax.twinx() if panel.paper_label else None
    shown: dict[str, Any] = {}
    for series in panel.series:
        on = right if right is not None and series.of_paper else ax
        shown[series.label] = _curve(series, on, colours[_group(series)])
    _scales(panel, ax)
    if panel.mark is not None:
        ax.axvline(panel.mark, color=INK, linewidth=0.8, linestyle=":")
    if right is not None:
        right.set_ylabel(panel.paper_label)
        right.spines["right"].set_visible(True)
        right.set_ylim(bottom=0)
        right.grid(visible=False)
    return shown


def _colour(i: int) -> str:
    return list(COLOURS)[i % len(COLOURS)]


def _curve(series: Series, ax: Axes, i: int) -> Any:
    colour = _colour(i)
    if series.low:
        ax.vlines(series.x, series.low, series.high, color=colour, linewidth=2.5, alpha=0.35)
    thin = series.of_paper or len(series.x) > 100
    (line,) = ax.plot(
        series.x, series.y, color=colour, marker=MARKERS[i % len(MARKERS)],
        linestyle="--" if series.dashed else "-", linewidth=0.9 if thin else 1.6,
        markerfacecolor="none" if series.of_paper else colour,
        markevery=max(1, len(series.x) // 10),
    )  # fmt: skip
    return line


def _scales(panel: Panel, ax: Axes) -> None:
    ax.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.names:
        ax.set_xticks(range(len(panel.names)), panel.names)
    elif panel.log_x:
        ax.set_xscale("log")
        sizes = sorted({x for series in panel.series for x in series.x})
        _plain(ax.xaxis, sizes if len(sizes) <= 6 else [])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if panel.log_y:
        ax.set_yscale("log")
        ax.axhline(1, color=INK, linewidth=0.8)
        _plain(ax.yaxis, [])
    else:
        ax.set_ylim(bottom=0)


def _plain(axis: Axis, ticks: list[float]) -> None:
    """Ticks of a logarithmic axis as numbers, not powers; at `ticks` where some are given."""
    low, high = axis.get_view_interval()
    if ticks:
        axis.set_ticks(ticks)
    else:
        few = high / low > 200  # numbers at 1, 2 and 5 would run into each other
        axis.set_major_locator(LogLocator(10, subs=(1,) if few else (1, 2, 5), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


# ---- bars ------------------------------------------------------------------------------------


def _bars(panel: Panel, ax: Axes, colours: dict[str, int]) -> dict[str, Any]:
    """Draw lying bars, the first name on top, each with its number; "not run" for none."""
    shown: dict[str, Any] = {}
    count = len(panel.series)
    values = [y for series in panel.series for y in series.y]
    left, right = 10 ** math.floor(math.log10(min(values) / 2)), max(values)
    for j, series in enumerate(panel.series):
        colour = _colour(colours[_group(series)])
        hatch = "/////" if series.of_paper else ""
        of_name = dict(zip(series.x, series.y, strict=True))
        for i in range(len(panel.names)):
            value, y = of_name.get(i), i + (j - (count - 1) / 2) * 0.8 / count
            text, at = ("not run", left) if value is None else (f"{value:.3g}", value)
            ax.annotate(text, (at, y), (3, 0), textcoords="offset points", va="center",
                        fontsize=8.5)  # fmt: skip
            if value is not None:
                shown[series.label] = ax.barh(
                    y, value - left, 0.7 / count, left=left, hatch=hatch, edgecolor=colour,
                    facecolor="none" if hatch else colour,
                )  # fmt: skip
    ax.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label, xscale="log")
    ax.set_xlim(left, right * (right / left) ** 0.12)  # room for the number of the longest
    ax.set_yticks(range(len(panel.names)), panel.names)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    _plain(ax.xaxis, [])
    return shown


# ---- pages -----------------------------------------------------------------------------------


def _for_pages(svg: str, figure: Figure) -> str:
    """The drawing as a page can hold it among others: a name for those who cannot see it, no
    prologue, no identifier that another drawing has too, its colours exchanged in the dark."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<style.*?</style>", f"<style>{_dark()}</style>", svg, count=1, flags=re.DOTALL)
    return svg.replace("<svg", f"<svg {_named(figure)}", 1)


def _named(figure: Figure) -> str:
    return f'class="figure" role="img" aria-label="{html.escape(figure.title)}"'


def _dark() -> str:
    """The same drawing with the light colour of each pair, where a reader's screen is dark.

    The rules name no ancestor: a marker that is drawn again and again has none where it is used.
    """
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("stroke", "fill")
    )
    round_ends = ".figure *{stroke-linejoin:round;stroke-linecap:butt}"
    return f"{round_ends}@media screen and (prefers-color-scheme:dark){{{rules}}}"


def _picture(figure: Figure, image: Image.Image) -> dict[str, bytes]:
    """An image of pixels; as SVG, embedded and enlarged without blurring."""
    png = io.BytesIO()
    image.save(png, "PNG")
    data = base64.b64encode(png.getvalue()).decode()
    width, height = image.size
    svg = (
        f'<svg {_named(figure)} xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<image width="{width}" height="{height}" style="image-rendering: pixelated" '
        f'href="data:image/png;base64,{data}"/></svg>\n'
    )
    return {"png": png.getvalue(), "svg": svg.encode()}
