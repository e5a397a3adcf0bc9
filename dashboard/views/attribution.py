"""Attribution: which words the answer rests on by gradients, beside where attention looks; and who is right.

What is explained is fixed first. Gradients and attention take seconds and come by themselves; masking reads
the context a hundred times, so it waits for a button. All is kept, and comes back at once. The trap: who asks
why this answer, and sees the answer's own words light up, has learnt little; ask why it and not another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

from dashboard import asking, coloured, contrasted, elements, explaining, state, wording
from dashboard.data import attribution
from dashboard.data.answers import Asked, Model
from dashboard.data.attribution import SOURCES, Request
from dashboard.explaining import Explained
from dashboard.marking import inline
from probes.attribution import METHODS
from probes.embedded import BASELINES
from probes.targets import KINDS, NAMES, PARTS, Target
from qa.errors import UserError
from qa.spans import Float

NOTHING = "nothing"
EMBEDDINGS = "embedding output"


def page() -> None:
    """The whole page."""
    st.title("Attribution")
    experiments = asking.experiments()
    if not experiments:
        elements.no_experiments()
        return
    question, models, asked = asking.opened(experiments)
    request = _request(models, question) if question is not None and asked else None
    if request is not None:
        _explain(models, asked, request)
    contrasted.over_data_sets(experiments)


def _request(models: Sequence[Model], question: asking.Asking) -> Request | None:
    """What is to be explained, as chosen in boxes; None if that makes no sense, which is said."""
    gold = attribution.gold_of(None if question.known is None else question.known.question)
    kinds = [kind for kind in KINDS if kind != "gold" or gold is not None]
    boxes = st.columns([3, 3, 3, 4], vertical_alignment="bottom")
    with boxes[0]:
        kind = st.selectbox(
            "Explain the", kinds, format_func=NAMES.__getitem__, key="target", bind="query-params"
        )
    with boxes[1]:
        against = st.selectbox(
            "rather than",
            [NOTHING, *kinds],
            format_func=lambda name: NAMES.get(name, "(its score alone)"),
            key="against",
            bind="query-params",
        )
    with boxes[2]:
        method = st.selectbox(
            "by", [*METHODS], format_func=lambda name: METHODS[name].label, key="method", bind="query-params"
        )
    with boxes[3], st.popover("Settings", icon=":material/tune:", width="stretch"):
        part = st.selectbox(
            "Score", [*PARTS][::-1], format_func=PARTS.__getitem__, key="score", bind="query-params"
        )
        baseline = st.selectbox(
            "Baseline", [*BASELINES], format_func=BASELINES.__getitem__, key="baseline", bind="query-params"
        )
        layers = range(min(model.layers for model in models))
        place = st.selectbox(
            "Attribute to the",
            [EMBEDDINGS, *(f"input of layer {layer}" for layer in layers)],
            key="place",
            bind="query-params",
        )
    layer = None if place == EMBEDDINGS else int(place.rpartition(" ")[2])
    try:
        target = Target(kind, part, None if against == NOTHING else against)
    except UserError as error:
        elements.problem(error)
        return None
    return Request(target, method, baseline, layer, gold)


def _explain(models: Sequence[Model], asked: Sequence[Asked], request: Request) -> None:
    elements.text(asked[0].question)
    columns = st.columns(len(models), gap="large")
    found = []
    for column, model, one in zip(columns, models, asked, strict=True):
        with column:
            st.caption(
                f"{inline(model.name)} answers **{inline(one.answer.text) or 'no answer'}** "
                f"({wording.share(one.answer.probability)})"
            )
            found.append(explaining.explained(model, one, request))
    whole = [one for one in found if one is not None]
    if not whole:
        return
    source, layer, head = _source(whole)
    _beside(found, lambda one: _texts(one, source, layer, head, alone=len(models) == 1))
    measure = explaining.measure()
    top = explaining.largest(whole, measure)
    _beside(found, lambda one: explaining.heads_that_agree(one, measure, top=top))
    part = explaining.masked()
    _beside(found, lambda one: explaining.masking(one, part, wide=len(models) == 1))


def _beside(found: Sequence[Explained | None], draw: Callable[[Explained], None]) -> None:
    """A column for each model; empty where its answer could not be explained."""
    for column, one in zip(st.columns(len(found), gap="large"), found, strict=True):
        if one is not None:
            with column:
                draw(one)


def _source(found: Sequence[Explained]) -> tuple[str, int, int]:
    """Which attention to put beside the attribution, with the head where it is one."""
    layers = min(one.model.layers for one in found)
    heads = min(one.model.heads for one in found)
    boxes = st.columns([5, 2, 2, 3])
    with boxes[0]:
        source = st.selectbox(
            "Attention beside it",
            [*SOURCES],
            format_func=SOURCES.__getitem__,
            key="beside",
            bind="query-params",
        )
    if source != "head":
        return source, 0, 0
    layer, head = state.number("layer", below=layers), state.number("head", below=heads)
    if layer is None or head is None:
        values = found[0].agreement.heads["rank_correlation"].value[:layers, :heads]
        best = np.unravel_index(int(np.argmax(np.nan_to_num(values, nan=-2.0))), values.shape)
        layer, head = (int(best[0]) if layer is None else layer), (int(best[1]) if head is None else head)
        state.put(layer=layer, head=head)
    for box, name, value, count in zip(
        boxes[1:3], ("layer", "head"), (layer, head), (layers, heads), strict=True
    ):
        key = f"attribution_{name}_box"
        st.session_state[key] = value
        box.selectbox(name.capitalize(), range(count), key=key, on_change=state.bind, args=(name, key))
    return source, layer, head


def _texts(found: Explained, source: str, layer: int, head: int, *, alone: bool) -> None:
    """The text by attribution next to the text by attention."""
    scores = found.attended.of(source, layer, head)
    name = f"layer {layer}, head {head}" if source == "head" else SOURCES[source]
    is_signed = source == "attention_x_gradient"
    places = st.columns(2, gap="large") if alone else [st.container(), st.container()]
    with places[0]:
        st.markdown(f"**By {METHODS[found.attribution.method].label}**")
        _text(found, found.attribution.word_scores, unit="logits", signed=found.attribution.signed)
    with places[1]:
        st.markdown(f"**By {name}, from {'[CLS]' if found.fixed.span is None else 'the answer'}**")
        _text(found, scores, unit="logits" if is_signed else "of what it attends to", signed=is_signed)


def _text(found: Explained, scores: Float, *, unit: str, signed: bool) -> None:
    span = found.fixed.span
    question, context = coloured.both_texts(
        found.asked.question,
        found.asked.context,
        found.attribution.words(),
        scores,
        answer=(0, 0) if span is None else (span.start, span.end),
        unit=unit,
        signed=signed,
    )
    st.html(question)
    with st.container(border=True, height=320 if len(found.asked.context) > 1200 else "content"):
        st.html(context)
    st.caption(coloured.strongest(found.attribution.words(), scores, count=5, signed=signed))


page()
