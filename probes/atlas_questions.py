"""What one question shows of every head: its maps' measures and the sizes of DeBERTa's terms.

Windows are read one at a time and without padding, and their maps are dropped as soon as they are measured,
so that a question takes the memory of one window. The trap: maps in half precision would be off by 1e-4.
"""

from __future__ import annotations

import numpy as np
import torch

from probes.atlas_measures import Float, Rows, measure_maps
from probes.attend import read_again
from probes.attention import AttentionProbe
from probes.encoders import describe
from probes.labels import attention_of
from probes.maps import Attention
from probes.term_shares import TermSharesProbe
from probes.terms import TERMS
from qa.reader import Reader
from qa.spans import Answer
from qa.squad import Question
from qa.windows import WindowSet, gold_span


def map_measures(reader: Reader, question: Question) -> dict[str, Float]:
    """MAP_MEASURES of each head [L, H], over all windows of a question."""
    windows = reader.windows([(question.question, question.context)])
    probe = AttentionProbe(reader.encoder.model, dtype=torch.float32)
    total: Rows | None = None
    for number in range(len(windows)):
        with probe:
            read_again(reader, windows, [number])
        rows = measure_maps(_attention(probe, reader, question, windows, number))
        total = rows if total is None else total + rows
    assert total is not None
    return total.means()


def _attention(
    probe: AttentionProbe, reader: Reader, question: Question, windows: WindowSet, number: int
) -> Attention:
    """The maps that were captured, with the gold answer as the answer."""
    (capture,) = probe.take()
    return attention_of(
        capture.probabilities,
        windows[number],
        tokenizer=reader.encoder.tokenizer,
        texts=(question.question, question.context),
        answer=_gold_answer(question),
        layers=probe.layers,
        heads=probe.heads,
    )


def _gold_answer(question: Question) -> Answer:
    """The gold answer in the form of the model's; none for a question without one."""
    start, end = gold_span(question)
    return Answer(
        question.context[start:end],
        start,
        end,
        probability=1.0,
        no_answer_probability=0.0,
        no_answer_score=0.0,
        window=0,
        windows=1,
        n_best=(),
    )


def term_measures(reader: Reader, question: Question) -> dict[str, Float]:
    """TERM_MEASURES of each head [L, H]; nothing for a model that has no such terms."""
    model = reader.encoder.model
    if not describe(model).architecture.positions:
        return {}
    windows = reader.windows([(question.question, question.context)])
    with TermSharesProbe(model) as probe:
        read_again(reader, windows, range(len(windows)))
    shares = probe.shares()
    pairs = np.where(np.isfinite(shares.sizes), shares.pairs, 0)
    sizes = (np.nan_to_num(shares.sizes).astype(np.float64) * pairs).sum(-1)
    with np.errstate(invalid="ignore"):
        sizes /= pairs.sum(-1)
    found = {f"{term}_size": sizes[:, :, place] for place, term in enumerate(TERMS)}
    return found | {
        f"{term}_moved": shares.moved[:, :, place].astype(np.float64) for place, term in enumerate(TERMS)
    }
