"""The dashboard as a whole, in a browser: it is quiet, private and local."""

import pytest

import browsing


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_the_first_page_is_clean(visit, width, dark):
    page = visit(width=width, dark=dark)
    page.page.get_by_role("heading", name="Experiments", exact=True).wait_for()
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD
