"""The atlas in files: a row a question while it is made, a row a head when it is done; read with every check.

Two lines in a notebook:

    from probes.atlas_files import latest_atlas
    heads = latest_atlas("experiments/pocket-tuned").heads  # a pandas table, a row a head

Columns of a head are its measures (`probes.atlas_measures`), each with `_low` and `_high`, the 95 % interval,
and `_questions`, how many it is over. The trap: a list column holds layers and heads row by row, and its
length alone does not say how many of which; `about` does, and what does not fit it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr

from probes.analyses import Found, Kind, find_analyses, read_analysis
from probes.atlas_measures import MEASURES, QUESTION_MEASURES, SIZE_MEASURES
from probes.atlas_roles import roles_of
from probes.atlas_statistics import ClusterMeans, Means, by_paragraph
from qa.errors import UserError
from qa.experiment import Experiment
from qa.files import BrokenFileError

Float = NDArray[np.float64]

COMMAND = "python -m probes atlas NAME"
ENDS = ("", "_low", "_high")
SCORES = ("exact_match", "f1")

QUESTIONS = Kind(
    "atlas_questions",
    1,
    pa.schema(
        [
            ("id", pa.string()),
            ("paragraph", pa.string()),
            # Layers and heads row by row; null where there is no such thing, NaN where a head has none.
            *((measure.name, pa.list_(pa.field("element", pa.float32()))) for measure in QUESTION_MEASURES),
        ]
    ),
    COMMAND,
)
_HEAD_COLUMNS = [
    ("layer", pa.int16()),
    ("head", pa.int16()),
    ("role", pa.string()),
    *(
        column
        for measure in MEASURES
        for column in (
            *((f"{measure.name}{end}", pa.float64()) for end in ENDS),
            (f"{measure.name}_questions", pa.int64()),
        )
    ),
]
HEADS = Kind("atlas", 1, pa.schema(_HEAD_COLUMNS), COMMAND)


@dataclass(frozen=True, slots=True)
class Atlas:
    """What every head of one model does, over one data set.

    Attributes:
        path: of its file.
        about: dataset (its name), data (fingerprint of the questions), questions, knockouts (how many of them
            heads were switched off for), how (zero or mean), layers, heads.
        heads: a row a head, by layer and then head.
        only: ids of the questions that heads is over; None: all of them.
        part: what those are called; "" for all.
    """

    path: Path
    about: dict[str, Any]
    heads: pd.DataFrame
    only: frozenset[str] | None = None
    part: str = ""

    @property
    def count(self) -> int:
        """Questions that heads is over."""
        return int(self.heads["entropy_questions"].max())

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return self.about["layers"], self.about["heads"]

    def map(self, column: str) -> Float:
        """A column as [L, H]."""
        values: Float = self.heads[column].to_numpy(dtype=np.float64).reshape(self.shape)
        return values

    def measured(self) -> list[str]:
        """The measures that any head has a value of."""
        return [measure.name for measure in MEASURES if self.heads[measure.name].notna().any()]

    def agreement(self) -> Agreement | None:
        """How well the gradient estimates what knock-out measures; None without knock-outs."""
        return agreement(self.map("knockout_size"), self.map("gradient_size"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlation over heads.

    Attributes:
        rho: Spearman's.
        low: lower end of its 95 % interval (Bonett and Wright 2000).
        high: upper end.
        heads: how many.
    """

    rho: float
    low: float
    high: float
    heads: int


def agreement(first: Float, second: Float) -> Agreement | None:
    """Of two maps [L, H]; None where heads do not differ or are too few."""
    there = np.isfinite(first) & np.isfinite(second)
    a, b = first[there], second[there]
    if len(a) < 5 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    rho = float(spearmanr(a, b).statistic)
    middle = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    reach = 1.959964 * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    low, high = np.tanh([middle - reach, middle + reach])
    return Agreement(rho, float(low), float(high), len(a))


