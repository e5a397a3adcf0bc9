"""What every test shares: a quiet offline process, where real data lies, and which skips are allowed.

A skip says that this machine lacks something. On a laptop that is information; in CI (`CI=true`) it is a
hole that nobody sees, so there a skip fails, except where its reason starts with one of `ALLOWED_IN_CI`.

The trap: libraries read the variables below when they are first imported. So they are set while this file
is read, and nothing heavy is imported here.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
IN_CI = os.environ.get("CI") in ("true", "1")
ALLOWED_IN_CI = ("prove:", "gpu:")
PROVE = os.environ.get("PROVE") == "1"

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")  # torch's threads, in the processes that tests start as well
os.environ.pop("EXPERIMENTS_DIR", None)  # a developer's own experiments are none of the tests' business

# Nothing that depends on how busy the machine is: no deadline, and the same examples in every run.
settings.register_profile(
    "test", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("prove", settings.get_profile("test"), derandomize=False, max_examples=1000)
settings.load_profile("prove" if PROVE else "test")


@pytest.fixture(scope="session")
def prove() -> bool:
    """Whether this is `make prove`: take more questions, more kills, more sessions."""
    return PROVE


@pytest.fixture(scope="session")
def squad_dir() -> Path:
    """The folder of the official SQuAD files, to be read in place."""
    folder = Path(os.environ.get("SQUAD_DIR") or ROOT.parent / "shared" / "data" / "squad")
    if not (folder / "dev-v1.1.json").is_file():
        pytest.skip(f"no dev-v1.1.json in {folder}: set SQUAD_DIR to the folder of the official SQuAD files")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PROVE:
        return
    for item in items:
        if item.get_closest_marker("prove"):
            item.add_marker(pytest.mark.skip(reason="prove: a long test, run by `make prove`"))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, so that an expected failure is already marked
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_skip_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_skip_in_ci(report)
    return report


def fail_skip_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn `report` into a failure if it is a skip that CI does not allow; an expected failure is no skip."""
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    path, line, message = report.longrepr
    reason = message.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_IN_CI):
        report.outcome = "failed"
        allowed = " or ".join(f"'{prefix}'" for prefix in ALLOWED_IN_CI)
        report.longrepr = (
            f"{path}:{line}: skipped in CI ({reason}): provide it, or start the reason with {allowed}"
        )
