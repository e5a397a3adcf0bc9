"""Which ranking of words is true to the model? Attention and gradients masked against each other.

For each question the predicted answer is fixed, the words are ranked in five ways, each of which needs one
reading of the model but for integrated gradients, and each ranking's words are masked in place. All methods
stand beside random rankings of the same words, so a number means what it exceeds these by. The trap:
questions of one paragraph are alike, so intervals resample paragraphs, and differences are taken question by
question. And the answer's own words are words like others: whoever ranks them first takes the answer away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from probes.agreement import summarise
from probes.analyses import FOLDER, Parts, write_analysis
from probes.attribution import Attribution, attribute
from probes.contrast_files import (
    LABELS,
    MEASURES,
    RANDOM,
    RANDOM_RANKINGS,
    ROWS,
    SIGNS,
    SUMMARY,
    TOLERANCE,
    Summary,
    header_of,
    read_summaries,
)
from probes.faithfulness import faithfulness
from probes.head_gradients import attention_gradients, captured
from probes.targets import Asked, Fixed, Target
from probes.word_scores import by_word
from qa.errors import UserError
from qa.experiment import Experiment
from qa.intervals import paired_interval, paragraph_interval
from qa.reader import Reader
from qa.spans import Float
from qa.squad import Question, QuestionSet
from qa.windows import Progress

QUESTIONS_OF_PART = 5


def contrast(experiment: Experiment, questions: QuestionSet, *, progress: Progress | None = None) -> Summary:
    """Write both tables, going on from where an earlier call was interrupted.

    Args:
        experiment: a finished one, with a model.
        questions: any; a question without a possible answer, or whose target cannot be fixed, is left out.
        progress: called with (questions done, questions in all).

    Raises:
        UserError: the experiment has no model, another process makes the same table, no question could be
            used, or the folder cannot be written.
    """
    header = header_of(ROWS, experiment, questions)
    parts_of = [
        questions.questions[first : first + QUESTIONS_OF_PART]
        for first in range(0, len(questions.questions), QUESTIONS_OF_PART)
    ]
    if (made := _made_before(experiment, questions)) is not None:
        return made
    with Parts.open(experiment, header) as parts:
        missing = parts.missing(len(parts_of))
        if missing:
            reader = Reader.of(experiment)
        for number in missing:
            rows: list[dict[str, Any]] = [
                row for question in parts_of[number] for row in rows_of(reader, question)
            ]
            parts.add(number, pa.Table.from_pylist(rows, schema=ROWS.columns))
            if progress is not None:
                left = sum(len(parts_of[later]) for later in missing if later > number)
                progress(len(questions.questions) - left, len(questions.questions))
        table = pa.concat_tables([parts.read(number) for number in range(len(parts_of))])
        summary = summarise_rows(table)
        path = write_analysis(experiment, header_of(SUMMARY, experiment, questions), summary)
        return Summary(path, parts.finish(len(parts_of)), header.about, summary.to_pylist())


def _made_before(experiment: Experiment, questions: QuestionSet) -> Summary | None:
    """What an earlier call has made of the very same; None if it did not come to its end."""
    path = experiment.path / FOLDER / header_of(SUMMARY, experiment, questions).file_name
    return next(
        (one for one in read_summaries(experiment)[0] if one.path == path and one.rows_path.exists()), None
    )


def rows_of(reader: Reader, question: Question) -> Iterator[dict[str, Any]]:
    """A row a method, random rankings included; none for a question without anything to rank."""
    try:
        asked = Asked.of(reader, question.question, question.context)
        fixed = asked.fix(Target())
    except UserError:
        return
    rankings, attribution = rank(asked, fixed)
    found = faithfulness(asked, fixed, rankings, random=RANDOM_RANKINGS)
    for method in LABELS:
        curve = found.random if method == RANDOM else found.curves[method]
        is_integrated = method == "integrated_gradients"
        yield {
            "id": question.id,
            "paragraph": question.paragraph,
            "method": method,
            "probability": found.full,
            "words": len(found.words),
            "comprehensiveness": curve.comprehensiveness,
            "sufficiency": curve.sufficiency,
            "steps": attribution.steps if is_integrated else None,
            "delta_share": attribution.delta_share if is_integrated else None,
        }


def rank(asked: Asked, fixed: Fixed) -> tuple[dict[str, Float], Attribution]:
    """Scores of the W words by each of METHODS, higher is first [W]; and the `Attribution` among them.

    Attention is that from the target's tokens. Attention × gradient is summed over all layers, heads and
    tokens that attend: its gradient says already which of them the target needs.
    """
    attention = captured(asked, fixed.window)
    mean, rolled, weighted = summarise(attention, fixed)
    gradients = attention_gradients(asked, fixed, attention=attention)
    attribution = attribute(asked, fixed, tolerance=TOLERANCE)
    return {
        "attention": mean,
        "rollout": rolled,
        "value_norm": weighted,
        "attention_x_gradient": by_word(gradients.probabilities.sum((0, 1, 2), dtype=np.float64), attention),
        "integrated_gradients": attribution.word_scores,
    }, attribution


def summarise_rows(rows: pa.Table) -> pa.Table:
    """The mean of each method and measure with 95 % intervals: alone, less random rankings, behind the best.

    The best method of a measure is 0 behind itself; random rankings are not among those compared with it.

    Raises:
        UserError: there is no row.
    """
    if not rows.num_rows:
        raise UserError("dataset: no question in it has an answer that could be explained; give another one")
    frame = rows.to_pandas()
    chance = frame[frame["method"] == RANDOM]
    best = {measure: _best(frame, measure) for measure in MEASURES}
    found = []
    for method, measure in itertools.product(LABELS, MEASURES):
        own = frame[frame["method"] == method]
        paragraphs = own["paragraph"].tolist()
        values, by_chance = own[measure].to_numpy(), chance[measure].to_numpy()
        low, high = paragraph_interval(values, paragraphs) or (None, None)
        row = {"method": method, "measure": measure, "mean": float(values.mean()), "low": low, "high": high}
        row |= _difference("over_random", by_chance, values, paragraphs)
        if method != RANDOM:
            first, second = (values, best[measure]) if SIGNS[measure] > 0 else (best[measure], values)
            row |= _difference("behind_best", first, second, paragraphs)
        found.append(row | {"count": len(own)})
    return pa.Table.from_pylist(found, schema=SUMMARY.columns)


def _best(frame: pd.DataFrame, measure: str) -> Float:
    """Values of the questions by the method whose mean is the best [N]."""
    means = frame[frame["method"] != RANDOM].groupby("method", sort=False)[measure].mean() * SIGNS[measure]
    values: Float = frame[frame["method"] == means.idxmax()][measure].to_numpy()
    return values


def _difference(name: str, first: Float, second: Float, paragraphs: list[str]) -> dict[str, float | None]:
    """The mean of `second` less `first`, with its interval, under this name."""
    low, high = paired_interval(first, second, paragraphs=paragraphs) or (None, None)
    return {name: float((second - first).mean()), f"{name}_low": low, f"{name}_high": high}
