"""Chromium, the dashboard as a process, and experiments that browser tests of all pages share."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

import browsing
import huge
from browsing import Visit
from qa.config import Settings
from qa.importing import import_model, import_predictions
from qa.squad import load_questions

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Site:
    """A dashboard that runs.

    Attributes:
        address: where.
        experiments: the folder it shows.
    """

    address: str
    experiments: Path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on the PATH: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=browsing.chromium_options())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Site]]:
    """Starts the dashboard over a folder of experiments; it ends with the tests."""
    with ExitStack() as running:

        def start(experiments: Path, *options: str) -> Site:
            return Site(running.enter_context(browsing.dashboard(experiments, *options)), experiments)

        yield start


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments for every page; tests read them and change nothing.

    `pocket` and `pocket-twin`: the bundled model on 24 bundled questions, with and without refusing.
    `huge` and `huge-twin`: random models with 12 layers of 12 heads on windows of 384 tokens.
    `predictions`: scores on pocket's questions without a model.
    """
    root = tmp_path_factory.mktemp("furnished") / "experiments"
    questions = load_questions("pocket", "validation").limited(24)
    for name, threshold in (("pocket", 0.5), ("pocket-twin", None)):
        settings = Settings(max_length=256, stride=64, no_answer_threshold=threshold)
        import_model("pocket", questions, root=root, name=name, settings=settings)
    for seed, name in enumerate(("huge", "huge-twin")):
        huge.experiment(root, name, seed=seed)
    answers = {one.id: one.answers[0] if one.answers else "" for one in questions.questions[::2]}
    import_predictions(answers, questions, root=root, name="predictions", source="a test")
    return root


@pytest.fixture(scope="session")
def site(serve: Callable[..., Site], furnished: Path) -> Site:
    """The dashboard over the furnished experiments, shared by all tests."""
    return serve(furnished)


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Callable[..., Visit]]:
    """Opens a page in a session of its own: `visit("ask", experiment="pocket", width=800, dark=True)`."""
    with ExitStack() as sessions:

        def start(
            path: str = "", *, at: Site = site, width: int = 1280, dark: bool = False, **query: object
        ) -> Visit:
            visit = browsing.watch(chromium, at.address, width=width, dark=dark)
            sessions.callback(visit.page.context.close)
            return visit.open(path, **query)

        yield start
