"""Sections of the page Attribution: the explanation itself, heads that agree, masking.

The trap: work that takes seconds must say what it is doing, and must not seem to happen again when everything
was kept, so each step is named before it begins and the box that names them closes with what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import elements, findings, state
from dashboard.charts import heads
from dashboard.charts.attribution import deletion_curves
from dashboard.data import attribution
from dashboard.data.answers import Asked, Model
from dashboard.data.attribution import SOURCES, Attended, Request
from dashboard.elements import Download
from probes.agreement import MEASURES, Agreement
from probes.attribution import METHODS, Attribution
from probes.contrast_files import LABELS
from probes.faithfulness import LABELS as DIRECTIONS
from probes.faithfulness import Band, Curve, Faithfulness
from probes.targets import Fixed
from qa.errors import UserError
from qa.exports import as_csv

LEVEL = findings.LEVEL
# What is masked by a ranking, by the curve that it gives.
MASKED = {
    "without": "first words masked (lower is better)",
    "only": "only the first words left (higher is better)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """One model's answer, explained.

    Attributes:
        model: whose.
        asked: what it answered.
        request: what was explained, and how.
        fixed: the target.
        attribution: of the words of the target's window.
        attended: attention of the same words.
        agreement: of the two.
    """

    model: Model
    asked: Asked
    request: Request
    fixed: Fixed
    attribution: Attribution
    attended: Attended
    agreement: Agreement

    @property
    def names(self) -> dict[str, str]:
        """Of the rankings that are masked by, in our words."""
        return {self.request.method: METHODS[self.request.method].label} | LABELS


def explained(model: Model, asked: Asked, request: Request) -> Explained | None:
    """Everything but the masking; None where it cannot be done, which is said."""
    with st.status("Explaining …", expanded=False) as status:
        try:
            status.update(label="Fixing what is explained …")
            _, fixed = attribution.fix(model, asked, request)
            st.write(
                f"Explained: {request.target.label}, in window {fixed.window + 1} of {asked.answer.windows}."
            )
            doing = f"Attributing it to the words by {METHODS[request.method].label}"
            status.update(label=f"{doing} …")
            found = attribution.attribution(
                model,
                asked,
                request,
                progress=lambda done, total: status.update(
                    label=f"{doing}: {done} of {total} windows read …"
                ),
            )
            st.write(f"{found.label[0].upper()}{found.label[1:]}.")
            status.update(label="Capturing the attention of every head, and its gradients …")
            attended = attribution.attended(model, asked, request)
            status.update(label="Comparing every head with the attribution, and with chance …")
            agreement = attribution.agreement(model, asked, request)
            st.write(
                f"Chance: the words' attributions exchanged {agreement.permutations:,} times; p-values "
                f"corrected for the number of heads ({agreement.correction})."
            )
        except UserError as error:
            status.update(label="This cannot be explained", state="error")
            elements.problem(error)
            return None
        status.update(label=_said(found), state="complete")
    return Explained(model, asked, request, fixed, found, attended, agreement)


def _said(found: Attribution) -> str:
    steps = f", {found.steps} steps" if found.steps else ""
    return (
        f"Score {found.score:.2f}, of the baseline {found.base_score:.2f}{steps}; convergence delta "
        f"{found.delta:+.2g} ({found.delta_share:.2%} of the difference)"
    )


def measure() -> str:
    """By which measure heads are compared with the attribution."""
    st.subheader("Does a head look where the gradients point?", anchor=False)
    return elements.choice("Measured by", MEASURES, "agreement")


def largest(found: Sequence[Explained], measure: str) -> float:
    """The largest size of a measure in any head, so that maps beside each other share a scale."""
    sizes = [np.abs(one.agreement.heads[measure].value).ravel() for one in found]
    known = np.concatenate(sizes)
    return float(known[np.isfinite(known)].max(initial=0.0)) or 1.0


def heads_that_agree(found: Explained, measure: str, *, top: float) -> None:
    """A map of all heads; a click opens one on the page Attention.

    Args:
        found: the explanation.
        measure: one of `probes.agreement.MEASURES`.
        top: of its values, what is drawn darkest.
    """
    measured = found.agreement.heads[measure]
    L, H = measured.value.shape
    key = f"attribution_heads_{found.model.name}"
    st.markdown(findings.about_heads(found.agreement))
    # `on_select="rerun"` and not a callback: only a page that runs can be left for another.
    event = st.altair_chart(
        heads.on_page(
            heads.head_map(
                measured.value.astype(np.float32),
                range(L),
                range(H),
                measure=MEASURES[measure],
                look=elements.look(),
                marked=measured.corrected < LEVEL,
                sign="•",
                low=-top if measure == "rank_correlation" else 0.0,
                top=top,
            )
        ),
        key=key,
        on_select="rerun",
        selection_mode=[heads.PICKED],
        alt=findings.about_heads(found.agreement),
    )
    st.caption(f"• agrees beyond chance, corrected p < {LEVEL}. Click a head to open it on Attention.")
    picked = event["selection"].get(heads.PICKED)
    if picked:
        state.go(
            "attention",
            experiment=found.model.name,
            layer=int(picked[0]["layer"]),
            head=int(picked[0]["head"]),
        )
    rows = [
        (
            layer,
            head,
            *(float(part[layer, head]) for part in (measured.value, measured.p, measured.corrected)),
        )
        for layer, head in np.ndindex(L, H)
    ]
    words = found.attribution.words()
    scores = {METHODS[found.request.method].label: found.attribution.word_scores}
    scores |= {SOURCES[name]: values for name, values in found.attended.summaries.items()}
    elements.downloads(
        [
            Download(
                "Heads (CSV)",
                f"{found.model.name}_agreement.csv",
                as_csv(["layer", "head", measure, "p", "corrected p"], rows),
                "text/csv",
            ),
            Download(
                "Words (CSV)",
                f"{found.model.name}_words.csv",
                as_csv(
                    ["word", "start", "end", *scores],
                    [
                        (word.text, word.start, word.end, *(float(values[n]) for values in scores.values()))
                        for n, word in enumerate(words)
                    ],
                ),
                "text/csv",
            ),
        ],
        key=f"{key}_files",
    )


def masked() -> str:
    """Which words are masked, and so which of MASKED the curves show."""
    st.subheader("What is left of the answer when words are masked?", anchor=False)
    return elements.choice("Show the answer with", MASKED, "masked")


def masking(found: Explained, part: str, *, wide: bool) -> None:
    """Deletion curves of all rankings in one chart, and their numbers; worked out when asked for.

    Args:
        found: the explanation.
        part: one of MASKED.
        wide: whether there is room for the numbers beside the chart.
    """
    curves = attribution.known_curves(found.model, found.asked, found.request)
    if curves is None:
        st.caption(
            "Each ranking's first words are masked in place, or all but these, and the answer's probability "
            "is read again, beside that under random rankings. This reads the context over a hundred times."
        )
        if not st.button("Mask words", key=f"mask_{found.model.name}", icon=":material/ink_eraser:"):
            return
        _mask(found)
    said = findings.about_masking(curves, found.names)
    st.markdown(said)
    places = st.columns(2, gap="large") if wide else [st.container(), st.container()]
    with places[0]:
        lines = {found.names[name]: getattr(curve, part) for name, curve in curves.curves.items()}
        st.altair_chart(
            deletion_curves(
                lines,
                getattr(curves.random, part),
                next(iter(curves.curves.values())).shares,
                title=MASKED[part],
                look=elements.look(),
            ),
            key=f"masking_{found.model.name}",
            alt=f"Probability of the answer, {MASKED[part]}. {said}",
        )
        st.caption("Grey: where nine of ten random rankings lie. The axis of words is a square root.")
    with places[1]:
        # Not a dataframe: what the measures are must be read at any width, and only a table wraps its heads.
        st.table(
            _numbers(curves, found.names),
            hide_index=True,
            alt="Comprehensiveness and sufficiency of each ranking and of random ones",
        )


def _mask(found: Explained) -> NoReturn:
    """Work the curves out; ends the page's run."""
    bar = st.progress(0.0, "Masking the words of each ranking …")

    def at(done: int, total: int) -> None:
        bar.progress(done / total, f"Masking the words of each ranking: {done} of {total} windows read …")

    attribution.curves(found.model, found.asked, found.request, progress=at)
    st.rerun()  # the page as it is from now on, without the button


def _numbers(curves: Faithfulness, names: dict[str, str]) -> pd.DataFrame:
    ranked = sorted(curves.curves.items(), key=lambda one: -one[1].comprehensiveness)
    rows: list[tuple[str, Curve | Band]] = [(names[name], curve) for name, curve in ranked]
    rows.append(("random rankings, mean", curves.random))
    return pd.DataFrame(
        {
            "ranking": [name for name, _ in rows],
            DIRECTIONS["comprehensiveness"]: [f"{curve.comprehensiveness:.3f}" for _, curve in rows],
            DIRECTIONS["sufficiency"]: [f"{curve.sufficiency:.3f}" for _, curve in rows],
        }
    )
