"""What every head does in the course of training: a light atlas at the start and at each evaluation.

The same few validation questions each time, spread over the data set so that a few already are of several
paragraphs, and the measures of maps only; whoever starts a training gives it the `recorder` that
`atlas_snapshots` asks for. A file for each step, in place of the file of an earlier run of the same step, so
that a resumed training leaves what an undisturbed one does. The trap: whoever looks at a model that is being
trained must leave its random state alone, or the look would change the training; nothing here draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from transformers import PreTrainedModel

from probes.analyses import Header, Kind, find_analyses, read_analysis, write_analysis
from probes.atlas_files import ENDS, shape_of
from probes.atlas_making import spread
from probes.atlas_measures import MAP_MEASURES
from probes.atlas_questions import map_measures
from probes.atlas_roles import roles_of
from probes.atlas_statistics import ClusterMeans, Means
from probes.encoders import describe
from qa.config import Settings
from qa.experiment import Experiment
from qa.files import BrokenFileError
from qa.model import Encoder, load_tokenizer
from qa.reader import Reader, reading_of
from qa.squad import QuestionSet

SNAPSHOT = Kind(
    "atlas_snapshot",
    1,
    pa.schema(
        [
            ("step", pa.int64()),
            ("layer", pa.int16()),
            ("head", pa.int16()),
            ("role", pa.string()),
            *((f"{measure.name}{end}", pa.float64()) for measure in MAP_MEASURES for end in ENDS),
        ]
    ),
    "train with atlas_snapshots set above 0",
)
# In place of a fingerprint: the model of a snapshot is gone as soon as training goes on.
TRAINED = "in training"


def recorder(settings: Settings, experiment: Experiment) -> Callable[[PreTrainedModel, int], None] | None:
    """What records the heads of a training at each evaluation; None if the settings do not ask for it."""
    return Snapshots(experiment).take if settings.atlas_snapshots else None


class Snapshots:
    """Takes them for one experiment, whose folder must have its settings and questions by then."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._reader: Reader | None = None
        self._questions: QuestionSet | None = None

    def take(self, model: PreTrainedModel, step: int) -> None:
        """Record the model as it is at this step.

        Raises:
            UserError: an architecture that is not covered, or the disk is full.
        """
        if self._questions is None or self._reader is None:
            self._prepare(model)
        assert self._questions is not None
        assert self._reader is not None
        parts = describe(model)
        shape = (len(parts.layers), parts.heads)
        means = ClusterMeans((len(MAP_MEASURES), *shape))
        for paragraph in _paragraphs(self._questions):
            found = [map_measures(self._reader, question) for question in paragraph]
            means.add(np.array([[one[measure.name] for measure in MAP_MEASURES] for one in found]))
        about = {
            "step": step,
            "data": self._questions.sha256(),
            "questions": len(self._questions.questions),
            "layers": shape[0],
            "heads": shape[1],
        }
        write_analysis(self._experiment, Header(SNAPSHOT, TRAINED, about), _table(step, means.means(), shape))

    def _prepare(self, model: PreTrainedModel) -> None:
        settings = self._experiment.settings()
        tokenizer = load_tokenizer(settings.model_name, model)
        self._questions = spread(self._experiment.validation_questions(), settings.atlas_snapshots)
        self._reader = Reader(Encoder(model, tokenizer, ()), reading_of(settings), None)


def _paragraphs(questions: QuestionSet) -> list[list[Any]]:
    """The questions of each paragraph."""
    found: dict[str, list[Any]] = {}
    for question in questions.questions:
        found.setdefault(question.paragraph, []).append(question)
    return list(found.values())


def _table(step: int, means: Means, shape: tuple[int, int]) -> pa.Table:
    layers, heads = np.indices(shape).reshape(2, -1)
    names = [measure.name for measure in MAP_MEASURES]
    roles = roles_of(dict(zip(names, means.low, strict=True)))
    columns: dict[str, Any] = {
        "step": np.full(layers.shape, step),
        "layer": layers,
        "head": heads,
        "role": roles.ravel(),
    }
    for place, measure in enumerate(MAP_MEASURES):
        ends = (means.value[place], means.low[place], means.high[place])
        for end, values in zip(ENDS, ends, strict=True):
            columns[f"{measure.name}{end}"] = np.clip(values, measure.low, measure.high).ravel()
    return pa.table(columns, schema=SNAPSHOT.columns)


@dataclass(frozen=True, slots=True)
class Training:
    """Every snapshot of one experiment.

    Attributes:
        about: data (fingerprint of the questions), questions, layers, heads.
        heads: a row for each step and head, in this order.
    """

    about: dict[str, Any]
    heads: pd.DataFrame

    @property
    def steps(self) -> list[int]:
        """The steps, rising."""
        return [int(step) for step in self.heads["step"].unique()]

    def at(self, step: int) -> pd.DataFrame:
        """The rows of a step, a row a head."""
        return self.heads[self.heads["step"] == step].reset_index(drop=True)


def read_training(experiment: Experiment) -> Training | None:
    """The snapshots of an experiment; None if there are none.

    Raises:
        UserError: one is cut short, or of another version, model shape or questions than the first.
    """
    found = [read_analysis(path, SNAPSHOT, model=TRAINED) for path in find_analyses(experiment, SNAPSHOT)]
    if not found:
        return None
    found.sort(key=lambda one: one.about.get("step", 0))
    tables = []
    for one in found:
        L, H = shape_of(one)
        table = one.table.to_pandas()
        whole = np.array_equal(table[["layer", "head"]].to_numpy(), np.indices((L, H)).reshape(2, -1).T)
        if not whole or _without_step(one.about) != _without_step(found[0].about):
            raise BrokenFileError(
                f"{one.path}: not of the same heads and questions as the other snapshots; remove it"
            )
        tables.append(table)
    return Training(_without_step(found[0].about), pd.concat(tables, ignore_index=True))


def _without_step(about: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name != "step"}
