"""The document of a small API: every word of a declaration is in it, once."""

from typing import Any

import pytest

from parvada.contract.openapi import document
from tests.unit.parvada.contract.declared import HEALTH, PUT_BOOK, SHELF, TABLE


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(TABLE, "1.2.3", "writes")


def test_it_is_of_the_api_as_it_is(made: dict[str, Any]) -> None:
    assert (made["openapi"], made["info"]["version"]) == ("3.1.0", "1.2.3")
    assert {path: set(calls) for path, calls in made["paths"].items()} == {
        "/shelf": {"get"},
        "/shelf/{dataset}": {"put"},
        "/health": {"get"},
    }
    assert [tag["name"] for tag in made["tags"]] == ["Datasets", "Observation"]
    assert made["paths"]["/shelf"]["get"]["operationId"] == "get_shelf"
    assert made["paths"]["/shelf/{dataset}"]["put"]["operationId"] == "put_shelf_dataset"


def test_parameters_with_their_bounds_and_what_is_said_beside_them(made: dict[str, Any]) -> None:
    limit, label, *common = made["paths"]["/shelf"]["get"]["parameters"]
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "So many books at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
    }
    assert label["schema"] == {"type": "array", "items": {"type": "string"}}
    assert [each["$ref"].rpartition("/")[2] for each in common] == ["min_index", "consistency"]
    put = [each["$ref"].rpartition("/")[2] for each in made["paths"]["/shelf/{dataset}"]["put"]["parameters"]]
    assert put == ["dataset", "min_index", "consistency", "Idempotency-Key"]
    assert made["paths"]["/health"]["get"]["parameters"] == []


def test_structs_with_what_is_said_beside_their_fields(made: dict[str, Any]) -> None:
    book = made["components"]["schemas"]["Book"]
    assert book["description"] == "What is on a shelf."
    assert book["properties"]["title"] == {"type": "string", "description": "As it stands on the cover."}
    assert book["required"] == ["title"]


def test_a_body_in_every_format_with_its_examples(made: dict[str, Any]) -> None:
    body = made["paths"]["/shelf/{dataset}"]["put"]["requestBody"]
    assert body["required"] is True
    json, csv = body["content"]["application/json"], body["content"]["text/csv"]
    assert [each["$ref"].rpartition("/")[2] for each in json["schema"]["anyOf"]] == ["Book", "Leaflet"]
    assert json["examples"] == {"A book": {"value": {"title": "Emma"}}}
    assert csv == {"schema": {"type": "string"}, "examples": {"A line": {"value": "Emma,512\n"}}}


def test_every_status_of_the_declaration_and_none_else(made: dict[str, Any]) -> None:
    assert set(made["paths"]["/shelf"]["get"]["responses"]) == {"200", "400", "401", "409", "503"}
    assert set(made["paths"]["/shelf/{dataset}"]["put"]["responses"]) == {
        *("201", "400", "401", "403", "404", "409", "413", "415", "422", "503")
    }
    assert set(made["paths"]["/health"]["get"]["responses"]) == {"200"}
    assert set(made["components"]["responses"]) >= {"400", "401", "403", "404", "409", "413", "415", "422", "503"}


@pytest.mark.parametrize(
    ("auth", "reading", "writing", "health"),
    [("writes", [{}, {"token": []}], [{"token": []}], []), ("all", [{"token": []}], [{"token": []}], [])],
)
def test_who_needs_a_token(auth: Any, reading: list[Any], writing: list[Any], health: list[Any]) -> None:
    paths = document(TABLE, "1", auth)["paths"]
    assert paths[SHELF.path]["get"]["security"] == reading
    assert paths[PUT_BOOK.path]["put"]["security"] == writing
    assert paths[HEALTH.path]["get"]["security"] == health
    assert "Needs the role `operator`." in paths[PUT_BOOK.path]["put"]["description"]
