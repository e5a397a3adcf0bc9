"""Learning curves of the chosen experiments over each other."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import wording
from dashboard.charts.learning import POINTS, learning_curves
from dashboard.data import comparison
from dashboard.data.comparison import Candidate
from qa.curves import By

METRICS = {
    "f1": "F1 (%)",
    "exact_match": "exact match (%)",
    "eval_loss": "validation loss (nats)",
    "loss": "training loss (nats)",
    "learning_rate": "learning rate",
}
PLACES: dict[By, str] = {"step": "step", "epoch": "epoch", "time": "training time (min)"}


def draw(candidates: Sequence[Candidate]) -> None:
    """The choice of metric and axis, and the curves."""
    with st.container(horizontal=True):
        metric = st.segmented_control(
            "Curve",
            [*METRICS],
            default="f1",
            format_func=lambda one: METRICS[one].partition(" (")[0],
            required=True,
            key="compare_curve",
            persist_state="session",
        )
        by = st.segmented_control(
            "By",
            [*PLACES],
            default="step",
            format_func=PLACES.__getitem__,
            required=True,
            key="compare_by",
            persist_state="session",
        )
    curves = comparison.curves(candidates, metric or "f1", by=by or "step")
    without = [one.name for one in candidates if one.name not in curves]
    if curves:
        title = METRICS[metric or "f1"]
        ends = "; ".join(f"{name} ends at {curve[-1][1]:.4g}" for name, curve in curves.items())
        st.altair_chart(
            learning_curves(curves, [one.name for one in candidates], x=PLACES[by or "step"], y=title),
            width="stretch",
            key="compare_learning",
            alt=f"{title} by {PLACES[by or 'step']}: {ends}",
        )
    notes = [
        f"Nothing logged for {', '.join(map(wording.plain, without))}: imported, or not yet begun."
        if without
        else "",
        "Training time counts neither evaluations nor saving: it is windows over the speed logged with them."
        if by == "time"
        else "",
        f"Curves are thinned to {POINTS} points."
        if any(len(curve) > POINTS for curve in curves.values())
        else "",
        "Scores while training are on each run's own validation data."
        if curves and metric in ("f1", "exact_match")
        else "",
    ]
    st.caption(" ".join(note for note in notes if note))
