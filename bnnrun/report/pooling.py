"""From records to one number: mean, deviation, interval, and how it compares with the paper's."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scipy import stats

from bnnrun.paper import EPOCHS, TEST_IMAGES, Number
from bnnrun.records import Record
from bnnrun.table import Measured, Parts, Value

NOT_RUN, DIFFERENT_DATA, REDUCED = "not run", "different data", "reduced budget"
WITHIN_NOISE, BETTER, WORSE = "within noise", "better", "worse"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Pool:
    """Records alike in all but the seed, one a seed."""

    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def n(self) -> int:
        return len(self.records)

    @property
    def mean(self) -> float:
        """Of the test errors, %."""
        return statistics.mean(r.value for r in self.records)

    @property
    def deviation(self) -> float | None:
        """Between seeds, %; None of a single run."""
        return statistics.stdev(r.value for r in self.records) if self.n > 1 else None

    @property
    def dataset(self) -> str:
        return str(self.first.data.get("name") or _leaf(self.first.config, "dataset", "name") or "")

    @property
    def epochs(self) -> int | None:
        """None where the record does not tell."""
        epochs = self.first.details.get("epochs") or _leaf(self.first.config, "trainer", "epochs")
        return epochs if isinstance(epochs, int) else None

    @property
    def images(self) -> int | None:
        """Test images: the record's own number, else the published set's."""
        images = self.first.data.get("test")
        return images if isinstance(images, int) and images > 0 else TEST_IMAGES.get(self.dataset)

    @property
    def latest(self) -> str:
        return max(record.created for record in self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the records, oldest first."""
        return tuple(r.name for r in sorted(self.records, key=lambda r: (r.created, r.name)))

    @property
    def measured(self) -> Measured:
        """Mean and deviation of the test errors, %."""
        return mean_and_deviation(r.value for r in self.records)

    @property
    def measured_n(self) -> Parts:
        """The same, their number told to programs alone."""
        return Parts(str(self.measured), (*self.measured.parts, self.n))

    def mean_of(self, key: str) -> Value:
        """Mean ± deviation of another number of the same runs; "" where a record lacks it."""
        values = [record.details.get(key) for record in self.records]
        return mean_and_deviation(values) if all(map(_is_number, values)) else ""


def pool(records: Iterable[Record]) -> list[Pool]:
    """Records pooled, of which no two are alike in the seed too."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(alike(record), []).append(record)
    return [Pool(tuple(sorted(group, key=lambda r: r.seed))) for group in groups.values()]


def by_budget(pools: Iterable[Pool]) -> list[Pool]:
    """The one that leads first: the largest budget, then the most seeds, then the latest."""
    return sorted(pools, key=lambda p: (p.epochs or 0, p.n, p.latest, p.names), reverse=True)


def alike(record: Record) -> str:
    """All that records of one pool have in common, the data that was read with it."""
    config = {key: value for key, value in record.config.items() if key != "seed"}
    files = [file.get("md5") for file in _files(record)]
    return json.dumps(
        [record.experiment, record.cell, record.quantity, record.device, config, files],
        sort_keys=True,
    )


def interval(pooled: Pool) -> tuple[float, float] | None:
    """95 % interval of the test error, %: Student's t between seeds, Wilson's of a single run.

    None where a single run does not say on how many images.
    """
    if pooled.deviation is not None:
        deviations = stats.t.ppf((1 + CONFIDENCE) / 2, pooled.n - 1)
        half = deviations * pooled.deviation / math.sqrt(pooled.n)
        return max(0.0, pooled.mean - half), min(100.0, pooled.mean + half)
    if not pooled.images or not 0 <= pooled.mean <= 100:
        return None
    wrong = round(pooled.mean / 100 * pooled.images)
    wilson = stats.binomtest(wrong, pooled.images).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(wilson.low), 100 * float(wilson.high)


def interval_value(pooled: Pool) -> Value:
    """The interval as a table shows it."""
    limits = interval(pooled)
    return Parts(f"{limits[0]:.2f} to {limits[1]:.2f}", limits) if limits else ""


def printed_value(paper: Number) -> Parts:
    """The paper's number and deviation as a table shows them."""
    return Parts(paper.text, (paper.value, paper.deviation))


