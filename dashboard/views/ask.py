"""Ask: a question and its answer, what else it could have been, and what an edited word changes."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard import asking, elements, marking, state, wording
from dashboard.charts.curves import score_curves
from dashboard.data import answers
from dashboard.data.answers import Asked, Model
from probes.summaries import attended_words
from probes.text_scores import TextScores
from qa.metrics import score_answer
from qa.printing import cut

NEXT = 5  # attended words after the main one
MOST_TOKENS = 2000  # of a curve
MOST_CHARACTERS = 120  # of an edit that is repeated
NOW, BEFORE = "ask_now", "ask_before"


@dataclass(frozen=True, slots=True)
class Found:
    """What was asked and answered last, to compare with.

    Attributes:
        question: as asked.
        context: likewise.
        answers: text and probability by experiment.
    """

    question: str
    context: str
    answers: dict[str, tuple[str, float]]


def page() -> None:
    """The whole page."""
    st.title("Ask")
    experiments = asking.experiments()
    if not experiments:
        elements.no_experiments()
        return
    experiment, models = experiments[0], asking.models(experiments)
    question = asking.current(experiment)
    asking.editor(experiment, question)
    if question is None:
        st.info("Type or paste a question and a context, and press Ask.", icon=":material/chat:")
    elif models:
        _answers(models, question)


def _answers(models: list[Model], question: asking.Asking) -> None:
    with st.spinner("Reading …"):
        found = [answers.ask(model, question.question, question.context) for model in models]
    _remember(models, found)
    _edit(question)
    if len(models) == 1:
        _alone(models[0], found[0], question)
    else:
        for column, model, asked in zip(st.columns(2, gap="large"), models, found, strict=True):
            with column:
                _beside(model, asked, question)


def _alone(model: Model, asked: Asked, question: asking.Asking) -> None:
    left, right = st.columns([6, 5], gap="large")
    with left:
        _answer(model, asked, question)
        _context(asked)
    with right:
        _attended(model, asked)
        _n_best(model, asked)
    _curves(model, asked)


def _beside(model: Model, asked: Asked, question: asking.Asking) -> None:
    _answer(model, asked, question)
    _attended(model, asked)
    _context(asked)
    _n_best(model, asked)
    _curves(model, asked)


def _answer(model: Model, asked: Asked, question: asking.Asking) -> None:
    answer = asked.answer
    st.caption(f"{marking.inline(model.name)} answers")
    st.subheader(marking.inline(answer.text) or ":gray[no answer]", anchor=False)
    before = _before(model)
    change = answer.probability - before[1] if before is not None and before[0] == answer.text else None
    with st.container(horizontal=True, gap="large"):
        st.metric(
            "Probability",
            wording.share(answer.probability),
            None if change is None else f"{100 * change:+.1f} points",
            width="content",
            help="Among all spans of all windows together with “no answer”.",
        )
        best = next(iter(answer.n_best), None)
        if answer.text or best is None:
            name, other, compared = "No answer", answer.no_answer_probability, ""
        else:
            name, other, compared = "Best span", best.probability, f" It is “{marking.inline(best.text)}”."
        st.metric(name, wording.share(other), width="content", help=f"{_scores(asked)}{compared}")
        if question.known is not None:
            st.metric("F1", _f1(answer.text, question), width="content", help="Against the gold answers.")
    if before is not None and before[0] != answer.text:
        now = next((span.probability for span in answer.n_best if span.text == before[0]), None)
        said = "" if now is None else f", now {wording.share(now)}"
        st.caption(f"Before the edit: {_said(before[0])} ({wording.share(before[1])}{said})")
    st.caption(_how(model, asked))
    gold = asking.gold(question)
    if gold is not None:
        st.caption(f"Gold: {gold}")


def _said(text: str) -> str:
    return marking.inline(text) or "no answer"


def _scores(asked: Asked) -> str:
    """The scores behind the two probabilities."""
    best = next(iter(asked.answer.n_best), None)
    said = f"Score of “no answer”: {asked.answer.no_answer_score:.2f}, the lowest of [CLS] in any window."
    return said if best is None else f"{said} Score of the best span: {best.score:.2f}."


def _f1(text: str, question: asking.Asking) -> str:
    assert question.known is not None
    _, f1 = score_answer(text, question.known.question.answers, version="2.0")
    return f"{f1:.0%}"


def _how(model: Model, asked: Asked) -> str:
    """How the context was read, and when the reader refuses."""
    answer, reading = asked.answer, model.reader.reading
    threshold = model.reader.threshold
    said = [
        "It never refuses."
        if threshold is None
        else f"It refuses where “no answer” is above {wording.share(threshold)}."
    ]
    if answer.windows > 1:
        said.append(
            f"The context was read in {answer.windows} windows of at most {reading.max_length} tokens that "
            f"overlap by {reading.stride}; this is from window {answer.window + 1}."
        )
    if asked.read.windows.shortened:
        said.append(f"The question was cut at {reading.max_question_length} tokens.")
    return " ".join(said)


def _context(asked: Asked) -> None:
    with st.container(border=True, height=320 if len(asked.context) > 1200 else "content"):
        st.html(marking.with_answer(asked.context, asked.answer.start, asked.answer.end))


def _attended(model: Model, asked: Asked) -> None:
    st.markdown("**The question, as the answer looks at it**")
    words = attended_words(answers.look(model, asked, asked.answer.window))
    if not words:
        st.caption("There is no answer that could look at it.")
        return
    st.html(marking.shaded(asked.question, [(word.start, word.end, word.weight) for word in words]))
    first, *rest = (f"{marking.inline(word.text)} ({word.weight:.0%})" for word in words[: 1 + NEXT])
    st.caption(f"Main attended token: **{first}**. " + (f"Next: {', '.join(rest)}." if rest else ""))
    state.link("attention", "See the attention of every head", experiment=model.name)


def _n_best(model: Model, asked: Asked) -> None:
    st.markdown("**What else it could have been**")
    rows = [*asked.answer.n_best]
    table = pd.DataFrame(
        {
            "answer": [marking.in_cell(span.text) for span in rows],
            "probability": [span.probability for span in rows],
            "score": [span.score for span in rows],
            "characters": [f"{span.start} to {span.end}" for span in rows],
            "window": [span.window + 1 for span in rows],
        }
    )
    st.dataframe(
        table if asked.answer.windows > 1 else table.drop(columns="window"),
        hide_index=True,
        height=min(36 * (len(rows) + 1) + 2, 290),
        column_config={
            "answer": st.column_config.TextColumn(width="medium"),
            "probability": st.column_config.ProgressColumn(
                format="percent", min_value=0, max_value=1, width="small"
            ),
            "score": st.column_config.NumberColumn(
                format="%.2f", width="small", help="Start score + end score, in logits."
            ),
            "characters": st.column_config.TextColumn(width="small"),
        },
        key=f"ask_n_best_{model.name}",
        alt=f"The {len(rows)} best answers of {model.name} with probability, score and place",
    )


def _curves(model: Model, asked: Asked) -> None:
    st.markdown("**Where an answer could start and end**")
    scores = TextScores.of(asked.read)
    best = next(iter(asked.answer.n_best), None)
    span = (0, 0) if best is None else scores.span(best.start, best.end)
    part, before = scores.near(span[0], MOST_TOKENS)
    words = [asked.context[start:end] for start, end in part.chars.tolist()]
    st.altair_chart(
        score_curves(
            words,
            part.start,
            part.end,
            span=(span[0] - before, span[1] - before),
            first=before,
            look=elements.look(),
        ),
        key=f"ask_curves_{model.name}",
        alt=_curves_in_words(asked),
    )
    if len(words) < len(scores.start):
        st.caption(f"{len(words)} of {len(scores.start)} tokens, those around the best span.")


def _curves_in_words(asked: Asked) -> str:
    best = next(iter(asked.answer.n_best), None)
    if best is None:
        return "Start and end scores of the tokens; none of them could be an answer"
    return f"Start and end scores of the tokens; the best span is “{cut(best.text, 80)}” at {best.start}"


def _remember(models: list[Model], found: list[Asked]) -> None:
    """Keep this answer, and the one to another question before it."""
    asked = found[0]
    now = Found(
        asked.question,
        asked.context,
        {
            model.name: (one.answer.text, one.answer.probability)
            for model, one in zip(models, found, strict=True)
        },
    )
    last: Found | None = st.session_state.get(NOW)
    if last is not None and (last.question, last.context) != (now.question, now.context):
        is_edit = last.question == now.question or last.context == now.context
        st.session_state[BEFORE] = last if is_edit else None
    st.session_state[NOW] = now


def _before(model: Model) -> tuple[str, float] | None:
    """What this experiment answered before the edit."""
    last: Found | None = st.session_state.get(BEFORE)
    return None if last is None else last.answers.get(model.name)


def _edit(question: asking.Asking) -> None:
    """What was edited since the last answer."""
    last: Found | None = st.session_state.get(BEFORE)
    if last is None:
        return
    where = "question" if last.context == question.context else "context"
    old, new = getattr(last, where), getattr(question, where)
    edits = marking.changes(old.split(), new.split())
    said = "; ".join(f"{_part(gone)} → {_part(come)}" for gone, come in edits) or "blanks only"
    st.info(f"Edited in the {where}: {said}", icon=":material/edit:")


def _part(words: str) -> str:
    return f"**{marking.inline(words, MOST_CHARACTERS)}**" if words else "(nothing)"


page()
