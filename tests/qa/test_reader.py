"""Any question and any context is answered with a slice of the context, or refused in one line."""

import math
import resource
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
import tiny_models
from qa.config import make_settings
from qa.errors import UserError
from qa.evaluation import Reading
from qa.importing import import_model
from qa.model import load_encoder, save_encoder
from qa.reader import Reader, reading_of
from qa.squad import Question, QuestionSet

READING = Reading(max_length=64, stride=12, max_question_length=24, n_best=5, batch_size=8)
CONTEXT = " ".join(tiny.SENTENCES)
# One for each way of cutting text.
KINDS = ["bert", "roberta", "deberta-v3"]


@pytest.fixture(scope="module", params=KINDS)
def reader(request, tmp_path_factory) -> Reader:
    folder = tiny_models.save(tmp_path_factory.mktemp("model"), request.param)
    return Reader(load_encoder(str(folder)), READING, None)


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r ", "\u3000\u2009"])
def test_blank_text_is_refused(reader, blank):
    with pytest.raises(UserError, match=r"^question: it is empty; give some text$"):
        reader.answer(blank, CONTEXT)
    with pytest.raises(UserError, match=r"^context: it is empty; give some text$"):
        reader.answer("Who?", blank)
    with pytest.raises(UserError, match="context"):
        reader.answers([("Who?", CONTEXT), ("Who?", blank)])


