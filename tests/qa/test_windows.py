"""Windows against a plain call of the tokenizer without truncation, labels against all pairs of tokens."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AddedToken, RobertaTokenizer

import tiny
from qa import windows as windows_module
from qa.errors import UserError
from qa.squad import Question, encodable
from qa.windows import answer_labels, check_lengths, make_windows, room_for_context
from texts import awkward

LENGTHS = {"max_length": 24, "stride": 5, "max_question_length": 8}
LONG = " ".join(tiny.SENTENCES)


TOKENIZERS = {name: make() for name, make in tiny.TOKENIZERS.items()}
names = st.sampled_from(list(TOKENIZERS))


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request):
    return TOKENIZERS[request.param]


def ask(question, context, *, answer=None):
    """A question whose gold answer is the slice `answer` of the context."""
    golds = () if answer is None else (context[slice(*answer)],)
    return Question("id", "", "/0", question, context, golds, () if answer is None else (answer[0],))


def whole(tokenizer, context):
    """Ids of all the context's tokens, and the character span of each without blanks, by plain Python."""
    encoded = tokenizer(encodable(context), add_special_tokens=False, return_offsets_mapping=True)
    spans = []
    for start, end in encoded["offset_mapping"]:
        left = len(context[start:end]) - len(context[start:end].lstrip())
        spans.append((start + left, max(start + left, start + len(context[start:end].rstrip()))))
    return encoded["input_ids"], spans


def question_ids(tokenizer, window):
    """The tokens between the first two special tokens, or between [CLS] and the context."""
    extra = tokenizer.num_special_tokens_to_add(pair=True) - 2  # separators between question and context
    return window.ids[1 : window.context.start - extra].tolist()


@given(name=names, question=awkward, context=awkward)
@example("wordpiece", "Who?", "")
@example("byte_bpe", "Who?", "   ")
@example("unigram", "Who?", f"  \n {LONG}")
@example("unigram", LONG, LONG)
def test_windows_are_slices_of_the_whole_context(name, question, context):
    tokenizer = TOKENIZERS[name]
    windows = make_windows([ask(question, context)], tokenizer, **LENGTHS)
    ids, spans = whole(tokenizer, context)

    begin = 0
    for ordinal, window in enumerate(windows):
        count = window.context.stop - window.context.start
        assert (window.question, window.ordinal, window.first_context_token) == (0, ordinal, begin)
        assert window.ids[window.context].tolist() == ids[begin : begin + count]
        assert window.chars.tolist() == [list(span) for span in spans[begin : begin + count]]
        assert len(window.ids) <= LENGTHS["max_length"]
        last = ordinal == len(windows) - 1
        assert last == (begin + count == len(ids))
        assert last or len(window.ids) == LENGTHS["max_length"]
        begin += count - LENGTHS["stride"]


@given(name=names, question=awkward, context=awkward.map("The {}".format))
def test_around_the_context_stand_the_question_and_special_tokens(name, question, context):
    tokenizer = TOKENIZERS[name]
    windows = make_windows([ask(question, context)], tokenizer, **LENGTHS)
    for index, window in enumerate(windows):
        assert window.cls == 0
        assert window.ids[0] == tokenizer.cls_token_id
        assert window.ids[-1] == tokenizer.sep_token_id
        assert window.context.stop == len(window.ids) - 1
        assert question_ids(tokenizer, window) == question_ids(tokenizer, windows[0])
        outside = np.delete(
            windows.chars[windows.splits[index] : windows.splits[index + 1]], window.context, axis=0
        )
        assert (outside == -1).all()
        second = (np.arange(len(window.ids)) >= window.context.start).astype(int)
        assert (
            window.types.tolist()
            == (second if "token_type_ids" in tokenizer.model_input_names else 0 * second).tolist()
        )


@given(name=names, context=awkward)
def test_no_token_begins_or_ends_with_a_blank(name, context):
    tokenizer = TOKENIZERS[name]
    windows = make_windows([ask("Who?", context)], tokenizer, **LENGTHS)
    for window in windows:
        for start, end in window.chars.tolist():
            assert 0 <= start <= end <= len(context)
            assert context[start:end].strip() == context[start:end]
        # What labels and spans rely on: order. Tokens that cover nothing are left out by both.
        usable = window.chars[window.chars[:, 1] > window.chars[:, 0]]
        assert (np.diff(usable, axis=0) >= 0).all()


def test_blanks_after_a_token_are_trimmed_too():
    tokenizer = tiny.wordpiece()
    tokenizer.add_tokens(AddedToken("<br>", lstrip=True, rstrip=True))
    context = "in  <br> \n red"
    offsets = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert [context[slice(*offset)] for offset in offsets] == ["in", "  <br> \n ", "red"]
    (window,) = make_windows([ask("Who?", context)], tokenizer, **LENGTHS)
    assert [context[start:end] for start, end in window.chars] == ["in", "<br>", "red"]


