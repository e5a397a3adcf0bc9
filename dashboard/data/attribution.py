"""What explains an answer: attribution, attention by word, agreement and curves, kept by what was asked.

All of it is of one target, fixed once from the model's own reading. The trap: maps of all heads in float32
take tens of megabytes, so what is kept of them is one number for each word.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.data.answers import Asked, Model, fingerprint_of, store
from probes import targets
from probes.agreement import Agreement, agree, from_tokens, summarise
from probes.analyses import find_analyses
from probes.attribution import Attribution, attribute
from probes.contrast_files import SUMMARY, Summary, read_summaries
from probes.faithfulness import Faithfulness, faithfulness
from probes.head_gradients import attention_gradients, captured
from probes.targets import Fixed, Target
from probes.word_scores import by_word
from qa.errors import UserError
from qa.experiment import Experiment
from qa.spans import Float
from qa.squad import Question
from qa.windows import Progress

RANDOM = 10  # random rankings on the page
SOURCES = {
    "attention": "raw attention, mean of all heads",
    "rollout": "attention rollout",
    "value_norm": "value-norm attention",
    "attention_x_gradient": "attention × gradient",
    "head": "one head",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be explained, and how.

    Attributes:
        target: what is explained.
        method: one of `probes.attribution.METHODS`.
        baseline: one of `probes.embedded.BASELINES`.
        layer: whose input is attributed to; None: the embedding output.
        gold: first character and end of the gold answer; None where it is not known.
    """

    target: Target
    method: str
    baseline: str
    layer: int | None
    gold: tuple[int, int] | None


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """What the W words get from the target's tokens.

    Attributes:
        heads: by layer and head [L, H, W].
        summaries: by SOURCES but for "head" [W].
    """

    heads: Float
    summaries: Mapping[str, Float]

    def of(self, source: str, layer: int, head: int) -> Float:
        """One of SOURCES [W]."""
        scores: Float = self.heads[layer, head] if source == "head" else self.summaries[source]
        return scores


def gold_of(question: Question | None) -> tuple[int, int] | None:
    """Where the first placed gold answer is."""
    if question is None:
        return None
    placed = (
        (start, start + len(text))
        for text, start in zip(question.answers, question.starts, strict=True)
        if start >= 0 and text.strip()
    )
    return next(placed, None)


def fix(model: Model, asked: Asked, request: Request) -> tuple[targets.Asked, Fixed]:
    """The question for `probes`, and the target at its positions.

    Raises:
        UserError: there is no such span, or no answer at all.
    """
    if not asked.answer.n_best:
        raise UserError("context: it has no token that could be an answer; give a text with words in it")
    found = targets.Asked(model.reader, asked.question, asked.context, asked.read, request.gold)
    return found, found.fix(request.target)


def attribution(
    model: Model, asked: Asked, request: Request, *, progress: Progress | None = None
) -> Attribution:
    """The attribution that was asked for.

    Args:
        model: the loaded model.
        asked: the question and its answer.
        request: what to explain, and how.
        progress: see `probes.attribution.attribute`; not called where the attribution is known already.

    Raises:
        UserError: the target cannot be fixed.
    """
    question, fixed = fix(model, asked, request)
    return store().get(
        _key("attribution", model, asked, request),
        model.lock,
        lambda: attribute(
            question,
            fixed,
            method=request.method,
            baseline=request.baseline,
            layer=request.layer,
            progress=progress,
        ),
    )


def attended(model: Model, asked: Asked, request: Request) -> Attended:
    """What the words of the target's window get from its tokens, by every head and all together.

    Raises:
        UserError: the target cannot be fixed.
    """
    question, fixed = fix(model, asked, request)

    def read() -> Attended:
        attention = captured(question, fixed.window)
        mean, rolled, weighted = summarise(attention, fixed)
        gradients = attention_gradients(question, fixed, attention=attention).probabilities
        summed = gradients.sum((0, 1, 2), dtype=np.float64)
        return Attended(
            from_tokens(attention, fixed),
            {
                "attention": mean,
                "rollout": rolled,
                "value_norm": weighted,
                "attention_x_gradient": by_word(summed, attention),
            },
        )

    return store().get(_key("attended", model, asked, (request.target, request.gold)), model.lock, read)


def agreement(model: Model, asked: Asked, request: Request) -> Agreement:
    """Agreement of every head and of summaries with the attribution.

    Raises:
        UserError: the target cannot be fixed.
    """
    scores = attribution(model, asked, request).word_scores
    question, fixed = fix(model, asked, request)
    return store().get(
        _key("agreement", model, asked, request), model.lock, lambda: agree(question, fixed, scores)
    )


def known_curves(model: Model, asked: Asked, request: Request) -> Faithfulness | None:
    """The curves, if they were worked out before."""
    found: Faithfulness | None = store().known(_key("curves", model, asked, request))
    return found


def curves(model: Model, asked: Asked, request: Request, *, progress: Progress) -> Faithfulness:
    """Curves of the attribution and of all attention but single heads, with random rankings beside them.

    Raises:
        UserError: the target cannot be fixed.
    """
    rankings = {
        request.method: attribution(model, asked, request).word_scores,
        **attended(model, asked, request).summaries,
    }
    question, fixed = fix(model, asked, request)
    return store().get(
        _key("curves", model, asked, request),
        model.lock,
        lambda: faithfulness(question, fixed, rankings, random=RANDOM, progress=progress),
    )


def summaries(experiment: Experiment) -> tuple[list[Summary], list[str]]:
    """What `python -m probes contrast` found of this model, newest first, and what cannot be used.

    Raises:
        UserError: the experiment has no model.
    """
    states = tuple((file.name, file.stat().st_mtime_ns) for file in find_analyses(experiment, SUMMARY))
    return _summaries(str(experiment.path.resolve()), fingerprint_of(experiment), states)


@st.cache_resource(max_entries=32, show_spinner=False)
def _summaries(
    path: str, fingerprint: str, states: tuple[tuple[str, int], ...]
) -> tuple[list[Summary], list[str]]:
    return read_summaries(Experiment(Path(path)))


def _key(what: str, model: Model, asked: Asked, request: Hashable) -> Hashable:
    return what, model.fingerprint, asked.question, asked.context, request
