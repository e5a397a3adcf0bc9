"""The bundled questions: every span, id and length, and that the wording does not tell what is unanswerable.

The trap: a set written by hand leaks. If most of the questions that ask for a year have no answer, a model
learns to refuse years and looks careful. So the openings of answerable and unanswerable questions are
compared, and both must be about alike.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from qa.pocket import POCKET_DATA
from qa.squad import read_squad

SPLITS = ("train", "validation")
QUESTIONS = {"train": 600, "validation": 300}
UNANSWERABLE = {"train": 150, "validation": 100}  # a quarter, a third
MOST_GOLDS = {"train": 1, "validation": 3}

WORDS = ("what", "who", "when", "where", "which", "why", "how many", "how much", "how long", "how")
SAME_WORD = {"whom": "who", "whose": "who"}
# The share of a file's questions that open with each word; "other" is "In which year", "Name the" and so on.
SHARES = {
    "other": (0.25, 0.35),
    "what": (0.15, 0.25),
    "who": (0.05, 0.12),
    "when": (0.01, 0.06),
    "where": (0.03, 0.10),
    "which": (0.05, 0.15),
    "why": (0.03, 0.10),
    "how many": (0.03, 0.10),
    "how much": (0.01, 0.08),
    "how long": (0.01, 0.06),
    "how": (0.03, 0.10),
}
# What an easy rule would look for, anywhere in the question.
TELLTALES = (
    r"\bhow\b",
    r"\bhow (?:many|much|long)\b",
    r"\byear\b",
    r"\bfirst\b",
    r"\bname\b",
    r"\b(?:not|never)\b",
)
LARGEST_DIFFERENCE = 0.07

# Whole words; money may lead, and a full stop may end only an hour ("2 p.m.").
CLEAN = re.compile(r"[\w£€$].*(?:[\w%]|[ap]\.m\.)|\w", re.DOTALL)


class Row(NamedTuple):
    context: str
    qa: dict[str, Any]


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Any]]:
    return {
        split: json.loads((POCKET_DATA / f"{split}.json").read_text(encoding="utf-8")) for split in SPLITS
    }


def paragraphs(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [paragraph for article in content["data"] for paragraph in article["paragraphs"]]


def rows(content: dict[str, Any]) -> Iterator[Row]:
    for paragraph in paragraphs(content):
        yield from (Row(paragraph["context"], qa) for qa in paragraph["qas"])


def everywhere(files: dict[str, dict[str, Any]]) -> list[Row]:
    return [row for content in files.values() for row in rows(content)]


def opening(question: str) -> str:
    """The question word that `question` begins with, or "other"."""
    words = re.findall(r"\w+", question.lower())
    words[0] = SAME_WORD.get(words[0], words[0])
    pair = " ".join(words[:2])
    return pair if pair in WORDS else words[0] if words[0] in WORDS else "other"


def asked(content: dict[str, Any], *, impossible: bool) -> list[str]:
    return [row.qa["question"] for row in rows(content) if row.qa["is_impossible"] is impossible]


@pytest.mark.parametrize("split", SPLITS)
def test_the_projects_reader_reads_it_whole(split):
    questions = read_squad(POCKET_DATA / f"{split}.json")
    assert questions.version == "2.0"
    assert not questions.misplaced
    assert len(questions.questions) == QUESTIONS[split]
    assert sum(not question.answers for question in questions.questions) == UNANSWERABLE[split]
    for question in questions.questions:
        for text, start in zip(question.answers, question.starts, strict=True):
            assert question.context[start : start + len(text)] == text, question.id


@pytest.mark.parametrize("split", SPLITS)
def test_layout_is_that_of_squad_v2(files, split):
    content = files[split]
    assert content.keys() == {"version", "data"}
    assert content["version"] == "v2.0"
    for article in content["data"]:
        assert article.keys() == {"title", "paragraphs"}
        assert len(article["paragraphs"]) == 1
        assert article["paragraphs"][0].keys() == {"context", "qas"}
    for _, qa in rows(content):
        extra = {"plausible_answers"} if qa["is_impossible"] else set()
        assert qa.keys() == {"id", "question", "is_impossible", "answers"} | extra, qa["id"]
    written = (POCKET_DATA / f"{split}.json").read_text(encoding="utf-8")
    assert written == json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def test_every_span_is_where_it_says(files):
    for context, qa in everywhere(files):
        spans = qa["answers"] + qa.get("plausible_answers", [])
        assert spans, qa["id"]
        for span in spans:
            text, start = span["text"], span["answer_start"]
            end = start + len(text)
            assert context[start:end] == text, qa["id"]
            neighbours = context[max(start - 1, 0) : start] + context[end : end + 1]
            assert not any(char.isalnum() for char in neighbours), f"{qa['id']}: {text!r} cuts a word"
            assert CLEAN.fullmatch(text), f"{qa['id']}: {text!r} begins or ends with a blank or a mark"
            assert len(text.split()) <= 12, qa["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_golds_are_few_distinct_and_near_the_first(files, split):
    counts = Counter()
    for context, qa in rows(files[split]):
        golds = qa["answers"]
        counts[len(golds)] += 1
        assert len({gold["text"] for gold in golds}) == len(golds), qa["id"]
        for gold in golds:
            gap = abs(gold["answer_start"] - golds[0]["answer_start"])
            places = [match.start() for match in re.finditer(f"(?={re.escape(gold['text'])})", context)]
            assert gap == min(abs(place - golds[0]["answer_start"]) for place in places), qa["id"]
    assert counts[0] == UNANSWERABLE[split]
    assert max(counts) == MOST_GOLDS[split]
    assert split == "train" or counts[2] + counts[3] >= 100


def test_unanswerable_says_so_and_tempts_with_one_span(files):
    for _, qa in everywhere(files):
        assert qa["is_impossible"] is not bool(qa["answers"]), qa["id"]
        assert len(qa.get("plausible_answers", [])) == qa["is_impossible"], qa["id"]


def test_ids_questions_titles_and_passages_occur_once(files):
    qas = [row.qa for row in everywhere(files)]
    passages = [paragraph["context"] for content in files.values() for paragraph in paragraphs(content)]
    titles = [article["title"] for content in files.values() for article in content["data"]]
    ids = [qa["id"] for qa in qas]
    questions = [qa["question"] for qa in qas]
    for values in (ids, questions, titles, passages):
        counts = Counter(re.sub(r"\W+", " ", value).strip().casefold() for value in values)
        assert not [value for value, count in counts.items() if count > 1]


def test_ids_name_their_file_and_count_up(files):
    for split, content in files.items():
        ids = [row.qa["id"] for row in rows(content)]
        assert ids == [f"pocket-{split}-{number:04d}" for number in range(1, QUESTIONS[split] + 1)]


def test_no_two_passages_share_eight_words_in_a_row(files):
    owners: dict[tuple[str, ...], int] = {}
    passages = [paragraph["context"] for content in files.values() for paragraph in paragraphs(content)]
    for number, passage in enumerate(passages):
        words = re.findall(r"\w+", passage.casefold())
        for run in zip(*(words[offset:] for offset in range(8)), strict=False):
            assert owners.setdefault(run, number) == number, " ".join(run)


def test_passages_are_short_but_for_one_long_one_in_each_file(files):
    short = 0
    for split, content in files.items():
        lengths = [len(paragraph["context"].split()) for paragraph in paragraphs(content)]
        assert sum(length > 700 for length in lengths) == 1, split
        assert all(60 <= length <= 200 for length in lengths if length <= 700), split
        short += len(lengths) - 1
    assert short >= 130


def test_passages_and_questions_are_clean_text(files):
    for context, qa in everywhere(files):
        assert context == context.strip()
        assert "  " not in context
        question = qa["question"]
        assert question == " ".join(question.split()), qa["id"]
        assert question[0].isupper(), qa["id"]
        assert question.endswith(("?", ".")), qa["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_each_question_word_has_its_share(files, split):
    counts = Counter(opening(row.qa["question"]) for row in rows(files[split]))
    assert counts.keys() == SHARES.keys()
    for word, (least, most) in SHARES.items():
        assert least <= counts[word] / counts.total() <= most, f"{word}: {counts[word]} of {counts.total()}"


@pytest.mark.parametrize("split", SPLITS)
def test_openings_do_not_tell_what_is_unanswerable(files, split):
    shares = []
    for impossible in (False, True):
        counts = Counter(map(opening, asked(files[split], impossible=impossible)))
        shares.append({word: counts[word] / counts.total() for word in SHARES})
    gaps = {word: shares[1][word] - shares[0][word] for word in SHARES}
    assert all(abs(gap) <= LARGEST_DIFFERENCE for gap in gaps.values()), gaps


@pytest.mark.parametrize("telltale", TELLTALES)
@pytest.mark.parametrize("split", SPLITS)
def test_words_inside_a_question_do_not_either(files, split, telltale):
    shares = []
    for impossible in (False, True):
        questions = asked(files[split], impossible=impossible)
        hits = sum(bool(re.search(telltale, question, re.IGNORECASE)) for question in questions)
        shares.append(hits / len(questions))
    assert shares[1] == pytest.approx(shares[0], abs=LARGEST_DIFFERENCE)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Whose goat is it?", "who"),
        ("How many goats are there?", "how many"),
        ("How old is the goat?", "how"),
        ("What's a goat?", "what"),
        ("In which year did the goat climb?", "other"),
        ("Name the goat.", "other"),
        ("Whatever was the goat?", "other"),
    ],
)
def test_an_opening_is_told_by_its_words(question, word):
    assert opening(question) == word


@pytest.mark.parametrize("text", ["£1.50", "91%", "2 p.m.", "6½", "Two and a half", "x", "€20"])
def test_a_clean_answer_is_accepted(text):
    assert CLEAN.fullmatch(text)


@pytest.mark.parametrize("text", ["", " x", "x ", "x.", "“x", "x”", "x,", "'x'", "x-", ".", "%"])
def test_an_unclean_answer_is_found(text):
    assert not CLEAN.fullmatch(text)
