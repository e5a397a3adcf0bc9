"""The report is one file that asks for nothing, and texts in it are texts."""

import re
from html.parser import HTMLParser

from qa.report import Section, Table, as_html

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '"><b>',
    "a & b",
    "\u202eabc\ud83d",
]
SVG = '<svg><clipPath id="clip0"/><g clip-path="url(#clip0)"><text>id="x" url(#y)</text></g></svg>'


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_hostile_texts_are_texts_everywhere():
    sections = [Section(text, text, [Table([text], [[text]])]) for text in HOSTILE]
    found = read(as_html(HOSTILE[0], HOSTILE[1], sections))
    assert not {"script", "img", "b"} & {*found.tags}
    for text in HOSTILE[:4]:
        assert found.texts.count(text) >= 4
    assert r"\u202eabc\ud83d" in found.texts


def test_it_can_be_written_and_asks_for_nothing():
    page = as_html("t", "n", [Section("s", "", [Table(["a"], [[HOSTILE[4]]])], [SVG])])
    page.encode("utf-8")
    found = read(page)
    assert not {"script", "link", "iframe", "img", "object"} & {*found.tags}
    assert not {"src", "onload", "onclick"} & {name for name, _ in found.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in found.attributes
    assert not re.search(r"https?:", page)


def test_numbers_have_two_decimals_and_what_is_missing_a_dash():
    page = as_html("t", "n", [Section("s", "", [Table(["a", "b", "c", "d"], [[1.2345, 12345, None, "x"]])])])
    assert (
        '<td class="number">1.23</td><td class="number">12,345</td><td class="number">–</td><td>x</td>'
        in page
    )


def test_pictures_beside_each_other_keep_their_own_parts():
    page = as_html("t", "n", [Section("s", "", (), [SVG, SVG])])
    names = re.findall(r'clipPath id="([^"]+)"', page)
    assert len({*names}) == 2
    assert re.findall(r"clip-path=\"url\(#([^)]+)\)", page) == names
    assert page.count('<text>id="x" url(#y)</text>') == 2
