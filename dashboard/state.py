"""The URL is the state: which experiment, question, layer and head a page shows, shared by all pages.

A link copied from the browser shows a colleague the same thing, and a change of page keeps what the next page
can use. Names (fixed): `experiment` and `other`; the question as `question` and `context` (typed) or as `id`
(one of the validation data); `layer`, `head`; on Compare `runs` (names with commas, the first the reference).
Every page says in `PAGES` which of these it uses; settings of one page only are widgets with
`bind="query-params"` and a key that no other page has.

    get("experiment")              the value, or None
    put(layer=3, head=None)        changes memory and URL; allowed in callbacks and in pages
    bind("layer", "layer_box")     on_change of the widget with that key: its value becomes the state's
    number("layer", below=12)      a checked number; one out of range is dropped with a line
    chosen_experiment()            the experiment, checked that it exists; `chosen_experiment("other")` too
    link("attention", "See the attention", layer=3)  a link to another page with everything it can use
    go("compare", runs="a,b")      the same from code (a button): ends the page's run
    root()                         the folder of experiments
    text_fits()                    False: the typed text is too long for a link; say so

The trap: the browser sends the URL with every click, so `arrive`, called by Home.py before each page, must
tell a URL that the user changed (a pasted link, the back button) from one that merely lacks what does not fit
into it. It compares with what was written last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import streamlit as st

from dashboard import wording
from qa.errors import UserError
from qa.experiment import Experiment, experiments_dir, find_experiment

VIEWS = Path(__file__).resolve().parent / "views"
# Of question and context together, as the URL spells them; mail and chat programs cut longer addresses.
LONGEST_TEXT = 6000
TEXT = ("question", "context")
QUESTION = (*TEXT, "id")
MEMORY, WRITTEN, PAGE = "_shared", "_shared_written", "_shared_page"

Value = str | int | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the dashboard.

    Attributes:
        title: in the menu and the browser's tab.
        icon: a Material symbol.
        uses: which of the shared names it takes from the URL.
    """

    title: str
    icon: str
    uses: tuple[str, ...] = ()


PAGES = {
    "home": Page("Experiments", ":material/science:"),
    "compare": Page("Compare", ":material/compare_arrows:", ("runs",)),
    "ask": Page("Ask", ":material/chat:", ("experiment", "other", *QUESTION)),
    "attention": Page("Attention", ":material/grid_on:", ("experiment", "other", *QUESTION, "layer", "head")),
    "attribution": Page(
        "Attribution", ":material/balance:", ("experiment", "other", *QUESTION, "layer", "head")
    ),
    "heads": Page("Heads", ":material/hub:", ("experiment", "other", "layer", "head")),
}


def root() -> Path:
    """The folder of experiments: `streamlit run dashboard/Home.py -- --experiments-dir DIR`, or as anywhere.

    Raises:
        UserError: the option without a folder, or the home folder of an unknown user.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--experiments-dir")
    try:
        options, _ = parser.parse_known_args(sys.argv[1:])
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; give the folder of experiments after --experiments-dir") from error
    return experiments_dir(options.experiments_dir)


def arrive(page: str) -> None:
    """Bring memory and URL together; before the page runs."""
    given = {name: value for name in PAGES[page].uses if (value := st.query_params.get(name))}
    stays = st.session_state.get(PAGE) == page
    if not stays:
        _remember(given)
    elif given != st.session_state.get(WRITTEN):
        _remember(dict.fromkeys(PAGES[page].uses) | given)
    st.session_state[PAGE] = page
    _write()


def get(name: str) -> str | None:
    """A shared value as text, None if it is not set."""
    value: str | None = _memory().get(name)
    return value


def put(**values: Value) -> None:
    """Set shared values, or forget those that are None or empty; memory and URL.

    A question typed takes the place of one picked by `id`, and the other way round.
    """
    _remember(values)
    _write()


def bind(name: str, key: str) -> None:
    """For `on_change=state.bind, args=(name, key)`: the widget's value becomes the shared one."""
    put(**{name: st.session_state[key]})


def number(name: str, *, below: int) -> int | None:
    """A shared number from 0; any other value is dropped with a line on the page.

    Args:
        name: layer or head.
        below: the first number that is too large.
    """
    text = get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) < below:
        return int(text)
    drop(name, f"{name} {text!r} in the link is not one of 0 to {below - 1}, and was left out.")
    return None


def chosen_experiment(name: str = "experiment") -> Experiment | None:
    """The experiment the URL names, None if there is none; an unknown one is dropped with a line.

    Args:
        name: experiment or other.
    """
    text = get(name)
    if text is None:
        return None
    try:
        return find_experiment(root(), text)
    except UserError as error:
        drop(name, f"The link was for another folder: {error}")
        return None


def drop(name: str, why: str) -> None:
    """Forget a shared value that cannot be used, and say so in one line on the page."""
    put(**{name: None})
    st.warning(wording.plain(why), icon=":material/link_off:")


def text_fits() -> bool:
    """Whether the link carries the typed question and context."""
    return sum(len(quote(get(name) or "")) for name in TEXT) <= LONGEST_TEXT


def carried(page: str, **changes: Value) -> dict[str, str]:
    """The query of a link to another page: everything that page uses, with changes."""
    merged = _merged(_memory(), changes)
    return {name: value for name, value in merged.items() if name in _linked(merged, page)}


def link(page: str, label: str, **changes: Value) -> None:
    """Draw a link to another page that keeps the state."""
    target = f"views/{page}.py"
    st.page_link(target, label=label, icon=PAGES[page].icon, query_params=carried(page, **changes))


def go(page: str, **changes: Value) -> NoReturn:
    """Show another page now, with the state changed."""
    put(**changes)
    st.switch_page(f"views/{page}.py", query_params=carried(page))


def _memory() -> dict[str, str]:
    memory: dict[str, str] = st.session_state.setdefault(MEMORY, {})
    return memory


def _remember(values: Mapping[str, Value]) -> None:
    st.session_state[MEMORY] = _merged(_memory(), values)


def _merged(memory: Mapping[str, str], values: Mapping[str, Value]) -> dict[str, str]:
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    replaced = set(values)
    if given.keys() & set(TEXT):
        replaced.add("id")
    elif "id" in given:
        replaced.update(TEXT)
    return {name: value for name, value in memory.items() if name not in replaced} | given


def fits(values: Mapping[str, str]) -> bool:
    """Whether a link can carry the texts among these values; if not, only `go` takes them along."""
    return sum(len(quote(values.get(name, ""))) for name in TEXT) <= LONGEST_TEXT


def _linked(memory: Mapping[str, str], page: str) -> list[str]:
    """Which of the values a link to the page carries."""
    whole = fits(memory)
    return [name for name in PAGES[page].uses if name in memory and (whole or name not in TEXT)]


def _write() -> None:
    """Make the URL say what memory holds, as far as the page uses it."""
    page = st.session_state.get(PAGE)
    if page is None:
        return
    wanted = {name: _memory()[name] for name in _linked(_memory(), page)}
    for name in {name for each in PAGES.values() for name in each.uses}:
        if name not in wanted and name in st.query_params:
            del st.query_params[name]
    for name, value in wanted.items():
        if st.query_params.get(name) != value:
            st.query_params[name] = value
    st.session_state[WRITTEN] = wanted
