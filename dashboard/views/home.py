"""Home: every experiment, how far it is and how it scored."""

from __future__ import annotations

import streamlit as st

from dashboard import elements, state
from qa.experiment import list_experiments

st.title("Experiments")
experiments = list_experiments(state.root())
if not experiments:
    elements.no_experiments()
for experiment in experiments:
    st.text(experiment.name)
