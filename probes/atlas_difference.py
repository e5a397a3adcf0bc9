"""Two models' heads on the same questions: which look elsewhere, which are new, and which are gone.

The distance of two heads is the Jensen-Shannon distance of their rows, word by word, from 0 (they attend
alike) to 1 (to nothing in common), averaged over the words of the first window of each question. A head has
*changed* if it is some way from the head in its own place, has *vanished* if it is far from every head of the
other model, and one of the other model that is far from all here has *appeared*; both are stated numbers.
The trap: training may move what a head does to another place, so a change of place alone is no loss.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from probes.analyses import (
    Header,
    Kind,
    checkpoint_fingerprint,
    find_analyses,
    read_analysis,
    write_analysis,
)
from probes.atlas_files import ENDS, row_groups, shape_of, values_of
from probes.atlas_making import Stage, Table, by_paragraphs, make_table, parts_of
from probes.atlas_processes import Processes
from probes.atlas_statistics import ClusterMeans, Means, by_paragraph
from probes.attend import attend
from probes.encoders import describe
from probes.maps import QUESTION, SEP, Float, View, row_shares
from qa.errors import UserError
from qa.experiment import Experiment
from qa.files import BrokenFileError
from qa.reader import Reader
from qa.squad import Question, QuestionSet

COMMAND = "python -m probes atlas NAME --against OTHER"
QUESTIONS = 30
# At least this far from the head in its place, a head looks elsewhere; so far from all, it is of a kind of
# its own. Different heads of one trained model are mostly farther apart than the second.
CHANGED, FAR = 0.25, 0.5
SIDES = ("here", "other")
# What a side is asked for. That a head of the other model has changed is said of the place it has here.
VERDICTS = {"here": ("changed", "vanished"), "other": ("appeared",)}

DISTANCES = Kind(
    "atlas_distances",
    1,
    pa.schema(
        [
            ("id", pa.string()),
            ("paragraph", pa.string()),
            # From every head here to every head of the other model, row by row.
            ("distances", pa.list_(pa.field("element", pa.float32()))),
        ]
    ),
    COMMAND,
)
DIFFERENCE = Kind(
    "atlas_difference",
    1,
    pa.schema(
        [
            ("side", pa.string()),
            ("layer", pa.int16()),
            ("head", pa.int16()),
            ("verdict", pa.string()),
            # To the head in the same place; NaN where the models have other shapes.
            *((f"place{end}", pa.float64()) for end in ENDS),
            # To the nearest head of the other model, and which it is.
            *((f"nearest{end}", pa.float64()) for end in ENDS),
            ("nearest_layer", pa.int16()),
            ("nearest_head", pa.int16()),
        ]
    ),
    COMMAND,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the heads.

    Attributes:
        path: of its file.
        about: dataset, data, questions; layers and heads here; other (its name), other_model, other_layers
            and other_heads.
        heads: a row for each head of both sides, see DIFFERENCE.
    """

    path: Path
    about: dict[str, Any]
    heads: pd.DataFrame

    def side(self, name: str) -> pd.DataFrame:
        """The rows of one of SIDES, by layer and head."""
        return self.heads[self.heads["side"] == name].reset_index(drop=True)

    def clear(self) -> dict[str, list[tuple[int, int]]]:
        """The heads of each verdict as (layer, head); those that appeared are of the other model."""
        found = {}
        for side, verdicts in VERDICTS.items():
            heads = self.side(side)
            for verdict in verdicts:
                rows = heads.loc[heads["verdict"] == verdict, ["layer", "head"]]
                found[verdict] = [(int(layer), int(head)) for layer, head in rows.to_numpy()]
        return found


