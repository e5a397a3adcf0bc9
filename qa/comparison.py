"""Two experiments on the same questions: what the second gained, and whether that could be chance.

Questions are joined by id, and the difference is taken question by question: two runs agree on most of them,
so a paired interval is far narrower than the two scores' own intervals suggest. The trap: scores on different
data cannot be paired, however alike the data's names are; the fingerprint decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa.errors import UserError
from qa.experiment import Experiment
from qa.intervals import mcnemar, paired_interval
from qa.squad import Question, QuestionSet

METRICS = ("exact_match", "f1")
# As in the official v2.0 script: all questions, those with an answer, those without.
PARTS: tuple[tuple[str, Callable[[Question], bool]], ...] = (
    ("", lambda _question: True),
    ("HasAns_", lambda question: bool(question.answers)),
    ("NoAns_", lambda question: not question.answers),
)


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
    interval: tuple[float, float] | None

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


def compare(first: Experiment, second: Experiment) -> Comparison:
    """Compare two finished experiments.

    Raises:
        UserError: one has no scores, or they were scored on different questions.
    """
    questions = _common_questions(first, second)
    scores = np.stack([_scores(experiment, questions) for experiment in (first, second)])  # [2, metric, N]
    is_v2 = any(not question.answers for question in questions.questions)
    differences = [
        _difference(f"{part}{metric}", scores[:, index], questions.questions, chosen)
        for part, holds in (PARTS if is_v2 else PARTS[:1])
        for index, metric in enumerate(METRICS)
        if (chosen := np.array([holds(question) for question in questions.questions])).any()
    ]
    exact = scores[:, 0] == 1
    cells = ((True, True), (True, False), (False, True), (False, False))
    both, only_first, only_second, neither = (
        int(((exact[0] == one) & (exact[1] == other)).sum()) for one, other in cells
    )
    return Comparison(
        (first.name, second.name),
        tuple(differences),
        (both, only_first, only_second, neither),
        mcnemar(exact[0], exact[1]),
    )


def _common_questions(first: Experiment, second: Experiment) -> QuestionSet:
    prints = [
        experiment.environment()["data"].get("validation", {}).get("sha256") for experiment in (first, second)
    ]
    if prints[0] is None or prints[0] != prints[1]:
        raise UserError(
            f"{first.name!r} and {second.name!r} were scored on different questions; evaluate both on the "
            "same data: python -m qa evaluate"
        )
    return first.validation_questions()


def _scores(experiment: Experiment, questions: QuestionSet) -> NDArray[np.float64]:
    """Exact match and F1 of every question, in the order of the questions; [2, N]."""
    rows = {row["id"]: row for row in experiment.predictions()}
    absent = [question.id for question in questions.questions if question.id not in rows]
    if absent:
        raise UserError(
            f"{experiment.path / 'predictions.jsonl'}: has no row for {len(absent)} of its questions "
            f"({absent[0]} first); evaluate the experiment again"
        )
    return np.array([[rows[question.id][metric] for question in questions.questions] for metric in METRICS])


def _difference(
    metric: str, scores: NDArray[np.float64], questions: Sequence[Question], chosen: NDArray[np.bool_]
) -> Difference:
    """Of scores [2, N], over the questions chosen [N]."""
    a, b = 100 * scores[:, chosen]
    paragraphs = [question.paragraph for question, taken in zip(questions, chosen, strict=True) if taken]
    interval = paired_interval(a, b, paragraphs=paragraphs)
    return Difference(metric, len(a), float(a.mean()), float(b.mean()), interval)


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
