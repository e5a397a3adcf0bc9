"""Two systems compared: scores, differences with intervals, the two by two, McNemar; against plain loops.

The alternative is what one writes around the official script: its functions for each question of each system,
then a loop that draws paragraphs, joins their questions and takes a mean, for every metric. Both sides draw
the same paragraphs, so that all numbers must agree.

The trap: half of the time goes into text, which both sides must normalise; the gain there is small, and the
figure is of the whole, from answers to intervals.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.data import find_dataset, name_of
from qa.comparison import PARTS, Interval, compare_with
from qa.metrics import Scores, score
from qa.scored import Answers
from qa.squad import Question, QuestionSet, load_questions

RESAMPLES = 10_000
SHARES = (0.65, 0.7)  # of the questions that each system answers right
Texts = Mapping[str, str]


def cases(options: Options) -> list[Case]:
    """One case: everything about two systems."""
    dataset = find_dataset(options, "validation")
    return [
        Comparing(
            name="compare",
            what=f"two systems on {name_of(dataset, 'validation')}: scores, paired intervals by paragraph "
            f"({RESAMPLES:,} resamples), McNemar",
            against="the official script's functions and a loop over resamples",
            rounds=3,
            warm_up=1,
            compared="scores and ends of intervals in points, p-values",
            dataset=dataset,
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing(Case):
    """Two systems on one data set.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket.
    """

    dataset: str

    def prepare(self, side: Side) -> Work:
        """The questions, and what the systems answered."""
        questions = material(self.dataset)
        texts = tuple(drawn_answers(questions, share=share, seed=seed) for seed, share in enumerate(SHARES))
        return AtOnce(questions, texts) if side == "ours" else InLoops(questions, texts)

    def difference(self, ours: AtOnce, theirs: InLoops) -> float:
        """The largest of all numbers."""
        return max(abs(own - other) for own, other in zip(ours(), theirs(), strict=True))


class Row(NamedTuple):
    """One metric over one part: of the first, of the second, and the interval of the difference."""

    first: float
    second: float
    interval: Interval


@lru_cache(maxsize=1)
def material(dataset: str) -> QuestionSet:
    """The questions."""
    return load_questions(dataset, "validation")


def drawn_answers(questions: QuestionSet, *, share: float, seed: int) -> dict[str, str]:
    """A gold answer for about that share of the questions, for the others some words of the context."""
    draw = random.Random(seed)
    found = {}
    for question in questions.questions:
        words = question.context.split()
        at = draw.randrange(len(words))
        wrong = " ".join(words[at : at + draw.randint(1, 4)])
        right = draw.choice(question.answers) if question.answers else ""
        found[question.id] = right if draw.random() < share else wrong
    return found


@dataclass(frozen=True, slots=True)
class AtOnce:
    """As `qa` does it."""

    questions: QuestionSet
    texts: tuple[Texts, ...]

    def __call__(self) -> list[float]:
        """All numbers, in a list."""
        asked = self.questions.questions
        first, second = (
            _answers(score(asked, texts, version=self.questions.version), texts) for texts in self.texts
        )
        (found,) = compare_with(first, [second], asked)
        rows = [Row(item.first, item.second, item.interval) for item in found.differences]
        return flat(rows, found.right, found.p_value)


def _answers(scores: Scores, texts: Texts) -> Answers:
    count = scores.count
    unknown = np.full(count, np.nan)
    none = (None,) * count
    given = tuple(texts.values())
    return Answers(
        "", scores.exact_matches, scores.f1s, given, none, unknown, unknown, np.zeros(count, dtype=np.int64)
    )


def flat(rows: Sequence[Row], right: Sequence[int], p_value: float) -> list[float]:
    """All numbers of a comparison in one list; no interval is 0 to 0."""
    numbers = [value for row in rows for value in (row.first, row.second, *(row.interval or (0.0, 0.0)))]
    return [*numbers, *map(float, right), p_value]


@dataclass(frozen=True, slots=True)
class InLoops:
    """A loop over questions, and for each metric one over resamples."""

    questions: QuestionSet
    texts: tuple[Texts, ...]

    def __call__(self) -> list[float]:
        """All numbers, in a list."""
        asked, is_v2 = self.questions.questions, self.questions.version == "2.0"
        scores = [
            [official(question, texts[question.id], is_v2=is_v2) for question in asked]
            for texts in self.texts
        ]
        rows = []
        for part in PARTS:
            chosen = [number for number, question in enumerate(asked) if _is_in(question, part)]
            if not chosen or (part and all(question.answers for question in asked)):
                continue
            for metric in range(2):
                first, second = ([each[number][metric] for number in chosen] for each in scores)
                changes = {number: 100 * (b - a) for number, a, b in zip(chosen, first, second, strict=True)}
                interval = loop(asked, changes)
                rows.append(Row(100 * sum(first) / len(first), 100 * sum(second) / len(second), interval))
        cells = Counter((one[0], other[0]) for one, other in zip(*scores, strict=True))
        right = [cells[cell] for cell in ((1, 1), (1, 0), (0, 1), (0, 0))]
        only = right[1] + right[2]
        return flat(rows, right, float(binomtest(right[1], only).pvalue) if only else 1.0)


def _is_in(question: Question, part: str) -> bool:
    return not part or bool(question.answers) == (part == "HasAns_")


def loop(questions: Sequence[Question], changes: Mapping[int, float]) -> Interval:
    """Percentile interval of a mean: paragraphs are drawn, and the values of their questions joined."""
    members: dict[str, list[float]] = {key: [] for key in sorted({one.paragraph for one in questions})}
    for number, change in changes.items():
        members[questions[number].paragraph].append(change)
    if sum(bool(values) for values in members.values()) < 2:
        return None
    paragraphs: list[NDArray[np.float64]] = [np.array(values) for values in members.values()]
    generator = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(paragraphs), size=len(paragraphs))
        sample = np.concatenate([paragraphs[place] for place in drawn])
        if len(sample):
            means.append(sample.mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def official(question: Question, text: str, *, is_v2: bool) -> tuple[float, float]:
    """Exact match and F1 as the official scripts compute them, written down as they are there."""
    golds = list(question.answers)
    if is_v2:
        golds = [gold for gold in golds if normalize_answer(gold)] or [""]
    f1_score = f1_score_v2 if is_v2 else f1_score_v1
    return best(exact_match_score, text, golds), best(f1_score, text, golds)


def best(metric: Callable[[str, str], float], text: str, golds: Sequence[str]) -> float:
    """The maximum over gold answers."""
    return max(metric(text, gold) for gold in golds)


def normalize_answer(text: str) -> str:
    """Lower text without punctuation, articles and extra whitespace."""
    exclude = set(string.punctuation)
    bare = "".join(character for character in text.lower() if character not in exclude)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match_score(prediction: str, ground_truth: str) -> float:
    """Whether both are the same, normalised."""
    return float(normalize_answer(prediction) == normalize_answer(ground_truth))


def f1_score_v1(prediction: str, ground_truth: str) -> float:
    """Overlap of words."""
    predicted, gold = normalize_answer(prediction).split(), normalize_answer(ground_truth).split()
    same = sum((Counter(predicted) & Counter(gold)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def f1_score_v2(prediction: str, ground_truth: str) -> float:
    """Overlap of words; without any on one side, whether the other has none either."""
    predicted, gold = normalize_answer(prediction).split(), normalize_answer(ground_truth).split()
    return f1_score_v1(prediction, ground_truth) if predicted and gold else float(predicted == gold)
