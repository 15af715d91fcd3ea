"""`bnnrun report`: every table and figure, made from the records alone."""

import sys
from pathlib import Path

from bnnrun.config import ReportConfig
from bnnrun.errors import InputError, RunError
from bnnrun.files import user_path, write_bytes, write_text
from bnnrun.report import formats, tables
from bnnrun.report.collect import Collected, collect
from bnnrun.report.content import Figure, Table
from bnnrun.report.experiments import Experiment
from bnnrun.report.figures import draw, figure_csv, figures
from bnnrun.report.page import page, without_drawings
from bnnrun.report.readme import block, readme_of
from bnnrun.report.trace import trace
from bnnrun.table import print_table

WRITTEN = ("tables", "figures")  # folders that hold nothing else
SHOWN = ("table1", "figure3", "packed", "ablations", "other_runs")  # on the terminal


def report(config: ReportConfig, experiments: list[Experiment]) -> None:
    """Write the report of `results_dir`, compare it (check), or explain one cell of it (cell)."""
    collected = collect(config.results_dir)
    for line in collected.left_out:
        print(f"bnnrun: left out: {line}", file=sys.stderr)
    if not collected.records:
        raise InputError(
            f"results_dir={config.results_dir}: no records in its runs/; `bnnrun train "
            "dataset=digits` makes one in half a minute"
        )
    all_tables = tables.tables(collected.records, experiments, collected.left_out, collected.models)
    if config.cell:
        print(trace(config.cell, all_tables, collected.records), end="")
        return
    folder = user_path(config.results_dir)
    drawn = figures(collected.records, experiments)
    texts = content(all_tables, drawn, collected)
    readme = readme_of(folder, block(collected.records, experiments))
    if config.check:
        check(folder, texts, drawn, readme, collected)
        return
    _show(all_tables)
    _write(folder, texts, drawn, readme)
    names = f"tables.md, index.html, {len(all_tables)} tables, {len(drawn)} figures"
    print(f"written: {folder}: {names}{', the README block' if readme else ''}")


def content(all_tables: list[Table], drawn: list[Figure], collected: Collected) -> dict[str, str]:
    """All that a report writes as text, by its path in the results folder."""
    texts = {"tables.md": _tables_md(all_tables, drawn)}
    for table in all_tables:
        texts[f"tables/{table.name}.csv"] = formats.csv_text(table)
        texts[f"tables/{table.name}.tex"] = formats.latex(table)
    for figure in drawn:
        texts[f"figures/{figure.name}.csv"] = figure_csv(figure)
    left_out = [f"A record was left out: {line}" for line in collected.left_out]
    texts["index.html"] = page(all_tables, drawn, collected.records, left_out)
    return texts


def _tables_md(all_tables: list[Table], drawn: list[Figure]) -> str:
    begin = (
        "# Results\n\nMade by `bnnrun report` from the records in `runs/`; not edited by hand. "
        "`bnnrun report cell=ID` leads from a number to its runs, as [index.html](index.html) "
        "does.\n"
    )
    main = [table for table in all_tables if table.name != "earlier"]
    parts = [begin, *(formats.markdown(table) for table in main)]
    parts += [
        f"## {figure.title}\n\n![{figure.title}](figures/{figure.name}.svg)\n\n{figure.caption}\n"
        for figure in drawn
    ]
    parts += [formats.markdown(table) for table in all_tables if table not in main]
    return "\n".join(parts)


# ---- write -----------------------------------------------------------------------------------


def _write(
    folder: Path, texts: dict[str, str], drawn: list[Figure], readme: tuple[Path, str] | None
) -> None:
    for path in surplus(folder, texts, drawn):
        path.unlink()
    for name, text in texts.items():
        write_text(folder / name, text)
    for figure in drawn:
        for suffix, picture in draw(figure).items():
            place = folder / "figures" / f"{figure.name}.{suffix}"
            write_bytes(place, picture)
    if readme is not None:
        write_text(*readme)


def surplus(folder: Path, texts: dict[str, str], drawn: list[Figure]) -> list[Path]:
    """Files of an earlier report that this one does not make."""
    written = {folder / name for name in texts} | pictures(folder, drawn)
    present = (path for name in WRITTEN for path in (folder / name).glob("[!.]*"))
    return sorted(path for path in present if path not in written)


def pictures(folder: Path, drawn: list[Figure]) -> set[Path]:
    return {folder / "figures" / f"{f.name}.{suffix}" for f in drawn for suffix in ("png", "svg")}


def _show(all_tables: list[Table]) -> None:
    """The tables' rows that have numbers, on the terminal."""
    for table in (t for t in all_tables if t.name in SHOWN):
        rows = [[_text(cell.text, str(cell.paper), cell.verdict) for cell in row]
                for row in table.rows if any(cell.records for cell in row)]  # fmt: skip
        if rows:
            print_table(table.columns, rows, title=table.title)
    print("; ".join(all_tables[0].notes[:1]))


def _text(text: str, paper: str, verdict: str) -> str:
    parts = (text, f"(paper {paper})" if paper else "", verdict if verdict != text else "")
    return " ".join(part for part in parts if part)


# ---- check -----------------------------------------------------------------------------------


def check(
    folder: Path, texts: dict[str, str], drawn: list[Figure], readme: tuple[Path, str] | None,
    collected: Collected,
) -> None:  # fmt: skip
    """Compare what stands in the folder with what the records give; RunError where it differs.

    Pictures are not compared: their data are, and that they are there.
    """
    stale = [name for name, text in texts.items() if not _is(folder / name, text)]
    stale += [f"figures/{path.name} (absent)" for path in sorted(pictures(folder, drawn))
              if not path.is_file()]  # fmt: skip
    stale += [f"{p.relative_to(folder)} (not made from these records)"
              for p in surplus(folder, texts, drawn)]  # fmt: skip
    if readme is not None and not _is(*readme):
        stale.append("../README.md")
    for name in stale:
        print(f"bnnrun: differs from the records: {folder / name}", file=sys.stderr)
    wrong = [f"{len(stale)} files differ from the records: `bnnrun report` makes them again"]
    wrong = wrong if stale else []
    if collected.left_out:
        wrong.append(f"{len(collected.left_out)} records cannot be read")
    if wrong:
        raise RunError(f"results_dir={folder}: {'; '.join(wrong)}")
    print(f"{folder}: {len(texts)} files are what {len(collected.records)} records give")


def _is(path: Path, text: str) -> bool:
    """Whether a file holds this text, the drawings of a page apart."""
    try:
        there = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if path.suffix == ".html":
        return without_drawings(there) == without_drawings(text)
    return there == text
