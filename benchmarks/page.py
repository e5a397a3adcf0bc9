"""The page Attention against BertViz: bytes to the browser, and time to the picture of the same maps.

Ours is the dashboard, asked by a browser for 12 layers of 12 heads on a window of 384 tokens, with the model
loaded and the question answered before. BertViz's model view of the same maps is one HTML file; what is timed
is the making of that file alone, because showing it needs libraries from other hosts, and no browser takes a
script of that size. Both sides begin with the captured maps, as one would who looks at them again.

The trap: the scripts of the app itself (some megabytes, which a browser keeps) are not counted, nor are those
that BertViz loads; what is counted comes with every question.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
import weakref
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import torch

from benchmarks.comparison import Case, Options, Side, UnavailableError, Work
from benchmarks.data import find_dataset, name_of
from benchmarks.models import Shape, save_stand_in
from probes.attend import attend
from qa.config import Settings
from qa.experiment import Experiment
from qa.importing import import_model
from qa.reader import Reader
from qa.squad import Question, load_questions

BERTVIZ = "bertviz==1.4.1"
TOKENS = 384
# As many maps as DeBERTa-v3-base has; their number and size count, not the width of the model.
LARGE = Shape("large", layers=12, width=192, heads=12, buckets=64, vocabulary=8000, lifted=False)
HOME = Path(__file__).resolve().parent.parent / "dashboard" / "Home.py"
STARTING_SECONDS, DRAWING_MS = 60, 120_000
CHROMIUM = ("--disable-gpu", "--disable-background-networking", "--no-first-run", "--no-sandbox")

MODEL_VIEW = """
import sys
import numpy as np
import torch
from bertviz import model_view

maps = torch.from_numpy(np.load(sys.argv[1], allow_pickle=False).astype(np.float32))
tokens = open(sys.argv[2], encoding="utf-8").read().split("\\n")
html = model_view([layer[None] for layer in maps], tokens, html_action="return").data
with open(sys.argv[3], "w", encoding="utf-8") as file:
    file.write(html)
