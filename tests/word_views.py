"""Views of a few words, made by hand: what a tokenizer might make of a question."""

import numpy as np

from probes.maps import CLS, CONTEXT, QUESTION, SEP, View


def view_of_words(question, pieces):
    """A view of [CLS], the question's words, [SEP], the pieces of the context, [SEP]."""
    chars, regions, at = [(-1, -1)], [CLS], 0
    for word in question.split():
        chars.append((question.index(word), question.index(word) + len(word)))
        regions.append(QUESTION)
    chars.append((-1, -1))
    regions.append(SEP)
    for piece in pieces:
        at += not piece.startswith("##")
        chars.append((at, at := at + len(piece.removeprefix("##"))))
        regions.append(CONTEXT)
    count = len(chars) + 1
    return View(
        unit="word",
        probabilities=np.full((1, 1, count, count), 1 / count, dtype=np.float32),
        layers=(0,),
        heads=(0,),
        labels=("[CLS]", *question.split(), "[SEP]", *pieces, "[SEP]"),
        chars=np.array([*chars, (-1, -1)], dtype=np.int32),
        regions=np.array([*regions, SEP], dtype=np.int32),
        seen=None,
    )
