"""Question and context cut into overlapping token windows, and back from tokens to characters.

A context longer than the model reads is covered by windows of `max_length` tokens that overlap by `stride`
tokens. All windows of a data set live in one flat `WindowSet` (no list of lists), so that decoding can work
on all of them at once. The trap: offsets of SentencePiece tokenizers include the blank before the word, so
every offset is trimmed to what it covers without blanks before it meets text; a token of blanks only covers
nothing and can neither start nor end an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerBase

from qa.errors import UserError
from qa.squad import Question, encodable

# Fills the labels of a question with fewer gold answers than another.
UNUSED = -1

Int = NDArray[np.int32]
Progress = Callable[[int, int], None]

# Tokenised at a time: large enough for the tokenizer's own threads, small enough to report progress.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Window:
    """One window: T tokens of which the `context` slice is a piece of the context.

    Attributes:
        question: position of the question in the set the windows were made from.
        ordinal: 0 for the question's first window.
        ids: token ids [T], special tokens included, no padding.
        types: token types [T], as the tokenizer gives them.
        context: token positions of the context in this window.
        chars: first character and end of each context token, trimmed of blanks [len(context), 2].
        first_context_token: how many tokens of the context come before this window.
        cls: position of the token whose score stands for "no answer".
    """

    question: int
    ordinal: int
    ids: Int
    types: Int
    context: slice
    chars: Int
    first_context_token: int
    cls: int


@dataclass(frozen=True, slots=True)
class WindowSet:
    """Windows of many questions in flat arrays; N windows, S tokens in all, Q questions.

    Attributes:
        splits: window n has the tokens splits[n]:splits[n+1] [N+1].
        ids: token ids [S].
        types: token types [S].
        chars: trimmed character span of each token in the context, -1 outside of it [S, 2].
        question: the question of each window, ascending [N].
        ordinal: 0, 1, 2 ... within a question [N].
        context_start: first context token of each window, relative to the window [N].
        context_end: one past its last context token, likewise [N].
        first_context_token: context tokens before the window [N].
        cls: position of the [CLS] (or <s>) token, relative to the window [N].
        contexts: the context of each question (Q strings).
        shortened: questions cut to the question limit, as positions.
    """

    splits: NDArray[np.int64]
    ids: Int
    types: Int
    chars: Int
    question: Int
    ordinal: Int
    context_start: Int
    context_end: Int
    first_context_token: Int
    cls: Int
    contexts: tuple[str, ...]
    shortened: tuple[int, ...]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.question)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each window [N]."""
        lengths: NDArray[np.int64] = np.diff(self.splits)
        return lengths

    def windows_per_question(self) -> NDArray[np.int64]:
        """How many windows each question has [Q]."""
        return np.bincount(self.question, minlength=len(self.contexts))

    def __getitem__(self, index: int) -> Window:
        """Window `index` as a value of its own (views, not copies)."""
        tokens = slice(int(self.splits[index]), int(self.splits[index + 1]))
        context = slice(int(self.context_start[index]), int(self.context_end[index]))
        return Window(
            question=int(self.question[index]),
            ordinal=int(self.ordinal[index]),
            ids=self.ids[tokens],
            types=self.types[tokens],
            context=context,
            chars=self.chars[tokens][context],
            first_context_token=int(self.first_context_token[index]),
            cls=int(self.cls[index]),
        )

    def __iter__(self) -> Iterator[Window]:
        """The windows in order."""
        return (self[index] for index in range(len(self)))


def room_for_context(tokenizer: PreTrainedTokenizerBase, *, max_length: int, max_question_length: int) -> int:
    """Context tokens that a window holds at least, whatever the question."""
    return max_length - max_question_length - int(tokenizer.num_special_tokens_to_add(pair=True))


def check_lengths(
    tokenizer: PreTrainedTokenizerBase, *, max_length: int, stride: int, max_question_length: int
) -> None:
    """Refuse lengths with which windows could not advance.

    Raises:
        UserError: the overlap is not smaller than the room that a question of the longest kind leaves.
    """
    room = room_for_context(tokenizer, max_length=max_length, max_question_length=max_question_length)
    if stride >= room:
        raise UserError(
            f"stride: {stride} tokens of overlap, but a window of max_length {max_length} has room for "
            f"{max(room, 0)} context tokens beside a question of {max_question_length}; "
            f"{f'set stride below {room}' if room > 0 else 'raise max_length or lower max_question_length'}"
        )