def noise(pooled: Pool) -> float | None:
    """What a difference from a single run of others may be by chance, in % of test images.

    2 sqrt(s²/n + 2p(1-p)/N): the seeds' own spread s (0 of one run), and the sampling of N
    test images by both, each with variance p(1-p)/N.
    """
    if not pooled.images:
        return None
    return 200 * math.sqrt(_seed_variance(pooled) + 2 * _sampling_variance(pooled))


def _seed_variance(pooled: Pool) -> float:
    """Variance of the mean between seeds, s²/n."""
    return ((pooled.deviation or 0.0) / 100) ** 2 / pooled.n


def _sampling_variance(pooled: Pool) -> float:
    """Variance of an error on N test images sampled once, p(1-p)/N."""
    p = pooled.mean / 100
    return max(0.0, p * (1 - p)) / pooled.images if pooled.images else math.inf


def distance(pooled: Pool, paper: Number) -> tuple[float, float | None]:
    """(points above the paper's number, the same in standard deviations by chance)."""
    points, bound = pooled.mean - paper.value, noise(pooled)
    return points, points / (bound / 2) if bound else None


def verdict(pooled: Pool | None, paper: Number) -> str:
    """A pool beside the paper's number: what makes it incomparable first, then the comparison."""
    if pooled is None:
        return NOT_RUN
    if pooled.first.data.get("name") != paper.column or data_notes(pooled.first):
        return DIFFERENT_DATA
    full_schedule = EPOCHS[paper.column]
    if pooled.epochs is None:
        return f"{REDUCED} (epochs not recorded)"
    if pooled.epochs < full_schedule:
        return f"{REDUCED} ({pooled.epochs:,} of {full_schedule:,} epochs)"
    bound = noise(pooled)
    assert bound is not None, "the published sets have a known number of test images"
    if abs(pooled.mean - paper.value) <= bound:
        return WITHIN_NOISE
    return BETTER if pooled.mean < paper.value else WORSE


def difference(ours: Pool, other: Pool) -> str:
    """One pool beside another of ours: the same comparison with the spread of both."""
    variance = sum(_seed_variance(each) + _sampling_variance(each) for each in (ours, other))
    bound = 200 * math.sqrt(variance)
    if abs(ours.mean - other.mean) <= bound:
        return WITHIN_NOISE
    return BETTER if ours.mean < other.mean else WORSE


def data_notes(record: Record) -> list[str]:
    """In what the data differ from the published files as the authors split them."""
    if not record.data.get("name"):
        return ["the record does not say what data was read"]
    notes = [str(note) for note in record.data.get("notes") or []]
    said = " ".join(notes)
    for file in _files(record):
        name, published = file.get("name"), file.get("published_md5")
        if published and file.get("md5") != published and f"{name}:" not in said:
            notes.append(f"{name} is not the published file")
    return notes


def notes(pooled: Pool) -> tuple[str, ...]:
    """What a reader must know of a pool's number."""
    lines = data_notes(pooled.first)
    for record in pooled.records:
        lines += [f"seed {record.seed}: {note}" for note in record_notes(record)]
    return tuple(lines)


def record_notes(record: Record) -> list[str]:
    """What a single record lacks: a clean tree, a commit, a curve."""
    clean = record.source.get("clean")
    lines = [] if clean else ["the tree was not clean"]
    if clean is None:
        lines = ["whether the tree was clean is not recorded"]
    if not record.source.get("commit"):
        lines.append("no commit is recorded")
    if record.quantity == "test_error" and not record.details.get("curve"):
        lines.append("no curve in its record")
    return lines


def how_sure(pooled: Pool) -> str:
    """Which interval `interval` gives."""
    if pooled.n > 1:
        return f"Student's t over {pooled.n} seeds"
    return f"Wilson's, one run on {pooled.images:,} images" if pooled.images else "none: one run"


def mean_and_deviation(values: Iterable[Any]) -> Measured:
    values = list(values)
    return Measured(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def _files(record: Record) -> list[dict[str, Any]]:
    files = record.data.get("files") or []
    return [file for file in files if isinstance(file, dict)]


def _leaf(tree: dict[str, Any], *path: str) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None  # type: ignore[assignment]
    return tree


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
