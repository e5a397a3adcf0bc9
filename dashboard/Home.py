"""The dashboard: `streamlit run dashboard/Home.py` (see README.md). Routes to the pages in `views/`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import elements, state
from qa.errors import UserError

ICON = Path(__file__).with_name("icon.png")

# The icon is a file of ours: a Material symbol would be fetched from another host for the browser's tab.
st.set_page_config(page_title="QA attention", page_icon=str(ICON), layout="wide")

scripts = {
    name: st.Page(
        f"views/{name}.py",
        title=page.title,
        icon=page.icon,
        url_path=None if name == "home" else name,
        default=name == "home",
    )
    for name, page in state.PAGES.items()
}
chosen = st.navigation([*scripts.values()], position="top")
state.arrive(chosen.url_path or "home")
try:
    chosen.run()
except UserError as error:
    elements.problem(error)
