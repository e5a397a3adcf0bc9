"""Who may import whom, read from the source; and no file holds what belongs to one machine.

Imports point one way, dashboard -> probes -> qa, and each heavy library has one home, so that a part can be
understood, tested and replaced without the ones above it.

The trap: an import has many spellings. `names_used` resolves them all (relative and local imports, aliases,
attributes of an imported module, import by a string) to absolute dotted names; the rules see only those.
"""

import ast
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("qa", "probes", "dashboard", "benchmarks", "pocket", "tests")

# What each of the three may import of this project; whatever stands beside them may import all three.
MAY_IMPORT = {"qa": {"qa"}, "probes": {"qa", "probes"}, "dashboard": {"qa", "probes", "dashboard"}}
OURS = {*PACKAGES, "run_experiment", "interactive_attention_analysis"}


class Library(NamedTuple):
    """A library, or part of one, that only some places may import; tests drive and check everything."""

    name: str
    pattern: re.Pattern[str]  # matched against the start of an absolute dotted name
    homes: tuple[str, ...]
    never: tuple[str, ...] = ()


LIBRARIES = (
    Library(
        "streamlit", re.compile(r"streamlit\b"), ("dashboard",), ("dashboard/charts", "dashboard/pictures")
    ),
    Library("altair", re.compile(r"altair\b"), ("dashboard/charts",)),
    # Benchmarks measure against what a user would run instead, which is Captum or the Trainer as they come.
    Library("captum", re.compile(r"captum\b"), ("probes/attribution", "benchmarks")),
    Library(
        "transformers' Trainer",
        re.compile(
            r"transformers\.(\w*Trainer\w*|\w*TrainingArguments|\w*Callback|trainer\w*|training_args\w*)\b"
        ),
        ("qa/training", "benchmarks"),
    ),
)

# Assembled from pieces, because this file is read by its own test.
MACHINE_BOUND = {
    "a path of one machine": re.compile(
        r"(?<![\w.~])/(?:(?:{top})/|{tmp}/[A-Za-z]|(?:{homes})/[\w.-])".format(
            top="work|root|farm", tmp="tmp", homes="home|Users"
        )
    ),
    "the host of a package registry": re.compile(
        r"\b(?:{python}|{python_files}|{npm})\b".format(
            python=r"pypi\.org", python_files=r"pythonhosted\.org", npm=r"npmjs\.(?:com|org)"
        )
    ),
}
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "models"}


def test_imports_point_one_way():
    sources = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in python_files(ROOT)}
    assert Path("tests/test_architecture.py") in sources
    broken = [line for path, source in sources.items() for line in broken_rules(PurePosixPath(path), source)]
    assert not broken, "\n".join(broken)


def test_modules_of_the_dashboard_hide_nothing():
    broken = list(name_traps(ROOT / "dashboard"))
    assert not broken, "\n".join(broken)


def test_no_file_is_bound_to_a_machine():
    files = {path.relative_to(ROOT): text for path, text in text_files(ROOT)}
    assert {Path("Makefile"), Path("pyproject.toml"), Path(".ci/run")} <= files.keys()
    found = [f"{path}: {line}" for path, text in files.items() for line in machine_bound(text)]
    assert not found, "\n".join(found)


def python_files(root: Path) -> Iterator[Path]:
    """The scripts in `root` and all modules of the packages that exist."""
    yield from root.glob("*.py")
    for package in PACKAGES:
        yield from (root / package).rglob("*.py")