@dataclass(frozen=True, slots=True)
class Pair:
    """Two experiments with models, the first of which the result goes to."""

    here: Experiment
    other: Experiment
    readers: tuple[Reader, Reader]
    questions: QuestionSet

    @staticmethod
    def of(here: Experiment, other: Experiment, questions: QuestionSet, *, device: str = "auto") -> Pair:
        """Both models, to read the same questions.

        Raises:
            UserError: the same experiment twice, one without a model, or an architecture that is not covered.
        """
        if here.path.resolve() == other.path.resolve():
            raise UserError(f"--against {other.name}: that is the same experiment; choose another")
        readers = Reader.of(here, device=device), Reader.of(other, device=device)
        for reader in readers:
            describe(reader.encoder.model)
        return Pair(here, other, readers, by_paragraphs(questions))

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Layers and heads of both."""
        first, second = (describe(reader.encoder.model) for reader in self.readers)
        return (len(first.layers), first.heads), (len(second.layers), second.heads)

    @property
    def about(self) -> dict[str, Any]:
        """What its files are about."""
        (layers, heads), (other_layers, other_heads) = self.shapes
        return {
            "dataset": self.questions.name,
            "data": self.questions.sha256(),
            "questions": len(self.questions.questions),
            "layers": layers,
            "heads": heads,
            "other": self.other.name,
            "other_model": checkpoint_fingerprint(self.other.model_folder()),
            "other_layers": other_layers,
            "other_heads": other_heads,
        }


def make_difference(pair: Pair, *, stage: Stage, processes: Processes) -> Path:
    """Make the table of what became of the heads; its path.

    Args:
        pair: of experiments.
        stage: see `probes.atlas_making.Stage`.
        processes: who shares the work.

    Raises:
        UserError: another command is making it, or the folder cannot be written.
    """
    model, about = checkpoint_fingerprint(pair.here.model_folder()), pair.about
    table = Table(
        Header(DISTANCES, model, about),
        parts_of(pair.questions),
        lambda question: distances_of(pair.readers, question),
        _joined,
    )
    path = make_table(pair.here, table, progress=stage("difference"), processes=processes)
    target = Header(DIFFERENCE, model, about)
    if processes.is_first:
        write_analysis(pair.here, target, _summarised(path, pair.shapes))
    processes.wait()
    return path.with_name(target.file_name)


def _joined(rows: list[tuple[Question, Float]]) -> pa.Table:
    columns = {
        "id": [question.id for question, _ in rows],
        "paragraph": [question.paragraph for question, _ in rows],
        "distances": [distances.ravel() for _, distances in rows],
    }
    return pa.table(columns, schema=DISTANCES.columns)


def distances_of(readers: tuple[Reader, Reader], question: Question) -> tuple[Question, Float]:
    """The distances from all heads of one model to all of another [L * H, L' * H'], over one question."""
    first, second = (
        attend(reader, question.question, question.context, windows=[0], dtype=torch.float32)
        .window(0)
        .by("word")
        for reader in readers
    )
    return question, js_distances(*shared_words(first, second))


def shared_words(first: View, second: View) -> tuple[Float, Float]:
    """Maps of both over the words that both have [L * H, N, N], [L' * H', N, N]; rows sum to 1.

    Tokenizers may join words that others keep apart, and windows may end at different places.
    """
    keys = [_keys(view) for view in (first, second)]
    places = [{key: place for place, key in enumerate(own)} for own in keys]
    shared = [key for key in keys[0] if key in places[1]]
    found = []
    for view, own in zip((first, second), places, strict=True):
        chosen = [own[key] for key in shared]
        maps = view.probabilities[:, :, chosen][..., chosen]
        found.append(row_shares(maps.reshape(-1, len(chosen), len(chosen))))
    return found[0], found[1]


def _keys(view: View) -> list[tuple[int, int, int, int]]:
    """What each word is, whatever model reads it: text, characters, and which of its special tokens."""
    seen: Counter[tuple[int, int, int]] = Counter()
    keys = []
    for region, (start, end) in zip(view.regions.tolist(), view.chars.tolist(), strict=True):
        kind = region if region <= SEP else SEP + 1  # the answer is another one in another model
        key = (kind, start, end)
        seen[key] += 1
        keys.append((*key, 0 if kind in (QUESTION, SEP + 1) and end > start else seen[key]))
    return keys


def js_distances(first: Float, second: Float) -> Float:
    """Jensen-Shannon distance of rows [A, N, N] and [B, N, N], mean over rows [A, B]."""
    ours, theirs = torch.from_numpy(first), torch.from_numpy(second)
    entropies = [torch.special.entr(maps).sum(-1) for maps in (ours, theirs)]  # [A, N], [B, N]
    distances = np.empty((len(first), len(second)), dtype=np.float32)
    for place, own in enumerate(ours):
        mixed = torch.special.entr((own + theirs) / 2).sum(-1)  # [B, N]
        divergence = (mixed - (entropies[0][place] + entropies[1]) / 2) / np.log(2)
        distances[place] = divergence.clamp(0, 1).sqrt().mean(-1).numpy()
    return distances


def _summarised(path: Path, shapes: tuple[tuple[int, int], tuple[int, int]]) -> pa.Table:
    sizes = tuple(int(np.prod(shape)) for shape in shapes)
    means = ClusterMeans(sizes)
    for part in row_groups(path):
        values = values_of(part, "distances", (sizes[0], sizes[1]))
        for questions in by_paragraph(part["paragraph"].to_pylist()):
            means.add(values[questions])
    found = means.means()
    turned = Means(found.value.T, found.low.T, found.high.T, found.count.T)
    rows = [
        pd.DataFrame(_side(own, SIDES[place], shapes[place], shapes[1 - place]))
        for place, own in enumerate((found, turned))
    ]
    return pa.Table.from_pandas(pd.concat(rows), schema=DIFFERENCE.columns, preserve_index=False)


def _side(means: Means, side: str, shape: tuple[int, int], other: tuple[int, int]) -> dict[str, Any]:
    """The columns of the heads of one model, of distances to those of the other [own, other]."""
    layers, heads = np.indices(shape).reshape(2, -1)
    nearest, own = means.value.argmin(1), np.arange(len(layers))
    columns: dict[str, Any] = {"side": side, "layer": layers, "head": heads}
    for end, values in zip(ENDS, (means.value, means.low, means.high), strict=True):
        same = np.diag(values) if shape == other else np.full(len(layers), np.nan)
        columns[f"place{end}"] = np.clip(same, 0, 1)
        columns[f"nearest{end}"] = np.clip(values[own, nearest], 0, 1)
    columns["nearest_layer"], columns["nearest_head"] = nearest // other[1], nearest % other[1]
    columns["verdict"] = _verdicts(columns, gone="vanished" if side == SIDES[0] else "appeared")
    return columns


def _verdicts(columns: dict[str, Any], *, gone: str) -> NDArray[np.object_]:
    """What became of each head; "" where nothing is clear."""
    clear = [np.where(np.isnan(columns[f"{name}_low"]), -1, columns[f"{name}_low"]) for name in NEAR]
    verdicts = np.full(len(columns["layer"]), "", dtype=np.object_)
    verdicts[clear[0] >= CHANGED] = "changed"
    verdicts[clear[1] >= FAR] = gone
    return verdicts


NEAR = ("place", "nearest")


def find_differences(experiment: Experiment) -> list[Path]:
    """The files of differences from other experiments, newest first."""
    return find_analyses(experiment, DIFFERENCE)


def read_difference(path: Path, *, model: str | None = None) -> Difference:
    """What became of the heads.

    Args:
        path: of the file.
        model: fingerprint of the model that it must be of; None: of any.

    Raises:
        UserError: it is cut short or none, or of another version, model or shape.
    """
    found = read_analysis(path, DIFFERENCE, model=model)
    heads, about = found.table.to_pandas(), found.about
    shapes = shape_of(found), shape_of(found, prefix="other_")
    expected = [np.indices(shape).reshape(2, -1).T for shape in shapes]
    if not np.array_equal(heads[["layer", "head"]].to_numpy(), np.concatenate(expected)):
        raise BrokenFileError(f"{path}: not of the layers and heads it says; make it again: {COMMAND}")
    return Difference(path, about, heads)