@given(name=names, questions=st.lists(awkward, min_size=1, max_size=4), limit=st.integers(4, 12))
@example("unigram", [LONG, "Who?", LONG], 8)
@example("byte_bpe", ["👍" * 20, "\ufdfa" * 20, "e\u0301" * 20, "w" * 200], 5)
def test_questions_are_cut_at_the_limit_and_listed(name, questions, limit):
    tokenizer = TOKENIZERS[name]
    asked = [ask(question, "The cat sat.") for question in questions]
    windows = make_windows(asked, tokenizer, max_length=40, stride=2, max_question_length=limit)
    full = [whole(tokenizer, question)[0] for question in questions]

    assert windows.shortened == tuple(index for index, ids in enumerate(full) if len(ids) > limit)
    for window in windows:
        kept = question_ids(tokenizer, window)
        if window.question in windows.shortened:
            assert len(kept) <= limit
        else:
            assert kept == full[window.question]


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_a_question_of_just_the_limit_is_not_cut(tokenizer, spare):
    question = "Who sat in Denver?"
    ids = whole(tokenizer, question)[0]
    lengths = {"max_length": 40, "stride": 2, "max_question_length": len(ids) + spare}
    windows = make_windows([ask(question, LONG)], tokenizer, **lengths)
    assert windows.shortened == ((0,) if spare < 0 else ())
    assert question_ids(tokenizer, windows[0]) == (ids[:-1] if spare < 0 else ids)


def test_a_context_of_more_than_ten_windows(tokenizer):
    context = " ".join([LONG] * 3)
    windows = make_windows([ask("Who sat?", "The cat."), ask("Where?", context)], tokenizer, **LENGTHS)
    assert windows.windows_per_question().tolist() == [1, len(windows) - 1]
    assert len(windows) > 11
    assert windows.contexts == ("The cat.", context)
    spans = {}
    for window in list(windows)[1:]:
        for position, span in enumerate(window.chars.tolist(), start=window.first_context_token):
            assert spans.setdefault(position, span) == span
    assert sorted(spans) == list(range(len(whole(tokenizer, context)[0])))


def expected_label(window, spans, start, end):
    """The tightest pair of tokens around what tokens cover of start:end; the longest of equally tight."""
    covered = {character for span in spans for character in range(*span) if start <= character < end}
    if not covered:
        return window.cls, window.cls
    pairs = [
        (right[1] - left[0], first - last, (window.context.start + first, window.context.start + last))
        for first, left in enumerate(window.chars.tolist())
        for last, right in enumerate(window.chars.tolist())
        if first <= last and left[0] < left[1] and right[0] < right[1]
        if left[0] <= min(covered) and max(covered) < right[1]
    ]
    return min(pairs, default=(0, 0, (window.cls, window.cls)))[2]


@given(name=names, context=awkward, data=st.data())
def test_labels_are_the_tightest_tokens_around_the_answer(name, context, data):
    tokenizer = TOKENIZERS[name]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(context))] * 2)))
    question = ask("Who?", context, answer=(start, end))
    windows = make_windows([question], tokenizer, **LENGTHS)
    spans = whole(tokenizer, context)[1]
    labels = np.stack(answer_labels(windows, [question]), axis=1).tolist()
    blank = not context[start:end].strip()
    for window, label in zip(windows, labels, strict=True):
        expected = (window.cls, window.cls) if blank else expected_label(window, spans, start, end)
        assert tuple(label) == expected


@given(name=names, context=awkward, data=st.data())
def test_labels_slice_back_to_an_answer_made_of_tokens(name, context, data):
    tokenizer = TOKENIZERS[name]
    spans = [span for span in whole(tokenizer, context)[1] if span[0] < span[1]]
    if not spans:
        return
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(spans) - 1)] * 2)))
    gold = (spans[first][0], spans[last][1])
    question = ask("Who?", context, answer=gold)
    windows = make_windows([question], tokenizer, **LENGTHS)

    found = 0
    for index, (start, end) in enumerate(zip(*answer_labels(windows, [question]), strict=True)):
        if start != windows.cls[index]:
            found += 1
            chars = windows.chars[windows.splits[index] : windows.splits[index + 1]]
            assert (chars[start, 0], chars[end, 1]) == gold
    pieces = sum(gold[0] <= span[0] and span[1] <= gold[1] for span in whole(tokenizer, context)[1])
    assert found or pieces > LENGTHS["stride"]  # an answer as long as the overlap is whole in some window


def test_labels_of_several_questions_do_not_mix(tokenizer):
    asked = [
        ask("Who?", "   The cat sat.", answer=(0, 7)),  # blanks before the answer belong to no token
        ask("Who?", ""),
        ask("Where?", LONG, answer=(LONG.index("Denver"), LONG.index("Denver") + 7)),  # and after it
        ask("When?", LONG),
        Question("id", "", "/0", "Who?", "The cat sat.", ("dog", "cat"), (-1, 4)),
    ]
    windows = make_windows(asked, tokenizer, **LENGTHS)
    labels = answer_labels(windows, asked)
    found = {}
    for index, window in enumerate(windows):
        first, last = (int(label[index]) - window.context.start for label in labels)
        if labels[0][index] == window.cls:
            assert labels[1][index] == window.cls
        else:
            text = asked[window.question].context[window.chars[first, 0] : window.chars[last, 1]]
            found.setdefault(window.question, set()).add(text)
    assert found == {0: {"The"}, 2: {"Denver"}, 4: {"cat"}}