# What the tokenizers disagree about, drop or replace.
ODD = {
    "no letters": "1745 – 42, (£3.50)!",
    "punctuation only": "?! ... --- ;;",
    "NUL inside": "The cat\x00sat\x00 on the mat",
    "NUL only": "\x00\x00",
    "control characters": "\x01\x02\x7f\u200b\u200d\ufeff",
    "lone surrogates": "The \ud800cat\udfff sat \udc80",
    "right to left": "החתול ישב על המחצלת בשנת 1745. القط جلس على الحصيرة.",
    "direction marks": "\u202bThe cat\u202c sat \u200fon\u200e",
    "combining accents": "cafe\u0301 Zu\u0308rich e\u0301\u0302\u0303",
    "emoji": "👩‍👩‍👧 sat 🏳️‍🌈 on the 😀 mat",
    "leading blanks": " \n\t  The   cat  \r\n sat  ",
    "no blanks": "thecatsatonthemat" * 30,
    "one character": "x",
    "special tokens": "[CLS] the [SEP] cat </s> [MASK] <mask> sat [UNK] <s> [PAD] <pad>",
    "ideographs": "猫坐在垫子上。河水上涨。",
    "ligatures": "ﬁnd the ½ ofﬀer № ①",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_is_answered_with_a_slice_of_it(reader, text):
    for question, context in (("Who sat?", text), (text, CONTEXT), (text, text)):
        answer = reader.answer(question, context)
        for span in (answer, *answer.n_best):
            assert span.text == context[span.start : span.end]
        assert 0 <= answer.probability <= 1
        total = answer.no_answer_probability + sum(span.probability for span in answer.n_best)
        assert total <= 1 + 1e-9


@pytest.mark.parametrize("name", ["no letters", "right to left", "emoji", "ideographs"])
def test_text_without_latin_letters_has_an_answer(reader, name):
    assert reader.answer("Who sat?", ODD[name]).text


def test_a_context_of_which_no_token_is_left_has_no_answer(tmp_path):
    # BERT drops control characters; nothing can then be pointed at.
    reader = Reader(load_encoder(str(tiny_models.save(tmp_path, "bert"))), READING, None)
    answer = reader.answer("Who?", ODD["NUL only"])
    assert (answer.text, answer.start, answer.end) == ("", 0, 0)
    assert answer.no_answer_probability == 1
    assert answer.n_best == ()


@given(question=st.text(min_size=1), context=st.text(min_size=1))
def test_whatever_the_text(reader, question, context):
    if not question.strip() or not context.strip():
        return
    answer = reader.answer(question, context)
    for span in (answer, *answer.n_best):
        assert span.text == context[span.start : span.end]
    assert math.isfinite(answer.probability)


def test_a_very_long_question_is_cut_where_the_limit_is(reader):
    text = "Who wrote the first book about Normandy, and where was it printed? "
    answers = [reader.answer(text * times, CONTEXT) for times in (10, 3000)]
    assert answers[0].text == CONTEXT[answers[0].start : answers[0].end]
    assert answers[0] == answers[1]


def test_a_context_of_200_000_characters(tmp_path):
    encoder = load_encoder(str(tiny_models.save(tmp_path)))
    reader = Reader(encoder, Reading(max_length=128, stride=32), None)
    context = (CONTEXT + " ") * (200_000 // len(CONTEXT) + 1)
    seen = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = reader.answer("When did the dynasty fall?", context, progress=lambda *at: seen.append(at))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(context) > 200_000
    assert answer.text == context[answer.start : answer.end] != ""
    assert answer.windows > 1000
    assert seen[-1] == (answer.windows, answer.windows)
    assert len(seen) == math.ceil(answer.windows / reader.reading.batch_size)
    # Mostly the scores of all spans: tokens × longest answer × 8 bytes, a few times over.
    assert grown < 500_000 * (1024 if sys.platform == "darwin" else 1)  # Linux counts in KiB


def test_many_pairs_are_answered_as_one_by_one(reader):
    pairs = [("Who sat?", CONTEXT), ("Where was it printed?", tiny.SENTENCES[2]), ("Who?", "x")]
    together = reader.answers(pairs)
    for answer, pair in zip(together, pairs, strict=True):
        alone = reader.answer(*pair)
        assert (answer.text, answer.start, answer.windows) == (alone.text, alone.start, alone.windows)
        assert answer.probability == pytest.approx(alone.probability, abs=1e-5)
    assert reader.answers([]) == []


def test_what_was_read_has_the_windows_and_scores_behind_the_answers(reader):
    pairs = [("Who sat?", CONTEXT), ("Who?", "x")]
    windows = reader.windows(pairs)
    read = reader.read(windows)
    assert list(read.answers) == reader.answers(pairs)
    assert read.windows is windows
    assert read.start.shape == read.end.shape == windows.ids.shape
    for question, answer in enumerate(read.answers):
        best = -math.inf
        for number in (windows.question == question).nonzero()[0]:
            scores = slice(*windows.splits[number : number + 2])
            context = windows[int(number)].context
            best = max(best, (read.start[scores][context][:, None] + read.end[scores][context]).max())
        assert answer.n_best[0].score <= best


def test_the_threshold_refuses(reader):
    free = reader.answer("Who sat?", CONTEXT)
    just_above, just_below = free.no_answer_probability * 1.001, free.no_answer_probability * 0.999
    assert Reader(reader.encoder, READING, just_above).answer("Who sat?", CONTEXT) == free
    refused = Reader(reader.encoder, READING, just_below).answer("Who sat?", CONTEXT)
    assert (refused.text, refused.start, refused.end) == ("", 0, 0)
    assert refused.probability == free.no_answer_probability
    assert refused.n_best == free.n_best


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A model imported with settings that are not the defaults, evaluated on two questions."""
    root = tmp_path_factory.mktemp("experiments")
    source = tiny_models.save(tmp_path_factory.mktemp("model"))
    settings = make_settings(
        {"max_length": 48, "stride": 9, "max_question_length": 20, "max_answer_length": 7, "n_best": 3}
    )
    asked = [
        Question(str(number), "", str(number), "Who sat on the mat?", context, ("cat",), (4,))
        for number, context in enumerate((tiny.SENTENCES[0], CONTEXT))
    ]
    questions = QuestionSet("two", "1.1", tuple(asked), ())
    return import_model(str(source), questions, root=root, name="imported", settings=settings), asked


def test_reads_an_experiment_as_it_was_evaluated(experiment):
    imported, asked = experiment
    reader = Reader.of(imported, device="cpu")
    assert reader.reading == reading_of(imported.settings())
    assert reader.reading.max_answer_length == 7
    answers = reader.answers([(question.question, question.context) for question in asked])
    for row, answer in zip(imported.predictions(), answers, strict=True):
        assert (row["prediction"], row["start"], row["end"]) == (answer.text, answer.start, answer.end)
        assert row["probability"] == answer.probability
        assert row["windows"] == answer.windows
        assert len(row["n_best"]) == len(answer.n_best) == 3


def test_an_experiment_whose_model_lost_its_head_is_refused(experiment):
    imported, _ = experiment
    encoder = load_encoder(str(imported.model_folder()))
    encoder.model.deberta.save_pretrained(imported.model_folder())
    try:
        with pytest.raises(UserError, match="no trained question-answering head"):
            Reader.of(imported, device="cpu")
    finally:
        save_encoder(encoder, imported.model_folder())
