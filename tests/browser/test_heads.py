"""Heads in a browser: a click on a head, and from its card to the question on Attention."""

import pytest

from probes.atlas import Work, make_atlas
from probes.atlas_processes import Processes
from qa.experiment import Experiment


@pytest.fixture(scope="module")
def atlas(furnished):
    """Of a few of pocket's questions."""
    experiment = Experiment(furnished / "pocket")
    work = Work.of(experiment, experiment.validation_questions().limited(4), knockouts=0, device="cpu")
    make_atlas(work, stage=lambda name: lambda done, total: None, processes=Processes())
    return experiment.name


@pytest.mark.parametrize("dark", [False, True])
def test_a_head_and_one_of_its_questions(visit, atlas, dark):
    seen = visit("heads", experiment=atlas, layer=1, head=1, dark=dark)
    page = seen.page
    page.get_by_role("heading", name="Layer 1, head 1").wait_for()
    page.get_by_text("Most: entropy").wait_for()
    page.locator("[data-testid=stPageLink] a").filter(has_text="·").first.click()
    page.wait_for_url("**/attention?**")
    assert {"layer=1", "head=1", f"experiment={atlas}"} <= set(page.url.partition("?")[2].split("&"))
    page.get_by_role("heading", name="Layer 1, head 1").wait_for(timeout=60_000)
