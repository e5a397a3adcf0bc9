"""Questions from a SQuAD file, a hub data set or the bundled pocket data, all as the same `QuestionSet`.

Official files are nested (articles, paragraphs, questions), hub rows are flat; the paragraph a question
belongs to is needed by every statistic (questions of one paragraph are not independent), so it is rebuilt
for flat rows. The trap: `answer_start` is sometimes wrong in real files. A start that does not point at its
text is moved to the nearest occurrence; an answer that is nowhere in the context gets the start -1, and the
question is listed in `misplaced`. Scoring uses texts only, so such a question can still be scored.
Half a surrogate pair, which JSON allows but UTF-8 does not, is replaced as the questions are read: no page,
table, file or tokenizer takes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qa.errors import UserError
from qa.pocket import POCKET_DATA

Version = Literal["1.1", "2.0"]
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
GOLDEN_RATIO = (5**0.5 - 1) / 2
SOURCES = "a SQuAD JSON file, a hub name such as 'rajpurkar/squad', or 'pocket'"


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one paragraph.

    Attributes:
        id: unique within its set.
        title: the article.
        paragraph: key of the paragraph; questions with the same key share a context.
        question: the question, as given.
        context: the paragraph, as given.
        answers: gold texts; empty means unanswerable.
        starts: where each gold text starts in the context, in characters; -1 if it is not there.
    """

    id: str
    title: str
    paragraph: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions of one data set in file order, and which official script scores them.

    Attributes:
        name: what the user called it (a path's file name, or a hub name with its split).
        version: "2.0" where any question is unanswerable or the file says so, else "1.1".
        questions: in file order.
        misplaced: ids of questions with a gold answer that is not in the context.
    """

    name: str
    version: Version
    questions: tuple[Question, ...]
    misplaced: tuple[str, ...]

    def sha256(self) -> str:
        """Fingerprint of the content (not of the file's formatting, nor of its name)."""
        digest = hashlib.sha256(self.version.encode())
        for question in self.questions:
            digest.update(json.dumps(asdict(question), sort_keys=True).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, str | int]:
        """What `environment.json` says of it: name, version, number of questions and fingerprint."""
        return {
            "name": self.name,
            "version": self.version,
            "questions": len(self.questions),
            "sha256": self.sha256(),
        }

    def limited(self, count: int | None) -> QuestionSet:
        """`count` questions spread evenly over the set, all of them if None or too many.

        Whole paragraphs except the last one taken, as statistics and people want questions together.
        """
        if count is None or count >= len(self.questions):
            return self
        paragraphs: dict[str, list[Question]] = {}
        for question in self.questions:
            paragraphs.setdefault(question.paragraph, []).append(question)
        keys = list(paragraphs)
        # In the order of their multiples of the golden ratio, modulo 1, any first few of them lie evenly.
        order = sorted(range(len(keys)), key=lambda index: (index * GOLDEN_RATIO) % 1.0)
        kept: set[str] = set()
        for index in order:
            kept.update(question.id for question in paragraphs[keys[index]][: count - len(kept)])
        return self.subset(question for question in self.questions if question.id in kept)

    def subset(self, questions: Iterable[Question]) -> QuestionSet:
        """The same set with only these questions; the version stays, so that scores stay comparable."""
        chosen = tuple(questions)
        ids = {question.id for question in chosen}
        misplaced = tuple(id_ for id_ in self.misplaced if id_ in ids)
        return replace(self, questions=chosen, misplaced=misplaced)


def load_questions(source: str, split: str = "train") -> QuestionSet:
    """Questions of `source`: `pocket`, a SQuAD JSON file, or a hub data set with SQuAD's columns.

    Args:
        source: the name or path.
        split: which split of a hub data set or of pocket ("train" or "validation"); a file has only one.

    Raises:
        UserError: the source cannot be found, read or understood.
    """
    if source == "pocket":
        return read_squad(POCKET_DATA / f"{split}.json")
    try:
        path = Path(source).expanduser()
        is_path = path.suffix == ".json" or source.startswith((".", "~", "/")) or path.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a user without a home
        raise UserError(f"dataset: {source!r} cannot be looked up ({error}); give {SOURCES}") from error
    return read_squad(path) if is_path else _load_hub(source, split)


def read_squad(path: Path) -> QuestionSet:
    """An official SQuAD file, v1.1 or v2.0 layout, as it is.

    Raises:
        UserError: unreadable, not JSON, not SQuAD's layout, a repeated id, or no question at all.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:  # editors on Windows put a byte order mark in front
            content = json.load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give {SOURCES}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); give a SQuAD JSON file") from error
    try:
        rows = list(_flatten(content))
        version = str(content.get("version", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not SQuAD's layout ({type(error).__name__}: {error}); "
            "it needs data > paragraphs > context and qas > id, question, answers > text, answer_start"
        ) from error
    return from_rows(rows, path.name, says_v2=version.startswith(("v2", "2")))


def _flatten(content: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                yield {
                    "id": qa["id"],
                    "title": article.get("title", ""),
                    "context": paragraph["context"],
                    "question": qa["question"],
                    "answers": {
                        "text": [gold["text"] for gold in qa["answers"]],
                        "answer_start": [gold["answer_start"] for gold in qa["answers"]],
                    },
                }


def from_rows(rows: Iterable[Mapping[str, Any]], name: str, *, says_v2: bool = False) -> QuestionSet:
    """A question set from flat rows with the columns id, title, context, question and answers.

    Args:
        rows: as `rajpurkar/squad` has them; `answers` holds the lists `text` and `answer_start`.
        name: what messages call the set.
        says_v2: the source calls itself v2.0, even if every question happens to be answerable.

    Raises:
        UserError: a missing column, a value that is not text, a repeated id, or no row at all.
    """
    questions: list[Question] = []
    seen: set[str] = set()
    paragraphs: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows):
        try:
            question = _question(row, paragraphs)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{name}: row {number} (id {row.get('id')!r}) is not a SQuAD question "
                f"({type(error).__name__}: {error}); it needs id, question, context and "
                "answers with text and answer_start"
            ) from error
        if question.id in seen:
            raise UserError(f"{name}: question id {question.id!r} occurs twice; ids must be unique")
        seen.add(question.id)
        questions.append(question)
    if not questions:
        raise UserError(f"{name}: no questions in it; give a SQuAD file with at least one question")
    version: Version = "2.0" if says_v2 or any(not question.answers for question in questions) else "1.1"
    misplaced = tuple(question.id for question in questions if -1 in question.starts)
    return QuestionSet(name, version, tuple(questions), misplaced)


def _question(row: Mapping[str, Any], paragraphs: dict[str, dict[str, int]]) -> Question:
    """A row as a question; `paragraphs` numbers the contexts of each title and learns new ones."""
    texts: Sequence[str] = row["answers"]["text"]
    offsets: Sequence[int] = row["answers"]["answer_start"]
    id_, title, text, context = row["id"], row.get("title") or "", row["question"], row["context"]
    if isinstance(id_, int):  # people's own files number their questions; predictions name them by text
        id_ = str(id_)
    if not all(isinstance(value, str) for value in (id_, title, text, context, *texts)):
        raise TypeError("id, title, question, context or answer is not text")
    if len(texts) != len(offsets):
        raise ValueError(f"{len(texts)} answer texts but {len(offsets)} starts")
    id_, title, text, context = (encodable(value) for value in (id_, title, text, context))
    texts = [encodable(gold) for gold in texts]
    starts = tuple(_locate(context, gold, int(offset)) for gold, offset in zip(texts, offsets, strict=True))
    known = paragraphs.setdefault(title, {})
    paragraph = f"{title}/{known.setdefault(context, len(known))}"
    return Question(id_, title, paragraph, text, context, tuple(texts), starts)


def encodable(text: str) -> str:
    """The text with lone surrogates replaced one for one, so that offsets do not move."""
    return LONE_SURROGATE.sub("\ufffd", text)


def _locate(context: str, text: str, start: int) -> int:
    """The start of the occurrence of `text` nearest to `start`; -1 if there is none."""
    if start >= 0 and context.startswith(text, start):
        return start
    before = context.rfind(text, 0, max(start, 0) + len(text))
    after = context.find(text, max(start, 0))
    found = [position for position in (before, after) if position >= 0]
    return min(found, key=lambda position: abs(position - start), default=-1)


def refuse_misplaced(questions: QuestionSet) -> None:
    """Raise for a set that holds answers which are not in their context.

    Raises:
        UserError: naming the first ids.
    """
    if questions.misplaced:
        raise UserError(f"{describe_misplaced(questions)}; mend the file or set bad_answers: skip")


def describe_misplaced(questions: QuestionSet) -> str:
    """Which questions have an answer that is not in its context: the count and the first five ids."""
    ids = ", ".join(repr(id_) for id_ in questions.misplaced[:5])
    more = ", ..." if len(questions.misplaced) > 5 else ""
    return (
        f"{questions.name}: {len(questions.misplaced)} questions with an answer that is not in the context "
        f"(ids {ids}{more})"
    )


def hold_out(questions: QuestionSet, articles: int | Sequence[str]) -> tuple[QuestionSet, QuestionSet]:
    """Split by article into what is left for training and what is set aside.

    Args:
        questions: the whole set.
        articles: titles, or how many to set aside (evenly spaced in file order).

    Raises:
        UserError: an unknown title, or nothing left to train on.
    """
    titles = list(dict.fromkeys(question.title for question in questions.questions))
    if isinstance(articles, int):
        count = min(articles, len(titles))
        chosen = {titles[(2 * index + 1) * len(titles) // (2 * count)] for index in range(count)}
    else:
        chosen = set(articles)
    unknown = sorted(chosen - set(titles))
    if unknown:
        raise UserError(
            f"held_out_articles: no article {unknown[0]!r} in {questions.name}; "
            f"it has {', '.join(titles[:8])}{' ...' if len(titles) > 8 else ''}"
        )
    if not chosen or len(chosen) == len(titles):
        raise UserError(
            f"held_out_articles: {len(chosen)} of the {len(titles)} articles of {questions.name} set aside; "
            "leave at least one on each side"
        )
    kept = questions.subset(question for question in questions.questions if question.title not in chosen)
    aside = questions.subset(question for question in questions.questions if question.title in chosen)
    return kept, replace(aside, name=f"{questions.name} ({len(chosen)} articles set aside)")


def _load_hub(source: str, split: str) -> QuestionSet:
    # datasets takes seconds to import and only hub data needs it.
    import datasets

    try:
        rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # any of a dozen classes, from a refused connection to a missing split
        raise UserError(
            f"dataset: {source!r} ({split}) could not be loaded from the hub "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')[:160]}); "
            "check the name and the connection, or give a SQuAD JSON file, or use 'pocket'"
        ) from error
    return from_rows(rows, f"{source}:{split}")
