"""Exact match and F1 per question, as the official SQuAD scripts compute them.

Every number is kept per question, because intervals, paired tests and tables all start from there.
The trap: the two official scripts disagree about answers of which nothing is left after normalisation.
For the answer "A" and the prediction "The" v1.1 says exact match 1, F1 0, and v2.0 says 1 and 1; v2.0 also
drops such answers when a question has others. So a score needs the version of the data it belongs to.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from qa.errors import UserError
from qa.squad import Question, Version, encodable

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# ASCII only, as in the official scripts: a typographic dash or quote stays and counts as a difference.
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PREDICTIONS_WANTED = 'give a JSON file {"question id": "answer text"}, with "" for no answer'


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of N questions, in the order of the questions.

    Attributes:
        version: the official script that was followed.
        exact_matches: in [0, 1], float64 [N].
        f1s: in [0, 1], float64 [N].
        answerable: whether the question has a gold answer, bool [N].
        missing: ids of questions without a prediction; they score 0, even where "no answer" is right.
        extra: ids of predictions without a question; they are ignored.
    """

    version: Version
    exact_matches: NDArray[np.float64]
    f1s: NDArray[np.float64]
    answerable: NDArray[np.bool_]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of questions, N."""
        return len(self.exact_matches)

    @property
    def exact_match(self) -> float:
        """Mean exact match in percent."""
        return 100 * float(self.exact_matches.mean())

    @property
    def f1(self) -> float:
        """Mean F1 in percent."""
        return 100 * float(self.f1s.mean())

    def as_dict(self) -> dict[str, float]:
        """The means in percent and the counts, under the names that every JSON result of this project uses.

        For v2.0 also over the answerable (`HasAns_*`) and the unanswerable questions (`NoAns_*`); the keys of
        a group without questions are absent.
        """
        means: dict[str, float] = {"exact_match": self.exact_match, "f1": self.f1, "count": self.count}
        if self.version == "2.0":
            for name, group in (("HasAns", self.answerable), ("NoAns", ~self.answerable)):
                if group.any():
                    means[f"{name}_exact_match"] = 100 * float(self.exact_matches[group].mean())
                    means[f"{name}_f1"] = 100 * float(self.f1s[group].mean())
                    means[f"{name}_count"] = int(group.sum())
        return means


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the, words joined by single spaces.

    Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def score_answer(prediction: str, answers: Iterable[str], *, version: Version) -> tuple[float, float]:
    """Exact match and F1 of one prediction, each in [0, 1] and each its own maximum over the gold answers.

    No gold answer means unanswerable: in v2.0 the right prediction is then the empty text.

    Raises:
        ValueError: no gold answer in v1.1, which has no unanswerable questions.
    """
    predicted = normalize(prediction)
    golds = [normalize(answer) for answer in answers]
    if version == "2.0":
        golds = [gold for gold in golds if gold] or [""]
    exact_match = max(float(predicted == gold) for gold in golds)
    return exact_match, max(_f1(predicted, gold, version=version) for gold in golds)


def _f1(predicted: str, gold: str, *, version: Version) -> float:
    """Harmonic mean of precision and recall over the words of two normalised texts, repeats counted."""
    if not predicted and not gold:
        return float(version == "2.0")
    predicted_words, gold_words = predicted.split(), gold.split()
    common = (Counter(predicted_words) & Counter(gold_words)).total()
    # This form of 2PR / (P + R) is symmetric to the last bit and needs no case for common == 0.
    return 2 * common / (len(predicted_words) + len(gold_words))


def check_version(version: str) -> None:
    """Accept the SQuAD versions that have an official script.

    Raises:
        UserError: any other version.
    """
    if version not in get_args(Version):
        raise UserError(
            f"unknown SQuAD version {version!r}; it must be one of {', '.join(get_args(Version))}"
        )


def score(questions: Sequence[Question], predictions: Mapping[str, str], *, version: Version) -> Scores:
    """Score `predictions` (question id -> answer text, "" for no answer) by the official rules of `version`.

    Raises:
        UserError: an unknown version, no questions, a repeated question id, or an unanswerable question
            under v1.1.
    """
    check_version(version)
    _check_questions(questions, version=version)
    pairs = [
        score_answer(predictions[question.id], question.answers, version=version)
        if question.id in predictions
        else (0.0, 0.0)
        for question in questions
    ]
    exact_matches, f1s = np.array(pairs, dtype=np.float64).T  # [2, N] -> [N], [N]
    ids = {question.id for question in questions}
    return Scores(
        version=version,
        exact_matches=exact_matches,
        f1s=f1s,
        answerable=np.array([bool(question.answers) for question in questions]),
        missing=tuple(question.id for question in questions if question.id not in predictions),
        extra=tuple(id_ for id_ in predictions if id_ not in ids),
    )


def _check_questions(questions: Sequence[Question], *, version: Version) -> None:
    if not questions:
        raise UserError("there are no questions to score; give a data set with at least one question")
    repeated = first_repeated(question.id for question in questions)
    if repeated is not None:
        raise UserError(f"question id {repeated!r} occurs twice in the data; ids must be unique")
    unanswerable = next((question.id for question in questions if not question.answers), None)
    if version == "1.1" and unanswerable is not None:
        raise UserError(
            f"question {unanswerable!r} has no gold answer, which v1.1 does not allow; score it as v2.0"
        )


def read_predictions(path: Path) -> dict[str, str]:
    """Answer texts by question id from a `{id: text}` JSON file, the layout of the official scripts.

    Raises:
        UserError: unreadable, not such a file, or an id twice, which `json` alone would settle silently in
            favour of the last one.
    """
    try:
        # As a tuple of pairs an object keeps its repeated names and is still told from an array.
        content = json.loads(path.read_bytes(), object_pairs_hook=tuple)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_PREDICTIONS_WANTED}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); {_PREDICTIONS_WANTED}") from error
    if not isinstance(content, tuple):
        raise UserError(f"{path}: holds {_json_name(content)}, not an object; {_PREDICTIONS_WANTED}")
    for id_, text in content:
        if not isinstance(text, str):
            raise UserError(
                f"{path}: question {id_!r} has {_json_name(text)}, not a text; {_PREDICTIONS_WANTED}"
            )
    content = [(encodable(id_), encodable(text)) for id_, text in content]  # as the questions are read
    repeated = first_repeated(id_ for id_, _ in content)
    if repeated is not None:
        raise UserError(f"{path}: question id {repeated!r} occurs twice; keep one answer per question")
    return dict(content)


def _json_name(value: object) -> str:
    """What a parsed value is called; the nested ones by kind, as they may be long."""
    if isinstance(value, tuple | list):
        return "an object" if isinstance(value, tuple) else "an array"
    return json.dumps(value)[:60]


def first_repeated(ids: Iterable[str]) -> str | None:
    """The first id that occurs more than once, None if all are distinct."""
    return next((id_ for id_, count in Counter(ids).items() if count > 1), None)
