"""The page of a small API: complete, self-contained, and nothing in it can run."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from parvada.contract import page
from parvada.contract.openapi import document
from tests.unit.parvada.contract.declared import TABLE


class Read(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def shown() -> str:
    return page.render(document(TABLE, "1.2.3", "writes"))


@pytest.fixture(scope="module")
def read(shown: str) -> Read:
    return Read(shown)


def test_every_call_and_every_schema_is_there_once(read: Read) -> None:
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"get_shelf", "put_shelf_dataset", "get_health", "schema-Book", "schema-Leaflet", "schema-Problem"} <= set(
        ids
    )
    assert read.open == []


def test_every_link_leads_somewhere(read: Read) -> None:
    ids = {attributes.get("id") for _, attributes in read.tags}
    links = {attributes["href"] for tag, attributes in read.tags if tag == "a"}
    assert {link for link in links if link is not None and link.removeprefix("#") not in ids} == {"/openapi.json"}


def test_it_says_what_the_document_says(read: Read) -> None:
    for said in (
        "So many books at most.",
        "1 to 9",
        "As it stands on the cover.",
        "Needs the role operator.",
        "Emma,512",
        'curl -X PUT localhost:8080/shelf/iris \\\n  -H "Authorization: Bearer $TOKEN"',
        '{"title": "Emma", "pages": 512}',
        "Data that can be read and cannot be used",
    ):
        assert said in read.text, said


def test_it_loads_nothing_and_runs_nothing(shown: str, read: Read) -> None:
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "img", "iframe", "form", "object", "base"})
    attributes = {name for _, given in read.tags for name in given}
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
    assert "://" not in shown
    assert "@import" not in shown
    assert "url(" not in shown


def test_its_policy_allows_its_own_style_and_nothing_else(shown: str) -> None:
    (style,) = re.findall("<style>(.*?)</style>", shown, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.headers()["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_what_is_text_is_never_markup() -> None:
    made = document(TABLE, "<script>alert(1)</script>", "writes")
    made["paths"]["/shelf"]["get"]["summary"] = "`<b>` & <i>"
    shown = page.render(made)
    assert "<script>" not in shown
    assert "<code>&lt;b&gt;</code> &amp; &lt;i&gt;" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a,b\n", "a,b\n"),
        ({"a": [1, "x"]}, '{"a": [1, "x"]}'),
        ({"a": ["x" * 50, "y" * 50]}, f'{{\n  "a": [\n    "{"x" * 50}",\n    "{"y" * 50}"\n  ]\n}}'),
    ],
)
def test_examples_take_as_many_lines_as_they_need(value: Any, text: str) -> None:
    made = document(TABLE, "1", "writes")
    made["paths"]["/shelf/{dataset}"]["put"]["responses"]["201"]["content"]["application/json"]["example"] = value
    assert text in Read(page.render(made)).text