def make_windows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stride: int,
    max_question_length: int = 64,
    progress: Progress | None = None,
) -> WindowSet:
    """Cut the questions' contexts into windows.

    Args:
        questions: Q questions.
        tokenizer: a fast tokenizer (its offsets are needed).
        max_length: tokens in a window at most, special tokens included.
        stride: tokens by which consecutive windows overlap.
        max_question_length: a longer question is cut at this many tokens (and listed in `shortened`).
        progress: called with (questions done, questions in all).

    Raises:
        UserError: the lengths leave no room, or the tokenizer cannot give offsets.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__}: no character offsets; choose a model with a fast tokenizer"
        )
    check_lengths(tokenizer, max_length=max_length, stride=stride, max_question_length=max_question_length)
    flat = _Flat(tokenizer, stride)
    shortened: list[int] = []
    for begin in range(0, len(questions), CHUNK):
        chunk = questions[begin : begin + CHUNK]
        texts, cut = _shorten([encodable(item.question) for item in chunk], tokenizer, max_question_length)
        shortened += [begin + index for index in cut]
        encoded = tokenizer(
            texts,
            [encodable(item.context) for item in chunk],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            # Types and offsets are read from the encodings; making lists of them takes as long as the rest.
            return_token_type_ids=False,
            return_attention_mask=False,
            padding=False,
            verbose=False,
        )
        flat.add(encoded, [item.context for item in chunk], begin)
        if progress is not None:
            progress(begin + len(chunk), len(questions))
    return flat.finish(tuple(item.context for item in questions), tuple(shortened))


def answer_labels(windows: WindowSet, questions: Sequence[Question]) -> tuple[Int, Int]:
    """Token positions of each question's first placed gold answer, end included, in every window [N], [N].

    A window that does not hold the whole answer, and every window of an unanswerable question, gets the
    position of [CLS] twice. What no token covers at either end of a gold text (blanks, accents that the
    tokenizer drops) is left out, or it would label a neighbouring word as well.
    """
    starts, ends = _labels(windows, questions, most=1)
    return starts[:, 0], ends[:, 0]


def all_answer_labels(windows: WindowSet, questions: Sequence[Question]) -> tuple[Int, Int]:
    """As `answer_labels`, of every placed gold answer of each question [N, A], [N, A]; UNUSED fills the rows.

    The first column is `answer_labels`. An answer that several people gave stands there several times.
    """
    return _labels(windows, questions, most=max((len(question.starts) for question in questions), default=1))


def _labels(windows: WindowSet, questions: Sequence[Question], most: int) -> tuple[Int, Int]:
    """The labels of at most this many gold answers of each question [N, A], [N, A]."""
    labels = np.full((2, len(windows), max(1, most)), UNUSED, windows.cls.dtype)
    labels[:, :, 0] = windows.cls
    stops = np.cumsum(windows.windows_per_question())
    for index, stop in enumerate(stops.tolist()):
        numbers = range(int(stops[index - 1]) if index else 0, stop)
        spans = windows.chars[windows.splits[numbers.start] : windows.splits[numbers.stop]]
        for column, (start, end) in enumerate(gold_spans(questions[index])[:most]):
            covered = spans[(spans[:, 1] > start) & (spans[:, 0] < end) & (spans[:, 1] > spans[:, 0])]
            for number in numbers:
                # An answer that no token covers is in no window.
                labels[:, number, column] = windows.cls[number]
                if len(covered):
                    tight = max(start, int(covered[:, 0].min())), min(end, int(covered[:, 1].max()))
                    labels[:, number, column] = _label(windows[number], *tight)
    return labels[0], labels[1]


def gold_span(question: Question) -> tuple[int, int]:
    """First character and end of the first gold answer that is in the context; (0, 0) if none."""
    return next(iter(gold_spans(question)), (0, 0))


def gold_spans(question: Question) -> list[tuple[int, int]]:
    """First character and end of every gold answer that is in the context."""
    return [
        (start, start + len(text))
        for text, start in zip(question.answers, question.starts, strict=True)
        if start >= 0 and text.strip()
    ]


def _label(window: Window, start: int, end: int) -> tuple[int, int]:
    """The tightest tokens around the characters `start` to `end`; [CLS] twice if they are not all in here."""
    usable = np.flatnonzero(window.chars[:, 1] > window.chars[:, 0])
    starts, ends = window.chars[usable].T
    if not len(usable) or start < starts[0] or ends[-1] < end:
        return window.cls, window.cls
    # Of the pieces of one character the first begins the answer, and the last ends it.
    first = np.searchsorted(starts, starts[np.searchsorted(starts, start, side="right") - 1])
    last = np.searchsorted(ends, ends[np.searchsorted(ends, end)], side="right") - 1
    return window.context.start + int(usable[first]), window.context.start + int(usable[max(first, last)])


def _shorten(texts: list[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> tuple[list[str], list[int]]:
    """Cut each text after `limit` tokens; also the positions of those that were cut."""
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    cut = [index for index, ids in enumerate(encoded["input_ids"]) if len(ids) > limit]
    shorter = list(texts)
    for index in cut:
        shorter[index] = _cut(texts[index], encoded["offset_mapping"][index], tokenizer, limit)
    return shorter, cut


def _cut(text: str, offsets: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase, limit: int) -> str:
    """The longest start of the text, ending at a token's end, of at most `limit` tokens."""
    for kept in range(limit, 0, -1):
        # What is cut can tokenise into more tokens than it was cut at, so measure it again.
        piece = text[: offsets[kept - 1][1]]
        if len(tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]) <= limit:
            return piece
    return ""


