"""What holds over a data set: what `python -m probes contrast` found of experiments, beside each other.

The trap: the two measures of faithfulness point in opposite directions, so no label names one without saying
which direction is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import elements
from dashboard.charts.attribution import contrast_chart
from dashboard.data import attribution
from dashboard.marking import inline
from probes.contrast_files import BETTER, LABELS, MEASURES, RANDOM, Summary, finding
from qa.errors import UserError
from qa.experiment import Experiment

# Each measure with its better direction.
LABELLED = {measure: f"{measure} ({BETTER[measure]})" for measure in MEASURES}


def over_data_sets(experiments: Sequence[Experiment]) -> None:
    """What `python -m probes contrast` found of experiments beside each other, or how to have it found."""
    found = {}
    for experiment in experiments:
        try:
            found[experiment.name] = attribution.summaries(experiment)
        except UserError:  # it has no model, which has been said
            continue
    if not found:
        return
    st.subheader("Which of them is true to the model over a data set?", anchor=False)
    is_found = any(summaries for summaries, _ in found.values())
    measure = elements.choice("Measured by", LABELLED, "contrast") if is_found else ""
    for place, (name, (summaries, problems)) in zip(
        st.columns(len(found), gap="large"), found.items(), strict=True
    ):
        with place:
            for problem in problems:
                st.caption(f":material/warning: {inline(problem)}")
            if summaries:
                _summary(summaries[0], name, measure)
            else:
                st.caption(f"What holds over many questions for {inline(name)}, this tells:")
                elements.command(f"python -m probes contrast {name} --limit 200")


def _summary(summary: Summary, name: str, measure: str) -> None:
    said = finding(summary.rows)
    st.markdown(f"{inline(name)}: {said}")
    rows = [
        {
            "method": LABELS[row["method"]],
            "mean": row["mean"],
            "low": row["low"],
            "high": row["high"],
            "is_random": row["method"] == RANDOM,
        }
        for row in summary.rows
        if row["measure"] == measure
    ]
    st.altair_chart(
        contrast_chart(rows, title=LABELLED[measure], look=elements.look()),
        key=f"contrast_{name}",
        alt=f"{LABELLED[measure]} of each method with 95 % intervals. {said}",
    )
    count, data = summary.rows[0]["count"], inline(str(summary.about.get("dataset", "")))
    st.caption(
        f"{count} questions of {data}; 95 % intervals resample paragraphs. Methods are told apart question "
        "by question, so they can differ clearly where intervals overlap. The dashed line is what random "
        "rankings of the same words reach."
    )