def question_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows with id, paragraph and the measures [L, H] of each question that was measured."""
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in ("id", "paragraph")}
    for measure in QUESTION_MEASURES:
        maps = [row.get(measure.name) for row in rows]
        columns[measure.name] = [None if one is None else one.astype(np.float32).ravel() for one in maps]
    return pa.table(columns, schema=QUESTIONS.columns)


def summarised(path: Path, shape: tuple[int, int], only: Collection[str] | None = None) -> pa.Table:
    """The table of heads, from the file of questions, which is read a row group at a time.

    Args:
        path: of the questions.
        shape: layers and heads.
        only: ids of the questions that count; None: all.
    """
    means = ClusterMeans((len(MEASURES), *shape))
    for group in row_groups(path):
        part = group if only is None else group.filter(pc.is_in(group["id"], pa.array(only, pa.string())))
        if not len(part):
            continue
        values = np.stack([values_of(part, name, shape) for name in map(_source, MEASURES)], axis=1)
        for place in range(len(QUESTION_MEASURES), len(MEASURES)):
            values[:, place] = np.abs(values[:, place])
        for questions in by_paragraph(part["paragraph"].to_pylist()):
            means.add(values[questions])
    return head_table(means.means(), shape)


def _source(measure: Any) -> str:
    name: str = measure.name
    return name.removesuffix("_size") if measure in SIZE_MEASURES else name


def head_table(means: Means, shape: tuple[int, int]) -> pa.Table:
    """Of means of all MEASURES [M, L, H]."""
    layers, heads = np.indices(shape).reshape(2, -1)
    columns: dict[str, Any] = {"layer": layers, "head": heads}
    columns["role"] = role_map(means).ravel()
    for place, measure in enumerate(MEASURES):
        ends = (means.value[place], means.low[place], means.high[place])
        for end, values in zip(ENDS, ends, strict=True):
            columns[f"{measure.name}{end}"] = np.clip(values, measure.low, measure.high).ravel()
        columns[f"{measure.name}_questions"] = means.count[place].ravel()
    return pa.table(columns, schema=HEADS.columns)


def role_map(means: Means) -> NDArray[np.object_]:
    """The role of each head [L, H], of means of all MEASURES."""
    names = [measure.name for measure in MEASURES]
    return roles_of(dict(zip(names, means.low, strict=True)))


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The parts that a table was made in, one at a time."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def values_of(table: pa.Table, name: str, shape: tuple[int, int]) -> Float:
    """A measure of each question [Q, L, H]; NaN where it has none."""
    column = table[name].combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False)
    values = np.full((len(table), *shape), np.nan)
    values[there] = column.flatten().to_numpy().astype(np.float64).reshape(-1, *shape)
    return values


def find_atlases(experiment: Experiment) -> list[Path]:
    """The atlas files of an experiment, newest first; whether they can be used, `read_atlas` says."""
    return find_analyses(experiment, HEADS)


def read_atlas(path: Path, *, model: str | None = None) -> Atlas:
    """An atlas.

    Args:
        path: of its file.
        model: fingerprint of the model that it must be of; None: of any.

    Raises:
        UserError: it is cut short or none, or of another version, model or shape.
    """
    found = read_analysis(path, HEADS, model=model)
    L, H = shape_of(found)
    heads = found.table.to_pandas()
    if not np.array_equal(heads[["layer", "head"]].to_numpy(), np.indices((L, H)).reshape(2, -1).T):
        raise BrokenFileError(f"{path}: not {L} layers of {H} heads, as it says; make it again: {COMMAND}")
    return Atlas(path, found.about, heads)


def shape_of(found: Found, *, prefix: str = "") -> tuple[int, int]:
    """Layers and heads that a table says it is of.

    Args:
        found: the table.
        prefix: of the names under which it says so.

    Raises:
        BrokenFileError: it does not.
    """
    L, H = (found.about.get(f"{prefix}{name}") for name in ("layers", "heads"))
    if type(L) is not int or type(H) is not int or not (0 < L < 1000 and 0 < H < 1000):
        raise BrokenFileError(
            f"{found.path}: does not say of how many layers and heads; make it again: {COMMAND}"
        )
    return L, H


def latest_atlas(folder: str | Path) -> Atlas:
    """The newest atlas in an experiment's folder.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    experiment = Experiment(Path(folder))
    found = find_atlases(experiment)
    if not found:
        raise UserError(f"{folder}: no atlas yet; make one: python -m probes atlas {experiment.name}")
    return read_atlas(found[0])
