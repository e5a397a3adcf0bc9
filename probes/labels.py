"""From a window to what its attention is of: tokens, characters, words and regions.

The trap: what looks like a special token need not be one, because tokenizers also cut "[SEP]" out of ordinary
text. So regions come from positions: where the context is in the window, and how many tokens the tokenizer
adds to a pair. And a question that was too long is cut somewhere, so its tokens say where.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, Attention, groups_of
from probes.words import Int, sentences_of, words_of
from qa.spans import Answer
from qa.squad import encodable
from qa.windows import Window


def attention_of(
    probabilities: torch.Tensor,
    window: Window,
    *,
    tokenizer: PreTrainedTokenizerBase,
    texts: tuple[str, str],
    answer: Answer,
    layers: Sequence[int],
    heads: Sequence[int],
    norms: torch.Tensor | None = None,
) -> Attention:
    """The attention in one window.

    Args:
        probabilities: as captured [L, H, T, T].
        window: of T tokens.
        tokenizer: that the window was made with.
        texts: the question and the context.
        answer: to the question; its characters are the region of the answer.
        layers: numbers of the layers [L].
        heads: numbers of the heads [H].
        norms: as captured [L, H, T].
    """
    question, context = texts
    regions = _regions(window, tokenizer, answer)
    chars = np.full((len(window.ids), 2), -1, dtype=np.int32)
    chars[window.context] = window.chars
    asked = regions == QUESTION
    chars[asked] = _question_chars(question, window.ids[asked], tokenizer)
    words, sentences = (
        groups_of(regions, chars, question=question, context=context, cut=cut)
        for cut in (words_of, sentences_of)
    )
    return Attention(
        probabilities=probabilities.numpy(),
        layers=tuple(layers),
        heads=tuple(heads),
        tokens=tuple(tokenizer.convert_ids_to_tokens(window.ids.tolist())),
        chars=chars,
        words=words,
        sentences=sentences,
        regions=regions,
        windows=np.full(len(regions), window.ordinal, dtype=np.int32),
        seen=None,
        before=window.first_context_token,
        question=question,
        context=context,
        answer=(answer.start, answer.end),
        norms=None if norms is None else norms.numpy(),
    )


def _regions(window: Window, tokenizer: PreTrainedTokenizerBase, answer: Answer) -> Int:
    """The position in REGIONS of each token [T]."""
    T, (start, stop) = len(window.ids), (window.context.start, window.context.stop)
    question = T - (stop - start) - int(tokenizer.num_special_tokens_to_add(pair=True))
    regions = np.full(T, SEP, dtype=np.int32)
    regions[window.cls] = CLS
    regions[window.cls + 1 : window.cls + 1 + question] = QUESTION
    regions[window.context] = CONTEXT
    is_answer = (window.chars[:, 0] < answer.end) & (window.chars[:, 1] > answer.start)
    regions[window.context][is_answer] = ANSWER
    return regions


def _question_chars(question: str, ids: Int, tokenizer: PreTrainedTokenizerBase) -> Int:
    """First character and end of each of the question's n tokens, trimmed of blanks [n, 2]."""
    if not len(ids):
        return np.empty((0, 2), dtype=np.int32)
    text, wanted = encodable(question), ids.tolist()

    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return encoded["input_ids"], encoded["offset_mapping"]

    whole, offsets = encode(text)
    # A question that is too long was cut at the end of a token, after about as many as there are.
    ends = sorted({end for _, end in offsets}, key=lambda end: abs(end - offsets[len(wanted) - 1][1]))
    pieces = (encode(text[:end]) for end in ends)
    spans = offsets if whole == wanted else next(spans for found, spans in pieces if found == wanted)
    return np.array([_trimmed(text, *span) for span in spans], dtype=np.int32)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, start + len(piece.strip()))
