"""Every page in every state of the folder, and with every kind of link: never an exception."""

import pytest
from streamlit.testing.v1 import AppTest

import folders
import small_runs
from dashboard import state

PAGES = [*state.PAGES]
# Of each file, one way to be broken; Home's tests take all ways.
BROKEN = (
    "broken-empty",
    "broken-torn-status",
    "broken-unknown-setting",
    "broken-nested",
    "broken-text-for-number",
    "broken-no-predictions",
    "broken-folder-for-file",
)
FOREIGN = "<b>**x**</b> $y$ :smile: \u202e\u200b" + "ü" * 300


def said(at):
    """Everything a page says."""
    kinds = (
        at.title,
        at.header,
        at.subheader,
        at.markdown,
        at.caption,
        at.info,
        at.warning,
        at.error,
        at.text,
    )
    return "\n".join(str(one.value) for kind in kinds for one in kind)


def held(at):
    """The page is there: no exception, one title, and something below it."""
    assert [one.message for one in at.exception] == []
    assert len(at.title) == 1
    assert len(said(at)) > len(at.title[0].value)
    return at


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny model, somebody's predictions, a run, one that failed, and broken folders."""
    root = tmp_path_factory.mktemp("small") / "experiments"
    small_runs.imported(root, "model")
    folders.write(root, "scores")
    folders.write(root, "failed", "failed", message=FOREIGN)
    folders.interrupted(root, "interrupted")
    for kind in folders.BREAKING:
        folders.broken(root, kind)
    return root


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_folder(open_page, tmp_path, page):
    held(open_page(page, tmp_path))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_but_broken_folders(open_page, tmp_path, page):
    for kind in folders.BREAKING:
        folders.broken(tmp_path, kind)
    held(open_page(page, tmp_path))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["model", "scores", "failed", "interrupted", *BROKEN])
def test_each_experiment(open_page, small, page, name):
    held(open_page(page, small, experiment=name, other="model", runs=f"model,{name}"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    return folders.many(tmp_path_factory.mktemp("crowd") / "experiments")


@pytest.mark.parametrize("page", PAGES)
def test_a_thousand_experiments(open_page, crowd, page):
    runs = ",".join(f"experiment-{number:04}" for number in (1, 2, 999))
    held(open_page(page, crowd, experiment="experiment-0001", runs=runs))


LINKS = {
    "unknown": {"experiment": "nobody", "other": "nobody", "runs": "nobody,model", "id": "no such"},
    "out of range": {
        "experiment": "model",
        "layer": "99",
        "head": "-1",
        "question": "Who?",
        "context": "Anna.",
    },
    "foreign": dict.fromkeys(("experiment", "other", "runs", "id", "layer", "head"), FOREIGN),
    "foreign text": {
        "experiment": "model",
        "question": FOREIGN,
        "context": FOREIGN,
        "layer": "1",
        "head": "0",
    },
    "blank": {"experiment": "model", "question": " ", "context": "\n", "layer": " ", "head": "\t"},
    "commas": {"runs": ",,,", "experiment": ",", "id": ","},
    "twice": {"experiment": "model", "other": "model", "runs": "model,model"},
    "way out": {"experiment": "../model", "other": "/etc/passwd", "runs": "../model,model/..", "id": "../x"},
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("link", LINKS)
def test_any_link(open_page, small, page, link):
    at = held(open_page(page, small, **LINKS[link]))
    # What is of no use is gone from the address, so that the link is whole again.
    held(at.run())
    assert at.query_params.get("experiment") in (None, "model")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("experiments", "make demo\npython -m probes atlas one"),
        (
            "my runs",
            "EXPERIMENTS_DIR='my runs' make demo\npython -m probes atlas one --experiments-dir 'my runs'",
        ),
    ],
)
def test_commands_name_the_folder_unless_it_is_the_usual_one(monkeypatch, folder, expected):
    monkeypatch.setenv("EXPERIMENTS_DIR", folder)
    at = AppTest.from_string(
        "from dashboard import elements\nelements.command('make demo', 'python -m probes atlas one')"
    )
    assert [one.value for one in at.run().code] == [expected]
