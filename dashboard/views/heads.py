"""Heads: what every head of a model does over a whole data set, and how training made it so.

Everything is read from files that `python -m probes atlas` and the training wrote; no model runs here. The
trap: numbers of two atlases can be compared only if they are of the same questions.
"""

from __future__ import annotations

import streamlit as st

from dashboard import atlas_compared, atlas_sections, elements, wording
from dashboard.data import heads as data
from probes.atlas_files import Atlas
from qa.experiment import Experiment

OVER_A_PART = {
    "Map": atlas_sections.draw_map,
    "List": atlas_sections.draw_list,
    "Scatter": atlas_sections.draw_scatter,
}
SECTIONS = {**OVER_A_PART, "Pruning": atlas_sections.draw_pruning}
TRAINING, COMPARED = "Training", "Compared"
SECTION, PART = "heads_section", "heads_part"
TITLES = (wording.ALL, wording.ANSWERABLE, wording.UNANSWERABLE)


def page() -> None:
    """The whole page."""
    st.title("Heads")
    left, right = st.columns(2)
    with left:
        experiment = elements.experiment_picker("Experiment")
    with right:
        other = elements.experiment_picker("Compared with", name="other", optional=True)
    if experiment is None:
        elements.no_experiments()
        return
    found = data.atlases(experiment)
    for problem in found.problems:
        elements.problem(problem)
    options = [*(SECTIONS if found.usable else ()), TRAINING, COMPARED]
    if not found.usable:
        _explain(experiment)
    atlas = _chosen(found.usable) if found.usable else None
    if st.session_state.get(SECTION) not in options:
        st.session_state[SECTION] = options[0]
    with st.container(horizontal=True, gap="medium"):
        section: str | None = st.segmented_control(
            "Show", options, key=SECTION, bind="query-params", required=True
        )
        shown = _part(experiment, atlas) if atlas is not None and section in OVER_A_PART else atlas
    if section == TRAINING:
        atlas_sections.draw_training(experiment)
    elif section == COMPARED:
        atlas_compared.draw_compared(experiment, other, atlas)
    elif shown is not None and section is not None:
        SECTIONS[section](experiment, shown)
    if shown is not None:
        atlas_sections.draw_downloads(experiment, shown)


def _explain(experiment: Experiment) -> None:
    """How to get an atlas."""
    st.info(
        "There is no atlas of this experiment's heads yet. The command below reads its validation questions "
        "and switches every head off for 100 of them; it can be interrupted and goes on where it was.",
        icon=":material/hub:",
    )
    elements.command(f"python -m probes atlas {experiment.name}")


def _chosen(usable: tuple[Atlas, ...]) -> Atlas:
    """The atlas that is looked at; the newest unless another is chosen."""
    number = 0
    if len(usable) > 1:
        number = st.selectbox(
            "Atlas",
            range(len(usable)),
            format_func=lambda place: _name(usable[place]),
            key="heads_atlas",
        )
    atlas = usable[number]
    about = atlas.about
    said = [
        f"{wording.plain(str(about['dataset']))}, {wording.counted(about['questions'], 'question')}",
        f"heads switched off ({about['how']}) for {about['knockouts']} of them",
        "intervals are 95 %, by paragraph",
    ]
    if agreement := atlas.agreement():
        said.append(
            f"gradients rank heads as knock-out does: rho {agreement.rho:.2f} "
            f"({agreement.low:.2f} to {agreement.high:.2f})"
        )
    st.caption(" · ".join(said))
    return atlas


def _part(experiment: Experiment, atlas: Atlas) -> Atlas:
    """The atlas over the part of its questions that is chosen, where there is a choice."""
    found = data.parts(experiment, atlas)
    if not found:
        return atlas
    parts = dict(zip(TITLES, (atlas, *found.values()), strict=True))
    counts = [part.count for part in found.values()]
    chosen: str = st.segmented_control(
        "Over",
        TITLES,
        default=wording.ALL,
        key=PART,
        bind="query-params",
        required=True,
        help=f"{counts[0]:,} of its questions have an answer, {counts[1]:,} have none. What a head is needed "
        "for may differ: to find an answer, or to see that there is none.",
    )
    return parts[chosen]


def _name(atlas: Atlas) -> str:
    about = atlas.about
    sizes = f"{about['questions']} questions, {about['knockouts']} with knock-outs ({about['how']})"
    return f"{about['dataset']}, {sizes}"


page()
