"""The API describes itself: every route is declared, every example is good, and what is not declared is not there."""

from typing import Any

import msgspec
import pytest

from node.http.app import ROUTES
from parvada.contract.operation import AnyOf, Operation
from serving.operations import OPERATIONS
from tests.unit.node.http.facts import flowers
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY: tuple[Operation, ...] = (*OPERATIONS, *(route.operation for route in ROUTES))

# The contract in its own words, as far as it is there: outside checks rely on these.
CONTRACT = """
GET /healthz
GET /readyz
GET /v1/cluster
POST /v1/nodes/{node}/drain
POST /v1/nodes/{node}/undrain
DELETE /v1/nodes/{node}
POST /v1/cluster/transfer
GET /v1/events
GET /v1/audit
GET /v1/stats
GET /v1/stats/history
GET /metrics
GET /openapi.json
GET /docs
PUT /v1/datasets/{dataset}
GET /v1/datasets
GET /v1/datasets/{dataset}
GET /v1/datasets/{dataset}/versions/{version}
GET /v1/datasets/{dataset}/preview
GET /v1/datasets/{dataset}/versions/{version}/preview
GET /v1/datasets/{dataset}/content
GET /v1/datasets/{dataset}/versions/{version}/content
DELETE /v1/datasets/{dataset}
POST /v1/jobs
GET /v1/jobs
GET /v1/jobs/{job}
GET /v1/jobs/{job}/leaderboard
GET /v1/jobs/{job}/live
GET /v1/jobs/{job}/events
POST /v1/jobs/{job}/cancel
POST /v1/jobs/{job}/retry
DELETE /v1/jobs/{job}
GET /v1/models
GET /v1/models/{model}
GET /v1/models/{model}/versions
GET /v1/models/{model}/versions/{version}
PUT /v1/models/{model}/aliases/{alias}
DELETE /v1/models/{model}/aliases/{alias}
POST /v1/models/{model}/aliases/{alias}/rollback
GET /v1/models/{model}/aliases/{alias}/history
POST /v1/models/{model}/predict
POST /v1/models/{model}/versions/{version}/predict
GET /v1/tokens
POST /v1/tokens
DELETE /v1/tokens/{token}
GET /v2
GET /v2/
GET /v2/health/live
GET /v2/health/ready
GET /v2/models
GET /v2/models/{model}
GET /v2/models/{model}/versions/{version}
GET /v2/models/{model}/ready
GET /v2/models/{model}/versions/{version}/ready
POST /v2/models/{model}/infer
POST /v2/models/{model}/versions/{version}/infer
POST /v2/repository/index
GET /v2/models/stats
GET /v2/models/{model}/stats
GET /v2/models/{model}/versions/{version}/stats
GET /v2/models/{model}/config
GET /v2/models/{model}/versions/{version}/config
"""


async def test_the_document_has_every_call_of_the_contract(api: World) -> None:
    described = await api.get("/openapi.json")
    found = {f"{method.upper()} {path}" for path, calls in described["paths"].items() for method in calls}
    assert found >= set(CONTRACT.split("\n")[1:-1])
    assert found == {f"{operation.method} {operation.path}" for operation in EVERY}


async def test_the_document_needs_no_token(api: World) -> None:
    assert (await api.call("GET", "/openapi.json", role=None)).status == 200
    refused = await api.call("GET", "/openapi.json?min_indx=1", role=None)
    assert refused.problem == (400, "unknown_parameter")


async def test_the_page_needs_no_token_and_loads_nothing(api: World) -> None:
    shown = await api.call("GET", "/docs", role=None)
    assert (shown.status, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert shown.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    text = shown.raw.decode()
    assert [operation.path for operation in EVERY if f'id="{operation.id}"' not in text] == []
    assert "<script" not in text
    assert "://" not in text


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.id)
async def test_every_call_is_summed_up_in_a_sentence(operation: Operation) -> None:
    assert operation.summary.endswith((".", "process lives.", "`/v2`."))
    assert "\n" not in operation.summary


async def test_ids_are_unique() -> None:
    assert len({operation.id for operation in EVERY}) == len(EVERY)


