"""The server's settings: private by default, and no name that Streamlit does not know."""

import tomllib
from pathlib import Path

import pytest
from streamlit import config

FILE = Path(__file__).resolve().parents[2] / "dashboard" / ".streamlit" / "config.toml"


def flat(values, before=""):
    """Every setting by its dotted name."""
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


SETTINGS = flat(tomllib.loads(FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_one_of_streamlits(name):
    assert name in config.get_config_options()


def test_private_by_default():
    private = {
        "server.address": "127.0.0.1",
        "server.allowedHosts": ["localhost", "127.0.0.1"],
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "browser.gatherUsageStats": False,
    }
    assert {name: SETTINGS[name] for name in private} == private


def test_no_font_is_fetched():
    assert not any("http" in str(value) or "font" in name.lower() for name, value in SETTINGS.items())
