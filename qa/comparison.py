"""Experiments on the same questions: what one gained over another, and whether that could be chance.

Questions are joined by id, and the difference is taken question by question: two runs agree on most of them,
so a paired interval is far narrower than the two scores' own intervals suggest. The trap: scores on different
data cannot be paired, however alike the data's names are; the fingerprint decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa.errors import UserError
from qa.experiment import Experiment
from qa.hints import for_terminal
from qa.intervals import as_interval, mcnemar, paragraph_intervals
from qa.scored import METRICS, Answers, read_answers, scored_sets
from qa.squad import Question, QuestionSet

# As in the official v2.0 script: all questions, those with an answer, those without.
PARTS = ("", "HasAns_", "NoAns_")
CELLS = ("both", "first", "second", "neither")
Interval = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one experiment.

    Attributes:
        metric: exact_match or f1, with HasAns_ or NoAns_ in front where it is over a part.
        count: questions it is over.
        value: in percent.
        interval: 95 % interval of the value, by paragraph; None for one paragraph.
    """

    metric: str
    count: int
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two experiments on the same questions.

    Attributes:
        metric: exact_match or f1, with HasAns_ or NoAns_ in front where it is over a part.
        count: questions it is over.
        first: of the first experiment, in percent.
        second: of the second, in percent.
        interval: 95 % interval of second - first in points, paired, by paragraph; None for one paragraph.
    """

    metric: str
    count: int
    first: float
    second: float
    interval: Interval

    @property
    def difference(self) -> float:
        """Second minus first, in points."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two experiments on the same questions.

    Attributes:
        names: of the two.
        differences: a metric each; with the parts of v2.0 if there are unanswerable questions.
        right: questions answered exactly by [both, only the first, only the second, neither].
        p_value: of McNemar's exact test that both are right equally often.
    """

    names: tuple[str, str]
    differences: tuple[Difference, ...]
    right: tuple[int, int, int, int]
    p_value: float


def compare(first: Experiment, second: Experiment, questions: QuestionSet | None = None) -> Comparison:
    """Compare two finished experiments.

    Args:
        first: the reference.
        second: the other.
        questions: on which; None: on the validation questions of both.

    Raises:
        UserError: one has no scores on them, or they were validated on different questions.
    """
    if questions is not None:
        return _compare_on(first, second, questions.sha256(), questions.questions)
    prints = [
        experiment.environment()["data"].get("validation", {}).get("sha256") for experiment in (first, second)
    ]
    if prints[0] is None or prints[0] != prints[1]:
        raise UserError(
            f"{first.name!r} and {second.name!r} were scored on different questions; evaluate both on the "
            "same data (python -m qa evaluate) and compare them on it (python -m qa compare --dataset)"
        )
    for experiment in (first, second):
        experiment.metrics()
    return _compare_on(first, second, prints[0], first.validation_questions().questions)


def _compare_on(first: Experiment, second: Experiment, sha: str, questions: Sequence[Question]) -> Comparison:
    answers = []
    for experiment in (first, second):
        scored = scored_sets(experiment).get(sha)
        if scored is None:
            advice = _how_to_score(experiment)
            raise UserError(f"{experiment.name!r} has no scores on these questions; {advice}")
        answers.append(read_answers(scored, questions))
    return compare_with(answers[0], [answers[1]], questions)[0]


def _how_to_score(experiment: Experiment) -> str:
    try:
        experiment.model_folder()
    except UserError:
        return "it has no model to make them with, so import its predictions of them: python -m qa import"
    command = f"python -m qa evaluate {experiment.name} --dataset FILE"
    return f"make them with: {for_terminal(command, experiment.path.parent)}"


def compare_with(
    reference: Answers, others: Sequence[Answers], questions: Sequence[Question]
) -> list[Comparison]:
    """Compare each of several experiments with the reference.

    Args:
        reference: the first of every pair.
        others: the second.
        questions: what all answered.
    """
    parts = part_masks(questions)
    changes = [100 * (other.scores - reference.scores) for other in others]
    bounds = _intervals(changes, parts, questions)  # [part, other, metric, 2]
    found = []
    for index, other in enumerate(others):
        differences = tuple(
            Difference(
                f"{part}{metric}",
                int(mask.sum()),
                float(100 * reference.scores[number][mask].mean()),
                float(100 * other.scores[number][mask].mean()),
                as_interval(bounds[row, index, number]),
            )
            for row, (part, mask) in enumerate(parts.items())
            for number, metric in enumerate(METRICS)
        )
        cells = cells_of(reference, other)
        counts = [int((cells == cell).sum()) for cell in range(len(CELLS))]
        right = (counts[0], counts[1], counts[2], counts[3])
        p_value = mcnemar(reference.right, other.right)
        found.append(Comparison((reference.name, other.name), differences, right, p_value))
    return found


def scores_of(experiments: Sequence[Answers], questions: Sequence[Question]) -> list[tuple[Score, ...]]:
    """The metrics of each experiment, with intervals of its own."""
    parts = part_masks(questions)
    bounds = _intervals([100 * answers.scores for answers in experiments], parts, questions)
    return [
        tuple(
            Score(
                f"{part}{metric}",
                int(mask.sum()),
                float(100 * answers.scores[number][mask].mean()),
                as_interval(bounds[row, index, number]),
            )
            for row, (part, mask) in enumerate(parts.items())
            for number, metric in enumerate(METRICS)
        )
        for index, answers in enumerate(experiments)
    ]


def part_masks(questions: Sequence[Question]) -> dict[str, NDArray[np.bool_]]:
    """Which questions are in each part [N]; only "" unless some are unanswerable; none that is empty."""
    answerable = np.array([bool(question.answers) for question in questions])
    masks = dict(zip(PARTS, (np.ones_like(answerable), answerable, ~answerable), strict=True))
    return {part: mask for part, mask in masks.items() if not part or (mask.any() and not answerable.all())}


def _intervals(
    values: Sequence[NDArray[np.float64]],
    parts: dict[str, NDArray[np.bool_]],
    questions: Sequence[Question],
) -> NDArray[np.float64]:
    """Intervals of E times two values per question [2, N]: [part, E, metric, 2]."""
    rows = np.concatenate([np.empty((0, len(questions))), *values])
    paragraphs = [question.paragraph for question in questions]
    bounds = paragraph_intervals(rows, np.stack([*parts.values()]), paragraphs)
    return bounds.reshape(len(parts), len(values), len(METRICS), 2)


def cells_of(first: Answers, second: Answers) -> NDArray[np.int64]:
    """Which of CELLS each question is in, as its number [N]."""
    return np.where(first.right, np.where(second.right, 0, 1), np.where(second.right, 2, 3))


def describe(comparison: Comparison) -> str:
    """The comparison as lines of text."""
    first, second = comparison.names
    wide = max(9, len(first), len(second))
    lines = [
        f"{'':<20}{first:>{wide}}  {second:>{wide}}  difference (95 % interval, paired, by paragraph)",
        *(_line(difference, wide) for difference in comparison.differences),
    ]
    labels = ("right in both", f"only in {first}", f"only in {second}", "in neither")
    counts = ", ".join(f"{count} {label}" for label, count in zip(labels, comparison.right, strict=True))
    return "\n".join([*lines, f"exact matches: {counts} (McNemar p = {comparison.p_value:.2g})"])


def _line(difference: Difference, wide: int) -> str:
    interval = difference.interval
    between = "" if interval is None else f"  ({interval[0]:+.2f} to {interval[1]:+.2f})"
    return (
        f"{difference.metric:<20}{difference.first:>{wide}.2f}  {difference.second:>{wide}.2f}  "
        f"{difference.difference:+.2f}{between}"
    )