class _Flat:
    """Collects encoded windows and lays them out flat."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stride: int) -> None:
        self.cls_id = tokenizer.cls_token_id
        self.stride = stride
        self.ids: list[Int] = []
        self.types: list[Int] = []
        self.chars: list[Int] = []
        self.rows: list[tuple[int, int, int, int, int, int]] = []

    def add(self, encoded: BatchEncoding, contexts: list[str], first_question: int) -> None:
        """Add the windows of one call of the tokenizer; `contexts` are the call's own."""
        previous = -1
        ordinal = before = 0
        for encoding, sample in zip(
            encoded.encodings or (), encoded["overflow_to_sample_mapping"], strict=True
        ):
            if sample != previous:
                ordinal, before, blank = 0, 0, _blanks(contexts[sample])
            sequence = encoding.sequence_ids
            start = sequence.index(1) if 1 in sequence else len(sequence)
            end = start + sequence.count(1)
            chars = np.full((len(sequence), 2), -1, dtype=np.int32)
            chars[start:end] = _trim(np.array(encoding.offsets, dtype=np.int32)[start:end], blank)
            self.ids.append(np.array(encoding.ids, dtype=np.int32))
            self.types.append(np.array(encoding.type_ids, dtype=np.int32))
            self.chars.append(chars)
            cls = encoding.ids.index(self.cls_id) if self.cls_id in encoding.ids else 0
            self.rows.append((first_question + sample, ordinal, start, end, before, cls))
            previous, ordinal, before = sample, ordinal + 1, before + (end - start) - self.stride

    def finish(self, contexts: tuple[str, ...], shortened: tuple[int, ...]) -> WindowSet:
        """The flat arrays of everything added."""
        rows = np.array(self.rows, dtype=np.int32).reshape(-1, 6).T
        none = np.empty((0, 2), dtype=np.int32)  # no questions, no windows: nothing to join otherwise
        lengths = [len(ids) for ids in self.ids]
        return WindowSet(
            splits=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            ids=np.concatenate([none[:, 0], *self.ids]),
            types=np.concatenate([none[:, 0], *self.types]),
            chars=np.concatenate([none, *self.chars]),
            question=rows[0],
            ordinal=rows[1],
            context_start=rows[2],
            context_end=rows[3],
            first_context_token=rows[4],
            cls=rows[5],
            contexts=contexts,
            shortened=shortened,
        )


def _blanks(text: str) -> NDArray[np.bool_]:
    """Which characters are white space [len(text) + 1]; one more, so that every end can be looked up."""
    characters = np.frombuffer((text + "x").encode("utf-32-le", "surrogatepass"), dtype="<U1")
    blank: NDArray[np.bool_] = np.char.isspace(characters)
    return blank


def _trim(spans: Int, blank: NDArray[np.bool_]) -> Int:
    """Spans without white space at either end; one of blanks only becomes empty [n, 2]."""
    start, end = spans[:, 0].copy(), spans[:, 1].copy()
    while (move := (start < end) & blank[start]).any():
        start += move
    while (move := (start < end) & blank[np.maximum(end - 1, 0)]).any():
        end -= move
    return np.stack([start, end], axis=1)
