"""The data sets an experiment was scored on, and its answers to one of them as arrays.

Its own validation set and each set of `python -m qa evaluate` count alike: two experiments can be paired on
any data that both have answered. The trap: names of data sets say nothing, files are moved and shortened;
only the fingerprint decides, and answers are put into the order of the questions by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa import files
from qa.errors import UserError
from qa.experiment import Experiment, read_dataset
from qa.metrics import first_repeated
from qa.printing import cut, visible
from qa.squad import Question, QuestionSet

ROW: files.Types = {"id": (str,), "exact_match": files.NUMBER, "f1": files.NUMBER}
METRICS = ("exact_match", "f1")
LONGEST_NAME = 80  # of a data set
OPTIONAL: files.Types = {
    "prediction": (str,),
    "start": (int,),
    "end": (int,),
    "probability": files.NUMBER,
    "no_answer_probability": files.NUMBER,
    "windows": (int,),
}


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """A data set that an experiment has answered.

    Attributes:
        experiment: whose answers.
        sha: fingerprint of the questions.
        name: what the data were called, fit to be shown.
        folder: where `metrics.json` and `predictions.jsonl` are.
        metrics: content of the former.
    """

    experiment: Experiment
    sha: str
    name: str
    folder: Path
    metrics: dict[str, Any]

    @property
    def predictions(self) -> Path:
        """The file with a row for each question."""
        return self.folder / "predictions.jsonl"

    def questions(self) -> QuestionSet:
        """The questions, from the copy kept beside the experiments.

        Raises:
            UserError: the copy is gone or broken.
        """
        return read_dataset(self.experiment.path.parent, self.sha, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One experiment's answers to N questions, in the order of the questions.

    Attributes:
        name: of the experiment.
        exact_matches: 0 or 1, float64 [N].
        f1s: in [0, 1], float64 [N].
        texts: what was answered, "" for no answer; None where nothing was predicted.
        spans: start and end in the context, in characters; None where that is unknown.
        probabilities: of the answers, float64 [N]; NaN where unknown.
        no_answer: probability that there is none, float64 [N]; NaN where unknown.
        windows: in how many each context was read, int64 [N]; 0 where unknown.
    """

    name: str
    exact_matches: NDArray[np.float64]
    f1s: NDArray[np.float64]
    texts: tuple[str | None, ...]
    spans: tuple[tuple[int, int] | None, ...]
    probabilities: NDArray[np.float64]
    no_answer: NDArray[np.float64]
    windows: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which questions it answers exactly, [N]."""
        right: NDArray[np.bool_] = self.exact_matches == 1
        return right

    @property
    def scores(self) -> NDArray[np.float64]:
        """Exact match and F1 of every question, [2, N]."""
        return np.stack([self.exact_matches, self.f1s])


def scored_sets(experiment: Experiment) -> dict[str, ScoredSet]:
    """What an experiment has scores on, by fingerprint, its own validation set first; none that is broken."""
    found = {}
    try:
        own, metrics = experiment.environment()["data"].get("validation", {}), experiment.metrics()
        found[str(own["sha256"])] = ScoredSet(
            experiment, str(own["sha256"]), _shown(own.get("name", "?")), experiment.path, metrics
        )
    except (UserError, KeyError):
        pass
    for sha, metrics in experiment.evaluations().items():
        folder = experiment.path / "evaluations" / sha
        try:
            files.check_types(
                folder / "metrics.json",
                metrics,
                dict.fromkeys(("exact_match", "f1"), files.NUMBER),
                needed=True,
            )
        except files.BrokenFileError:
            continue
        # The own scores, whose thresholds never saw the question, come before an evaluation on the same data.
        found.setdefault(
            sha, ScoredSet(experiment, sha, _shown(metrics.get("dataset", "?")), folder, metrics)
        )
    return found


def _shown(name: object) -> str:
    return cut(visible(str(name)), LONGEST_NAME)


def shared_sets(experiments: Sequence[dict[str, ScoredSet]]) -> dict[str, list[ScoredSet]]:
    """The data sets that the first and any other experiment have, each with those that have it.

    The ones that more experiments share come first, then the first experiment's own.

    Args:
        experiments: `scored_sets` of each, the reference first.
    """
    shared = {sha: [sets[sha] for sets in experiments if sha in sets] for sha in experiments[0]}
    kept = {sha: sets for sha, sets in shared.items() if len(sets) > 1}
    return dict(sorted(kept.items(), key=lambda item: -len(item[1])))


def read_answers(scored: ScoredSet, questions: Sequence[Question]) -> Answers:
    """The answers of an experiment, in the order of the questions.

    Raises:
        BrokenFileError: missing or broken, a score that is none, an id twice, or no row for a question.
    """
    return arrange(scored.experiment.name, scored.predictions, files.read_rows(scored.predictions), questions)


def arrange(name: str, file: Path, rows: Sequence[dict[str, Any]], questions: Iterable[Question]) -> Answers:
    """Rows of `predictions.jsonl` as arrays.

    Args:
        name: of the experiment.
        file: which messages name.
        rows: of the file.
        questions: whose order to take.

    Raises:
        BrokenFileError: as `read_answers`.
    """
    for number, row in enumerate(rows, start=1):
        where = f"line {number}: "
        files.check_types(file, row, ROW, where=where, needed=True)
        files.check_types(file, row, OPTIONAL, where=where)
        if not (row["exact_match"] in (0, 1) and 0 <= row["f1"] <= 1):
            raise files.BrokenFileError(
                f"{file}: {where}scores {row['exact_match']!r:.20} and {row['f1']!r:.20}; exact match is 0 "
                "or 1, F1 from 0 to 1"
            )
    by_id = {row["id"]: row for row in rows}
    if len(by_id) < len(rows):
        twice = first_repeated(row["id"] for row in rows)
        raise files.BrokenFileError(f"{file}: question id {twice!r:.80} occurs twice")
    ids = [question.id for question in questions]
    absent = [id_ for id_ in ids if id_ not in by_id]
    if absent:
        raise files.BrokenFileError(
            f"{file}: has no row for {len(absent)} of its questions ({absent[0]} first); evaluate the "
            "experiment again"
        )
    ordered = [by_id[id_] for id_ in ids]
    return Answers(
        name,
        _numbers(ordered, "exact_match"),
        _numbers(ordered, "f1"),
        tuple(row.get("prediction") for row in ordered),
        tuple(_span(row) for row in ordered),
        _numbers(ordered, "probability"),
        _numbers(ordered, "no_answer_probability"),
        np.array([row.get("windows") or 0 for row in ordered], dtype=np.int64),
    )


def _numbers(rows: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _span(row: dict[str, Any]) -> tuple[int, int] | None:
    start, end = row.get("start"), row.get("end")
    return None if start is None or end is None else (start, end)