def names_used(path: PurePosixPath, source: str) -> set[str]:
    """Absolute dotted names that `source`, the content of the module at `path`, imports or reaches into."""
    tree = ast.parse(source, filename=str(path))
    imported: set[str] = set()
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported.add(alias.name)
                first = alias.name.split(".")[0]
                aliases[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            module = absolute(path, node)
            imported.add(module)
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                imported.add(name)
                aliases[alias.asname or alias.name] = name
        elif isinstance(node, ast.Call):
            imported.update(imported_by_string(node))
    attributes = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    reached = (name.partition(".") for name in attributes)
    return imported | {f"{aliases[first]}.{rest}" for first, _, rest in reached if first in aliases}


def absolute(path: PurePosixPath, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from ... import` at `path` names."""
    package = path.parent.parts[: len(path.parent.parts) + 1 - node.level] if node.level else ()
    return ".".join([*package, *([node.module] if node.module else [])])


def imported_by_string(call: ast.Call) -> Iterator[str]:
    """The module that `importlib.import_module("name")` or `__import__("name")` names."""
    function = ast.unparse(call.func).rpartition(".")[2]
    if function in ("import_module", "__import__") and call.args:
        name = call.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value


def within(path: PurePosixPath, places: tuple[str, ...]) -> bool:
    """Whether `path` is one of the modules or lies in one of the packages that `places` names."""
    module = path.with_suffix("")
    return any(module.is_relative_to(place) for place in places)


def broken_rules(path: PurePosixPath, source: str) -> Iterator[str]:
    """A line for each name that the module at `path` may not import."""
    top = path.parts[0]
    if top == "tests":
        return
    for name in sorted(names_used(path, source)):
        first = name.split(".")[0]
        if first in OURS - MAY_IMPORT.get(top, OURS):
            yield f"{path} imports {name}: imports point one way, dashboard -> probes -> qa"
        for library in LIBRARIES:
            at_home = within(path, library.homes) and not within(path, library.never)
            if library.pattern.match(name) and not at_home:
                homes = " and ".join(library.homes)
                yield f"{path} imports {name}: {library.name} belongs to {homes}"


def name_traps(dashboard: Path) -> Iterator[str]:
    """Streamlit puts this folder first on the import path: what in it hides a library, or is imported twice.

    A module here that is called as a library is called hides that library from the whole process. And
    `import charts` works, but gives another module object than `dashboard.charts`, with its own caches.
    """
    own = {path.stem for path in dashboard.glob("*") if path.is_dir() or path.suffix == ".py"} - {"__init__"}
    taken = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys() | OURS
    yield from (f"dashboard/{name} hides the module {name}: rename it" for name in sorted(own & taken))
    for path in dashboard.rglob("*.py"):
        relative = PurePosixPath("dashboard", path.relative_to(dashboard))
        for name in sorted(names_used(relative, path.read_text(encoding="utf-8"))):
            if name.split(".")[0] in own - taken:
                yield f"{relative} imports {name}: write dashboard.{name}"


def text_files(root: Path) -> Iterator[tuple[Path, str]]:
    """The project's text files, without what installing, running and training leave behind."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if not is_left_behind(here.relative_to(root) / name)]
        for name in files:
            content = (here / name).read_bytes()
            if b"\0" not in content:
                yield here / name, content.decode("utf-8", errors="replace")


def is_left_behind(folder: Path) -> bool:
    """Whether git ignores `folder`, given relative to the root."""
    name = folder.name
    caches = name.endswith((".egg-info", "_cache")) or name == ".hypothesis"
    return name in NOT_OURS or caches or folder.parent == Path("experiments")


def machine_bound(text: str) -> Iterator[str]:
    """What in `text` holds on one machine only, and why."""
    for reason, pattern in MACHINE_BOUND.items():
        for match in pattern.finditer(text):
            line = text[: match.start()].count("\n") + 1
            yield f"line {line}: {match.group()!r} is {reason}"


# The rest tests the tests: sources that break each rule, and sources that do not.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("qa/reader.py", "import probes"),
        ("qa/reader.py", "from probes.attention import AttentionProbe"),
        ("qa/reader.py", "from dashboard import charts"),
        ("qa/reader.py", "from .. import probes"),
        ("qa/deep/reader.py", "from ...probes import attention"),
        ("qa/reader.py", "def lazily():\n    import probes.attention as attention"),
        ("qa/reader.py", "import importlib\nimportlib.import_module('probes.attention')"),
        ("qa/reader.py", "probes = __import__('probes')"),
        ("qa/reader.py", "import run_experiment"),
        ("probes/atlas.py", "from dashboard.charts import heatmap"),
        ("probes/atlas.py", "from benchmarks import speed"),
        ("dashboard/data.py", "from tests.helpers import fake"),
        ("run_experiment.py", "import streamlit"),
        ("benchmarks/speed.py", "import streamlit"),
        ("probes/summaries.py", "from streamlit.testing.v1 import AppTest"),
        ("dashboard/charts.py", "import streamlit as st"),
        ("dashboard/charts/heatmap.py", "import streamlit as st"),
        ("dashboard/pictures.py", "import streamlit as st"),
        ("dashboard/pictures/atlas.py", "from streamlit import cache_data"),
        ("dashboard/Home.py", "import altair as alt"),
        ("dashboard/views/charts.py", "import altair"),
        ("dashboard/charts_more.py", "import altair"),
        ("interactive_attention_analysis.py", "import altair.vegalite"),
        ("probes/attention.py", "import captum.attr"),
        ("dashboard/data.py", "from captum.attr import IntegratedGradients"),
        ("qa/model.py", "from transformers import Trainer"),
        ("qa/model.py", "from transformers import Seq2SeqTrainer as Loop"),
        ("qa/model.py", "from transformers import TrainerCallback, TrainingArguments"),
        ("qa/model.py", "from transformers import EarlyStoppingCallback"),
        ("qa/model.py", "from transformers.trainer_utils import get_last_checkpoint"),
        ("qa/model.py", "from transformers.training_args import TrainingArguments"),
        ("qa/model.py", "import transformers\ntransformers.Trainer(model=None)"),
        ("qa/model.py", "import transformers as hf\nclass Ours(hf.TrainerCallback): pass"),
        ("qa/model.py", "from transformers import trainer as loop\nloop.Trainer()"),
        ("run_experiment.py", "from transformers import TrainingArguments"),
    ],
)
def test_a_broken_rule_is_found(path, source):
    assert list(broken_rules(PurePosixPath(path), source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("qa/reader.py", "from qa.errors import UserError"),
        ("qa/reader.py", "from . import errors\nfrom .windows import Window"),
        ("qa/__init__.py", "from .errors import UserError"),
        ("qa/reader.py", "import probespierre, qatar"),
        ("qa/reader.py", "'import streamlit'  # import probes"),
        ("qa/model.py", "import transformers\ntransformers.AutoModelForQuestionAnswering"),
        ("qa/model.py", "from transformers import set_seed\nfrom captumless import Trainer"),
        ("qa/training.py", "from transformers import Trainer, TrainerCallback, TrainingArguments"),
        ("qa/training/loop.py", "from transformers.trainer_utils import get_last_checkpoint"),
        ("probes/attribution.py", "from captum.attr import LayerIntegratedGradients"),
        ("probes/atlas.py", "from qa.reader import Reader"),
        ("dashboard/Home.py", "import streamlit as st\nfrom probes import attention\nfrom qa import squad"),
        ("dashboard/charts.py", "import altair as alt"),
        ("dashboard/charts/heatmap.py", "import altair as alt"),
        ("interactive_attention_analysis.py", "from dashboard.charts import heatmap"),
        ("run_experiment.py", "from probes import attention\nfrom qa import training"),
        ("benchmarks/speed.py", "import captum.attr\nfrom transformers import Trainer"),
        ("tests/dashboard/test_home.py", "from streamlit.testing.v1 import AppTest\nimport altair"),
    ],
)
def test_a_kept_rule_is_not_reported(path, source):
    assert not list(broken_rules(PurePosixPath(path), source))


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("types.py", "", "dashboard/types hides"),
        ("datasets.py", "", "dashboard/datasets hides"),
        ("evaluate/__init__.py", "", "dashboard/evaluate hides"),
        ("qa.py", "", "dashboard/qa hides"),
        ("views/overview.py", "import charts", "write dashboard.charts"),
        ("views/overview.py", "from charts import heatmap", "write dashboard.charts"),
    ],
)
def test_a_name_trap_of_the_dashboard_is_found(tmp_path, module, source, expected):
    for name, content in {"charts.py": "", module: source}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert any(expected in line for line in name_traps(tmp_path))


def test_a_dashboard_without_traps_is_not_reported(tmp_path):
    (tmp_path / "views").mkdir()
    for name in ("__init__.py", "charts.py", "data.py"):
        (tmp_path / name).touch()
    (tmp_path / "views" / "types.py").write_text(
        "from dashboard.charts import heatmap\nfrom dashboard import data"
    )
    assert not list(name_traps(tmp_path))


@pytest.mark.parametrize("before", ["", "see ", "'", "(", "=", "file://"])
@pytest.mark.parametrize("path", ["work/main", "root/.cache", "tmp/x", "home/ada", "Users/ada"])
def test_a_path_of_a_machine_is_found(before, path):
    assert next(machine_bound(f"fine\n{before}/{path}")).startswith("line 2: ")


@pytest.mark.parametrize("host", ["pypi", "files.pythonhosted", "registry.npmjs"])
def test_the_host_of_a_registry_is_found(host):
    end = "com" if "npm" in host else "org"
    assert list(machine_bound(f"--index-url https://{host}.{end}/simple"))


@pytest.mark.parametrize(
    "text", ["../shared/data", "PATH/TO/train-v1.1.json", "team/work/x", "./tmp/x", "the /home page", "pypi"]
)
def test_what_holds_on_every_machine_is_not_reported(text):
    assert not list(machine_bound(text))


def test_only_the_project_is_read(tmp_path):
    kept = ["Home.py", ".ci/run", "experiments/README.md"]
    for name in [
        *kept,
        ".venv/pip.py",
        "experiments/mine/config.yaml",
        "qa/__pycache__/a.py",
        ".mypy_cache/x",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "model.safetensors").write_bytes(b"\0binary")
    assert sorted(str(path.relative_to(tmp_path)) for path, _ in text_files(tmp_path)) == sorted(kept)