"""


def cases(options: Options) -> list[Case]:
    """Time to the picture, and bytes for it."""
    return [
        Showing.of("page", options, rounds=2),
        Showing.of("page-bytes", options, rounds=1, quantity="bytes"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing(Case):
    """All heads of a large model on one long window.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket: the longest context is read.
        scratch: where model, maps and the other's environment go.
    """

    dataset: str
    scratch: Path

    @staticmethod
    def of(name: str, options: Options, *, rounds: int, quantity: str = "seconds") -> Showing:
        """The case for these options."""
        dataset = find_dataset(options, "validation")
        about = f"{LARGE.layers} × {LARGE.heads} heads at {TOKENS} tokens of {name_of(dataset, 'validation')}"
        seconds = quantity == "seconds"
        return Showing(
            name=name,
            what=f"{'from the link to the picture' if seconds else 'bytes to the browser'}, {about}",
            against=f"BertViz 1.4.1, model view: {'writing its HTML, not shown' if seconds else 'its HTML'}",
            rounds=rounds,
            warm_up=0,
            compared="the same maps",
            quantity=quantity,
            own_process=False,
            dataset=dataset,
            scratch=options.scratch,
        )

    def prepare(self, side: Side) -> Work:
        """A dashboard and a browser that have shown it before; or BertViz, and the maps in a file."""
        return (page if side == "ours" else model_view)(self.dataset, self.scratch)

    def difference(self, ours: Any, theirs: Any) -> None:
        """Both are given the same maps."""


@lru_cache(maxsize=1)
def material(dataset: str, scratch: Path) -> tuple[Experiment, Question]:
    """An experiment with the model, and its only question."""
    questions = load_questions(dataset, "validation")
    longest = max(questions.questions, key=lambda one: len(one.context))
    folder = scratch / "large"
    save_stand_in(folder, LARGE, [longest.context, longest.question])
    settings = Settings(max_length=TOKENS, stride=64, device="cpu", no_answer_threshold=None)
    root = scratch / "experiments"
    one = questions.subset([longest])
    return import_model(str(folder), one, root=root, name="large", settings=settings), longest


@lru_cache(maxsize=1)
def page(dataset: str, scratch: Path) -> Page:
    """The same for both cases, until the process ends: Playwright drives one browser a thread."""
    return Page(*material(dataset, scratch), log=scratch / "dashboard.log")


@lru_cache(maxsize=1)
def model_view(dataset: str, scratch: Path) -> ModelView:
    """Likewise."""
    return ModelView(*material(dataset, scratch), scratch=scratch)


class Page:
    """A server and a browser; a call loads the page in a new session, waits, and gives the bytes it took.

    Attributes:
        close: ends both; done by itself when the process ends as usual, which workers of a pool do not.
    """

    def __init__(self, experiment: Experiment, question: Question, *, log: Path) -> None:
        self._running = ExitStack()
        self.close = weakref.finalize(self, self._running.close)
        self._address = self._serve(experiment.path.parent, log)
        self._browser = self._start_browser()
        query = {"experiment": experiment.name, "id": question.id, "layer": 0, "head": 0}
        self._link = f"{self._address}/attention?{urlencode(query)}"
        self()

    def __call__(self) -> int:
        """Until the picture of all heads and the map of one are drawn."""
        received = []
        with closing(self._browser.new_context(viewport={"width": 1280, "height": 900})) as context:
            tab = context.new_page()
            tab.on(
                "websocket", lambda one: one.on("framereceived", lambda frame: received.append(len(frame)))
            )
            context.on("response", lambda response: received.append(_media(response)))
            tab.goto(self._link)
            for key in ("attention_grid_all_large", "attention_head"):
                chart = tab.locator(f".st-key-{key}").locator("canvas, svg.marks").first
                chart.wait_for(timeout=DRAWING_MS)
            return sum(received)

    def _serve(self, experiments: Path, log: Path) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = ["--server.headless", "true", "--server.port", str(port)]
        command = [sys.executable, "-m", "streamlit", "run", str(HOME), *server]
        output = self._running.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [*command, "--", "--experiments-dir", str(experiments)], stdout=output, stderr=output
        )
        self._running.callback(process.wait)
        self._running.callback(process.terminate)
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/_stcore/health", log)
        return address

    def _start_browser(self) -> Any:
        try:
            from playwright.sync_api import sync_playwright
        except ImportError as error:
            raise UnavailableError("it needs playwright: pip install -r requirements-dev.txt") from error
        program = which("chromium")
        if program is None:
            raise UnavailableError("it needs chromium on the PATH (Debian: apt-get install chromium)")
        playwright = self._running.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        self._running.callback(browser.close)
        return browser


def _media(response: Any) -> int:
    counts = urlsplit(response.url).path.startswith("/media/")  # not the app's own, below /static/
    return int(response.headers.get("content-length", 0)) if counts else 0


def _wait_for(address: str, log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < STARTING_SECONDS:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.1)
    raise UnavailableError(f"the dashboard did not start: {log.read_text(errors='replace')[-300:]!r}")


class ModelView:
    """BertViz in an environment of its own; a call writes the HTML and gives its bytes."""

    def __init__(self, experiment: Experiment, question: Question, *, scratch: Path) -> None:
        self._python = environment(scratch / "bertviz")
        reader = Reader.of(experiment)
        window = attend(reader, question.question, question.context).window()
        maps, tokens = scratch / "maps.npy", scratch / "tokens.txt"
        np.save(maps, window.probabilities, allow_pickle=False)
        tokens.write_text("\n".join(window.tokens), encoding="utf-8")
        self._html = scratch / "model_view.html"
        self._arguments = [str(path) for path in (maps, tokens, self._html)]

    def __call__(self) -> int:
        """The HTML of all heads."""
        subprocess.run([str(self._python), "-c", MODEL_VIEW, *self._arguments], check=True)
        size = self._html.stat().st_size
        self._html.unlink()
        return size


def environment(folder: Path) -> Path:
    """The interpreter of an environment with BertViz, which borrows torch from here; made once.

    Raises:
        UnavailableError: the registry cannot be reached, or does not have it.
    """
    python = folder / "bin" / "python"
    if python.exists():
        return python
    venv.create(folder, with_pip=True)
    # Everything else that it imports is large and here already.
    lent = Path(torch.__file__).resolve().parent.parent
    for packages in folder.glob("lib/python*/site-packages"):
        (packages / "lent.pth").write_text(f"{lent}\n")
    for wanted in (["--no-deps", BERTVIZ], ["ipython"]):
        command = [str(python), "-m", "pip", "install", "--quiet", *wanted]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise UnavailableError(
                f"{BERTVIZ} cannot be installed: {(run.stderr.splitlines() or ['?'])[-1][:200]}"
            )
    return python
