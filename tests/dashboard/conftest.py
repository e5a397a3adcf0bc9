"""What tests of the pages share: a page run without a browser, on a folder of experiments."""

from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

HOME = Path(__file__).resolve().parents[2] / "dashboard" / "Home.py"


@pytest.fixture
def open_page(monkeypatch) -> Callable[..., AppTest]:
    """Opens a page as a pasted link would: `open_page("ask", root, experiment="pocket")`.

    The page has run; it may hold an exception, so look at `at.exception`.
    """
    # Fewer processes, no file of another test: everything cached belongs to the folder of an earlier one.
    st.cache_data.clear()
    st.cache_resource.clear()

    def start(page: str, experiments: Path, **query: object) -> AppTest:
        monkeypatch.setenv("EXPERIMENTS_DIR", str(experiments))
        at = AppTest.from_file(HOME, default_timeout=60)
        if page != "home":
            at.run().switch_page(f"views/{page}.py")
        for name, value in query.items():
            at.query_params[name] = str(value)
        return at.run()

    return start
