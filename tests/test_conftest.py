"""The policy on skips, held by running small suites of skipping tests under the project's own conftest."""

from pathlib import Path

import pytest
from hypothesis import settings

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")

SKIPS = {
    "in the test": "def test_it():\n    pytest.skip('{}')",
    "by a mark": "@pytest.mark.skip(reason='{}')\ndef test_it():\n    pass",
    "by a condition": "@pytest.mark.skipif(True, reason='{}')\ndef test_it():\n    pass",
    "in a fixture": "@pytest.fixture\ndef lack():\n    pytest.skip('{}')\n\ndef test_it(lack):\n    pass",
    "of the whole module": "pytest.skip('{}', allow_module_level=True)",
    "by unittest": (
        "import unittest\n\n"
        "class TestIt(unittest.TestCase):\n    def test_it(self):\n        self.skipTest('{}')"
    ),
}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs one module of tests under our conftest, with the given environment, and returns its result."""

    def run(source: str, **environment: str) -> pytest.RunResult:
        for name in ("CI", "PROVE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        pytester.makeconftest(CONFTEST)
        pytester.makeini("[pytest]\nmarkers = prove: long")
        pytester.makepyfile(f"import pytest\n\n{source}")
        return pytester.runpytest_inprocess("-ra")

    profile = settings.get_current_profile_name()
    yield run
    settings.load_profile(profile)  # the inner conftest has loaded its own, for the whole process


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_a_skip_for_something_missing_fails_in_ci(suite, source):
    result = suite(source.format("no browser here"), CI="true")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*skipped in CI (no browser here): provide it*"])


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_the_same_skip_is_fine_on_a_laptop(suite, source):
    suite(source.format("no browser here")).assert_outcomes(skipped=1)


@pytest.mark.parametrize("reason", ["prove: takes an hour", "gpu: no CUDA device"])
@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_skips_with_an_allowed_reason_pass_in_ci(suite, source, reason):
    suite(source.format(reason), CI="true").assert_outcomes(skipped=1)


@pytest.mark.parametrize("reason", ["nothing to prove: no data", "gpu", "Prove: long"])
def test_only_the_start_of_the_reason_counts(suite, reason):
    suite(SKIPS["in the test"].format(reason), CI="true").assert_outcomes(failed=1)


def test_a_skipped_subtest_fails_in_ci(suite):
    source = "def test_it(subtests):\n    with subtests.test():\n        pytest.skip('{}')"
    assert suite(source.format("no browser here"), CI="true").ret == pytest.ExitCode.TESTS_FAILED
    assert suite(source.format("gpu: no CUDA device"), CI="true").ret == pytest.ExitCode.OK
    assert suite(source.format("no browser here")).ret == pytest.ExitCode.OK


def test_a_missing_module_fails_the_collection_in_ci(suite):
    source = "absent = pytest.importorskip('no_such_module')\n\ndef test_it():\n    pass"
    suite(source, CI="true").assert_outcomes(errors=1)
    suite(source).assert_outcomes(skipped=1)


def test_an_expected_failure_is_no_skip(suite):
    source = "@pytest.mark.xfail(reason='known', strict=True)\ndef test_it():\n    assert False"
    suite(source, CI="true").assert_outcomes(xfailed=1)


def test_a_pass_and_a_failure_stay_what_they_are(suite):
    source = "def test_good():\n    pass\n\ndef test_bad():\n    assert False"
    suite(source, CI="true").assert_outcomes(passed=1, failed=1)


def test_a_test_marked_prove_runs_only_under_make_prove(suite):
    source = "@pytest.mark.prove\ndef test_it(prove):\n    assert prove"
    suite(source, CI="true").assert_outcomes(skipped=1)
    suite(source, CI="true", PROVE="1").assert_outcomes(passed=1)


def test_missing_squad_is_a_skip_that_says_what_to_set(suite, tmp_path):
    result = suite("def test_it(squad_dir):\n    pass", SQUAD_DIR=str(tmp_path))
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*no dev-v1.1.json in {tmp_path}: set SQUAD_DIR*"])


def test_squad_is_found_through_the_environment(suite, tmp_path):
    (tmp_path / "dev-v1.1.json").touch()
    source = f"def test_it(squad_dir):\n    assert str(squad_dir) == {str(tmp_path)!r}"
    suite(source, SQUAD_DIR=str(tmp_path)).assert_outcomes(passed=1)
