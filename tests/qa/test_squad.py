"""The same questions from every source, and one clear line for everything that is no SQuAD data."""

import json
from dataclasses import replace
from unittest.mock import Mock

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa import squad
from qa.errors import UserError
from qa.squad import (
    Question,
    QuestionSet,
    describe_misplaced,
    encodable,
    from_rows,
    hold_out,
    load_questions,
    read_squad,
    refuse_misplaced,
)

# The columns of `rajpurkar/squad` and `rajpurkar/squad_v2`.
HUB_COLUMNS = datasets.Features(
    {
        "id": datasets.Value("string"),
        "title": datasets.Value("string"),
        "context": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answers": {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        },
    }
)
DENVER = "Denver beat Carolina. Denver won."


def gold(text, start):
    return {"text": text, "answer_start": start}


FIRST_DENVER = (gold("Denver", 0),)


def entry(id_="1", question="Who won?", answers=FIRST_DENVER, **more):
    return {"id": id_, "question": question, "answers": list(answers), **more}


def article(*paragraphs, title="Super_Bowl"):
    """An article of the official layout from (context, entries) pairs."""
    return {"title": title, "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs]}


def official(*articles, version="1.1"):
    return {"version": version, "data": list(articles)}


def row(id_="1", title="Super_Bowl", context=DENVER, question="Who won?", answers=(("Denver", 0),)):
    texts, starts = zip(*answers, strict=True) if answers else ((), ())
    return {
        "id": id_,
        "title": title,
        "context": context,
        "question": question,
        "answers": {"text": list(texts), "answer_start": list(starts)},
    }


def rows_of(content):
    """An official file as the hub shows it, by a plain walk."""
    return [
        {
            "id": qa["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": qa["question"],
            "answers": {
                "text": [answer["text"] for answer in qa["answers"]],
                "answer_start": [answer["answer_start"] for answer in qa["answers"]],
            },
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


@pytest.fixture
def file(tmp_path):
    """Writes a file (JSON unless it is bytes) and gives its path."""

    def write(content, name="questions.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def refusal(call, *arguments):
    """The message with which a call refuses: one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("name", "version"), [("dev-v1.1.json", "1.1"), ("dev-v2.0.json", "2.0")])
def test_official_files_and_hub_rows_are_the_same_questions(squad_dir, monkeypatch, name, version):
    from_file = load_questions(str(squad_dir / name), "validation")
    rows = rows_of(json.loads((squad_dir / name).read_bytes()))
    table = datasets.Dataset.from_list(rows, features=HUB_COLUMNS)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda source, *, split: {("hub/squad", "validation"): table}[source, split]
    )

    from_hub = load_questions("hub/squad", "validation")

    assert replace(from_hub, name=name) == from_file
    assert from_hub.sha256() == from_file.sha256()
    assert (from_hub.name, from_hub.version) == ("hub/squad:validation", version)
    assert len(from_file.questions) == len(rows)
    contexts = {(question["title"], question["context"]) for question in rows}
    assert len({question.paragraph for question in from_file.questions}) == len(contexts)


def test_every_field_of_an_official_file(file):
    content = official(
        article(
            (DENVER, [entry("a"), entry("b", "When?", answers=[gold("won", 29), gold("Denver won", 22)])]),
            ("Berlin.", [entry("c", "Where?", answers=[gold("Berlin", 0)])]),
        ),
        article((DENVER, [entry("d", answers=[])]), title="Denver"),
        version="v2.0",
    )
    found = read_squad(file(content))
    assert found == QuestionSet(
        name="questions.json",
        version="2.0",
        questions=(
            Question("a", "Super_Bowl", "Super_Bowl/0", "Who won?", DENVER, ("Denver",), (0,)),
            Question("b", "Super_Bowl", "Super_Bowl/0", "When?", DENVER, ("won", "Denver won"), (29, 22)),
            Question("c", "Super_Bowl", "Super_Bowl/1", "Where?", "Berlin.", ("Berlin",), (0,)),
            Question("d", "Denver", "Denver/0", "Who won?", DENVER, (), ()),
        ),
        misplaced=(),
    )


@pytest.mark.parametrize(
    ("says", "answers", "version"),
    [
        ("1.1", [gold("Denver", 0)], "1.1"),
        ("1.1", [], "2.0"),  # the script for v1.1 cannot score it
        ("v2.0", [gold("Denver", 0)], "2.0"),
        (2.0, [gold("Denver", 0)], "2.0"),
        (None, [gold("Denver", 0)], "1.1"),
    ],
)
def test_version(file, says, answers, version):
    content = official(article((DENVER, [entry(answers=answers)])), version=says)
    assert read_squad(file(content)).version == version


def test_answers_decide_as_in_the_official_script_whatever_is_impossible_says(file):
    plausible = entry(answers=[], is_impossible=True, plausible_answers=[gold("Denver", 0)])
    contradictory = entry("2", is_impossible=True)
    found = read_squad(file(official(article((DENVER, [plausible, contradictory])), version="v2.0")))
    assert [question.answers for question in found.questions] == [(), ("Denver",)]


def test_titles_may_be_missing_and_ids_may_be_numbers(file):
    content = official({"paragraphs": [{"context": DENVER, "qas": [entry(7)]}]})
    (question,) = read_squad(file(content)).questions
    assert (question.id, question.title, question.paragraph) == ("7", "", "/0")
    assert from_rows([row(title=None)], "rows").questions[0].title == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a JSON file"),
        (b"{'data': []}", "not a JSON file"),
        (b"\x1f\x8b\x08", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        ([], "not SQuAD's layout"),
        ({"id": "text"}, "not SQuAD's layout (KeyError: 'data')"),
        ({"data": "text"}, "not SQuAD's layout"),
        ({"data": [{"title": "no paragraphs"}]}, "not SQuAD's layout (KeyError: 'paragraphs')"),
        (official(article((DENVER, [{"id": "1", "question": "Who?"}]))), "(KeyError: 'answers')"),
        (official(article((DENVER, [entry(answers=[{"text": "Denver"}])]))), "(KeyError: 'answer_start')"),
        (official(article((DENVER, [entry(answers=["Denver"])]))), "not SQuAD's layout"),
        (official(article((DENVER, [entry(), entry()]))), "question id '1' occurs twice"),
        (official(article((DENVER, [entry(1), entry("1")]))), "question id '1' occurs twice"),
        (official(), "no questions in it"),
        (official(article((DENVER, []))), "no questions in it"),
        (official(article((None, [entry()]))), "row 0 (id '1') is not a SQuAD question (TypeError"),
        (official(article((DENVER, [entry(question=["Who?"])]))), "row 0 (id '1') is not a SQuAD question"),
        (official(article((DENVER, [entry(None)]))), "row 0 (id None) is not a SQuAD question"),
        (official(article((DENVER, [entry(answers=[gold(1745, 0)])]))), "(TypeError: id, title, question"),
        (official(article((DENVER, [entry(answers=[gold("Denver", None)])]))), "(TypeError"),
        (official(article((DENVER, [entry(answers=[gold("Denver", "first")])]))), "(ValueError"),
        (official(article((DENVER, [entry(answers=[gold("Denver", float("inf"))])]))), "(OverflowError"),
    ],
)
def test_malformed_files(file, content, words):
    path = file(content)
    message = refusal(read_squad, path)
    assert words in message
    assert message.startswith((str(path), path.name))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"answers": None}, "TypeError"),
        ({"answers": [gold("Denver", 0)]}, "TypeError"),
        ({"answers": {"text": ["Denver"]}}, "KeyError: 'answer_start'"),
        ({"answers": {"text": ["Denver"], "answer_start": []}}, "1 answer texts but 0 starts"),
        ({"question": None}, "is not text"),
        ({"title": 7}, "is not text"),
    ],
)
def test_malformed_rows(broken, words):
    message = refusal(from_rows, [row("0"), row() | broken], "hub/squad:train")
    assert message.startswith("hub/squad:train: row 1 (id '1') is not a SQuAD question (")
    assert words in message


@pytest.mark.parametrize("column", ["id", "context", "question", "answers"])
def test_missing_columns(column):
    lacking = {key: value for key, value in row().items() if key != column}
    assert f"(KeyError: '{column}')" in refusal(from_rows, [lacking], "hub/squad:train")


@pytest.mark.parametrize("make", ["nothing", "folder", "no permission", "too long", "no such user"])
def test_files_that_cannot_be_read(tmp_path, monkeypatch, make):
    path = tmp_path / "questions.json"
    if make == "folder":
        path.mkdir()
    elif make == "no permission":
        # The file's own mode would not stop a test that runs as root.
        monkeypatch.setattr(type(path), "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    elif make == "too long":
        path = tmp_path / ("x" * 300) / "questions"
    source = "~nobody-of-this-name/questions" if make == "no such user" else str(path)
    message = refusal(load_questions, source, "train")
    assert source in message
    assert "'pocket'" in message


@pytest.mark.parametrize("source", [".", "./squad", "missing.json", ""])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(squad, "_load_hub", None)
    assert "cannot be read (" in refusal(load_questions, source, "train")


def test_hub_out_of_reach_names_what_works_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(load_questions, "rajpurkar/squad", "train")
    assert message.startswith("dataset: 'rajpurkar/squad' (train) could not be loaded from the hub (")
    assert "SQuAD JSON file" in message
    assert "'pocket'" in message


def test_pocket_has_its_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(squad, "POCKET_DATA", tmp_path)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.json").write_text(json.dumps(official(article((DENVER, [entry(split)])))))
        assert [question.id for question in load_questions("pocket", split).questions] == [split]


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("Denver", 0, 0),
        ("Denver", 22, 22),
        ("Denver", 1, 0),
        ("Denver", 20, 22),
        ("Denver", 11, 0),  # as far from one as from the other: the first
        ("Denver", 12, 22),
        ("Denver", -5, 0),  # counted from the end it would be the second
        ("Denver", 10**30, 22),
        ("Dallas", 0, -1),
        ("denver", 0, -1),
        (f"{DENVER} Again.", 0, -1),
    ],
)
def test_starts_are_moved_to_the_nearest_occurrence(text, given, found):
    questions = from_rows([row(answers=[(text, given)])], "rows")
    assert questions.questions[0].starts == (found,)
    assert questions.misplaced == (("1",) if found == -1 else ())


@given(st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=3), st.integers(-3, 15))
def test_moved_starts_against_a_search_of_every_position(context, text, start):
    places = [place for place in range(len(context)) if context[place : place + len(text)] == text]
    nearest = min(places, key=lambda place: (abs(place - start), place), default=-1)
    (question,) = from_rows([row(context=context, answers=[(text, start)])], "rows").questions
    assert question.starts == (nearest,)


def test_misplaced_answers_are_named():
    rows = [row(str(number), answers=[("Denver", 0), ("Dallas", 0)]) for number in range(7)]
    questions = from_rows([*rows, row("good")], "train.json")
    assert questions.misplaced == tuple("0123456")
    described = (
        "train.json: 7 questions with an answer that is not in the context (ids '0', '1', '2', '3', '4', ...)"
    )
    assert describe_misplaced(questions) == described
    assert refusal(refuse_misplaced, questions) == f"{described}; mend the file or set bad_answers: skip"

    refuse_misplaced(questions.subset(question for question in questions.questions if question.id == "good"))
    assert questions.subset(questions.questions[5:]).misplaced == ("5", "6")


def paragraphs_of(*sizes):
    """A set with one article for each size, of that many questions about one paragraph."""
    return from_rows(
        [
            row(f"{title}-{number}", title=f"article {title}")
            for title, size in enumerate(sizes)
            for number in range(size)
        ],
        "train.json",
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 60))
def test_limited_takes_whole_paragraphs_but_one(sizes, count):
    whole = paragraphs_of(*sizes)
    few = whole.limited(count)
    assert len(few.questions) == min(count, len(whole.questions))
    assert [question for question in whole.questions if question in few.questions] == list(few.questions)
    taken = [
        sum(question.title == f"article {title}" for question in few.questions) for title in range(len(sizes))
    ]
    assert sum(part not in (0, size) for part, size in zip(taken, sizes, strict=True)) <= 1


def test_limited_spreads_over_the_set():
    whole = paragraphs_of(*[2] * 100)
    assert whole.limited(None) is whole
    places = [int(question.title.removeprefix("article ")) for question in whole.limited(20).questions[::2]]
    gaps = [later - earlier for earlier, later in zip([-1, *places], [*places, 100], strict=True)]
    assert max(gaps) <= 20  # ten paragraphs of a hundred: no stretch of twice their mean distance without one


@pytest.mark.parametrize(
    ("articles", "aside"),
    [(1, "2"), (2, "13"), (4, "0134"), (["article 3", "article 0"], "03")],
)
def test_hold_out_splits_by_article(articles, aside):
    whole = paragraphs_of(1, 2, 1, 3, 1)
    left, held = hold_out(whole, articles)
    assert {question.title[-1] for question in held.questions} == set(aside)
    assert {question.title[-1] for question in left.questions} == set("01234") - set(aside)
    assert sorted(left.questions + held.questions, key=lambda question: question.id) == list(whole.questions)
    assert (left.name, held.name) == ("train.json", f"train.json ({len(aside)} articles set aside)")


@pytest.mark.parametrize(
    ("articles", "words"),
    [
        (["article 9"], "no article 'article 9' in train.json; it has article 0, article 1, article 2"),
        (0, "0 of the 3 articles"),
        (-1, "0 of the 3 articles"),
        ([], "0 of the 3 articles"),
        (3, "3 of the 3 articles"),
        (9, "3 of the 3 articles"),
    ],
)
def test_hold_out_refuses(articles, words):
    message = refusal(hold_out, paragraphs_of(1, 1, 1), articles)
    assert message.startswith("held_out_articles: ")
    assert words in message


def test_fingerprint_is_of_the_content_only(file):
    content = official(article((DENVER, [entry("a"), entry("b", "Lone \ud800 surrogate?")])))
    compact = read_squad(file(content))
    spaced = read_squad(file(json.dumps(content, indent=4).encode(), "other name.json"))
    assert spaced.sha256() == compact.sha256()
    changed = [
        replace(compact, version="2.0"),
        replace(compact, questions=compact.questions[:1]),
        replace(compact, questions=compact.questions[::-1]),
        replace(compact, questions=(compact.questions[0], replace(compact.questions[1], starts=(22,)))),
    ]
    assert len({compact.sha256(), *(other.sha256() for other in changed)}) == 5


def test_half_a_surrogate_pair_is_replaced_wherever_it_stands(file):
    """JSON allows it, UTF-8 does not; offsets stay, and a pair that is whole is one character."""
    context = "Denver \ud800 beat \U0001f600 Carolina."
    answers = (gold("\ud800 beat", 7), gold("Carolina", context.index("Carolina")))
    found = read_squad(
        file(official(article((context, [entry("a\udc00", "Who \udfff?", answers)]), title="\ud83d")))
    )
    (question,) = found.questions
    assert question.context == "Denver \ufffd beat \U0001f600 Carolina."
    assert (question.id, question.question, question.title) == ("a\ufffd", "Who \ufffd?", "\ufffd")
    assert question.paragraph == "\ufffd/0"
    assert question.answers == ("\ufffd beat", "Carolina")
    assert question.starts == (7, context.index("Carolina"))
    assert found.misplaced == ()


def test_a_byte_order_mark_is_no_part_of_the_file(file):
    content = official(article((DENVER, [entry("a")])))
    marked = file(b"\xef\xbb\xbf" + json.dumps(content).encode(), "marked.json")
    assert read_squad(marked).questions == read_squad(file(content)).questions


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_encodable_text_keeps_its_length(text):
    assert len(encodable(text)) == len(text)
    assert all(
        before == after or after == "\ufffd" for before, after in zip(text, encodable(text), strict=True)
    )
    encodable(text).encode()