def _examples() -> list[Any]:
    """Each example of a body or an answer in JSON, with the types that it may be of."""
    found = []
    for operation in EVERY:
        for part in (*operation.answers, *((operation.body,) if operation.body is not None else ())):
            forms = part.form.forms if isinstance(part.form, AnyOf) else (part.form,)
            values = [each.value for each in getattr(part, "examples", ()) if each.media == "application/json"]
            if getattr(part, "example", msgspec.UNSET) is not msgspec.UNSET and part.form is not bytes:
                values.append(part.example)
            found += [pytest.param(value, forms, id=f"{operation.id}-{number}") for number, value in enumerate(values)]
    return found


@pytest.mark.parametrize(("value", "forms"), _examples())
async def test_every_example_is_what_it_is_an_example_of(value: Any, forms: tuple[Any, ...]) -> None:
    def fits(form: Any) -> bool:
        try:
            msgspec.json.decode(msgspec.json.encode(value), type=form)
        except msgspec.ValidationError:
            return False
        return True

    assert any(fits(form) for form in forms)


async def test_the_examples_work_one_after_another(api: World) -> None:
    """As a newcomer would try them, from the data to the alias."""
    put = next(route for route in ROUTES if route.method == "PUT" and route.path == "/v1/datasets/{dataset}")
    assert put.operation.body is not None
    (file,) = put.operation.body.examples
    made = await api.upload("iris", file.value, headers={"Content-Type": file.media})
    assert (made.status, made.json["target"], made.json["task"]) == (201, "species", "multiclass")
    submit = next(route for route in ROUTES if route.method == "POST" and route.path == "/v1/jobs")
    assert submit.operation.body is not None
    for example in submit.operation.body.examples:
        answer = await api.call("POST", "/v1/jobs", json=example.value)
        assert answer.status == 202, answer.raw


# ---------------------------------------------------------------- other verbs
async def test_what_may_be_asked_is_told(api: World) -> None:
    told = await api.call("OPTIONS", "/v1/datasets/any")
    assert (told.status, told.raw) == (204, b"")
    assert told.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    refused = await api.call("PATCH", "/v1/datasets/any")
    assert refused.problem == (405, "method_not_allowed")
    assert refused.headers["Allow"] == told.headers["Allow"]
    assert (await api.call("OPTIONS", "/v1/nothing")).problem == (404, "unknown_path")


async def test_head_is_an_answer_without_its_body_also_of_a_stream_that_has_no_end(api: World) -> None:
    for path in ("/v1/cluster", "/docs", "/v1/events"):
        answer = await api.call("HEAD", path)
        assert (answer.status, answer.raw) == (200, b"")


# ---------------------------------------------------------------- bodies by their declaration
@pytest.mark.parametrize("media", ["text/xml", "application/x-yaml", "multipart/form-data"])
async def test_a_body_of_another_format_is_refused(api: World, media: str) -> None:
    answer = await api.call("POST", "/v1/tokens", data=b"<token/>", headers={"Content-Type": media})
    assert answer.problem == (415, "unsupported_format")
    assert "application/json" in answer.json["error"]


@pytest.mark.parametrize("media", ["application/json", "application/octet-stream", "application/problem+json"])
async def test_what_clients_send_when_told_nothing_is_taken_for_json(api: World, media: str) -> None:
    body = f'{{"name": "by-{len(media)}", "role": "viewer"}}'.encode()
    assert (await api.call("POST", "/v1/tokens", data=body, headers={"Content-Type": media})).status == 201


async def test_a_whole_number_may_be_written_as_a_float(api: World) -> None:
    """To JSON they are the same number."""
    await api.upload("whole", flowers())
    spec = {
        "datasets": [{"name": "whole", "version": 1.0}],
        "models": ["GaussianNB"],
        "seed": 7.0,
        "cv": {"folds": 3.0},
    }
    answer = await api.call("POST", "/v1/jobs", json=spec)
    assert (answer.status, answer.json["spec"]["seed"], answer.json["spec"]["cv"]["folds"]) == (202, 7, 3)
    for wrong in ({"seed": 7.5}, {"seed": "7"}, {"cv": {"folds": True}}, {"datasets": [1.0]}):
        assert (await api.call("POST", "/v1/jobs", json={**spec, **wrong})).problem == (400, "invalid")