def test_labels_where_tokens_share_a_character():
    merges = [("x", "Ã"), ("©", "y")]  # "é" is these two bytes: one ends a token, the other begins the next
    pieces = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "x", "y", "Ã", "©", "xÃ", "©y"]
    tokenizer = RobertaTokenizer({piece: id_ for id_, piece in enumerate(pieces)}, merges)
    context = "xéy"
    for answer, tokens in (((0, 2), (0, 0)), ((1, 3), (1, 1)), ((0, 3), (0, 1)), ((1, 2), (1, 1))):
        question = ask("x", context, answer=answer)
        windows = make_windows([question], tokenizer, **LENGTHS)
        assert windows[0].chars.tolist() == [[0, 2], [1, 3]]
        ((start,), (end,)) = answer_labels(windows, [question])
        assert (start - windows[0].context.start, end - windows[0].context.start) == tokens


def test_what_the_tokenizer_drops_at_the_end_of_an_answer_does_not_lose_it():
    context = "My favorite cafe\u0301"
    question = ask("Where?", context, answer=(12, 17))
    windows = make_windows([question], tiny.wordpiece(), **LENGTHS)
    (start,), (end,) = answer_labels(windows, [question])
    assert context[windows.chars[start, 0] : windows.chars[end, 1]] in ("cafe", "cafe\u0301")
    assert start > windows.cls[0]


@given(
    name=names,
    max_length=st.integers(1, 30),
    stride=st.integers(0, 30),
    max_question_length=st.integers(1, 30),
)
@example(name="unigram", max_length=9, stride=0, max_question_length=5)  # cut after the mark of a word
@example(name="unigram", max_length=30, stride=2, max_question_length=20)  # more question than context
def test_lengths_that_are_not_refused_work_for_the_longest_question(
    name, max_length, stride, max_question_length
):
    tokenizer = TOKENIZERS[name]
    lengths = {"max_length": max_length, "stride": stride, "max_question_length": max_question_length}
    room = room_for_context(tokenizer, max_length=max_length, max_question_length=max_question_length)
    if stride >= room:
        with pytest.raises(
            UserError, match=f"^stride: {stride} tokens of overlap, but .*{max_length}"
        ) as caught:
            make_windows([ask(LONG, LONG)], tokenizer, **lengths)
        ways_on = f"set stride below {room}" if room > 0 else "raise max_length or lower max_question_length"
        assert str(caught.value).endswith(ways_on)
    else:
        windows = make_windows([ask(LONG, LONG)], tokenizer, **lengths)
        assert windows.lengths.max() == max_length
        # A long question is cut at its limit, and not again to make room for the context. Where the last
        # piece only marks the beginning of a word, the text ends before it, and the context has its place.
        asked = question_ids(tokenizer, windows[0])
        all_ids = whole(tokenizer, LONG)[0][:max_question_length]
        unused = len(all_ids) - len(asked)
        assert asked == all_ids[: len(asked)]
        assert tokenizer.convert_ids_to_tokens(all_ids[len(asked) :]) == ["▁"] * unused
        assert windows.context_end[-1] - windows.context_start[-1] <= room + unused


def test_the_largest_stride_there_is_room_for(tokenizer):
    room = room_for_context(tokenizer, max_length=24, max_question_length=8)
    check_lengths(tokenizer, max_length=24, stride=room - 1, max_question_length=8)
    with pytest.raises(UserError):
        check_lengths(tokenizer, max_length=24, stride=room, max_question_length=8)


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(UserError, match="no character offsets; choose a model with a fast tokenizer"):
        make_windows([ask("Who?", "The cat.")], SimpleNamespace(is_fast=False), **LENGTHS)


def test_progress_and_chunks(tokenizer, monkeypatch):
    asked = [ask(question, LONG) for question in ("Who?", LONG, "When?", "Where?", LONG)]
    at_once = make_windows(asked, tokenizer, **LENGTHS)
    monkeypatch.setattr(windows_module, "CHUNK", 2)
    calls = []
    in_chunks = make_windows(asked, tokenizer, **LENGTHS, progress=lambda *call: calls.append(call))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert in_chunks.shortened == at_once.shortened == (1, 4)
    for field in fields(at_once):
        np.testing.assert_array_equal(getattr(in_chunks, field.name), getattr(at_once, field.name))


def test_no_questions_make_no_windows(tokenizer):
    windows = make_windows([], tokenizer, **LENGTHS)
    assert (len(windows), list(windows), windows.lengths.tolist()) == (0, [], [])
    assert windows.windows_per_question().tolist() == []
    assert [labels.tolist() for labels in answer_labels(windows, [])] == [[], []]
