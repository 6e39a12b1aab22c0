"""Which node is asked, when the client gives up, and what an error answer becomes."""

import pickle

import pytest
from hypothesis import given, strategies as st

from parvada import errors
from parvada._protocol import Attempts, Response, Route, problem_of, split_urls
from parvada._session import Session
from parvada.schema import Node

A, B, C = "http://a", "http://b", "http://c"


def answer(status: int, body: bytes = b"{}", url: str = A, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, url)


def test_stays_with_the_node_that_answers() -> None:
    route = Route([A, B, C])
    assert route.choose(0.0) == (A, 0.0)
    route.failed(A, 0.0)
    assert route.choose(0.0) == (B, 0.0)
    route.answered(B)
    assert route.choose(100.0) == (B, 0.0), "a recovered node does not pull the client back"


def test_a_node_that_failed_rests_for_a_second() -> None:
    route = Route([A, B])
    route.failed(A, 10.0)
    assert route.choose(10.9) == (B, 0.0)
    assert route.choose(11.0) == (A, 0.0)


def test_waits_for_the_first_node_to_come_back_when_all_rest() -> None:
    route = Route([A, B])
    route.failed(A, 10.0)
    route.failed(B, 10.4)
    url, wait = route.choose(10.5)
    assert url == A
    assert wait == pytest.approx(0.5)


def test_the_url_that_answers_is_kept_even_if_the_nodes_call_it_otherwise() -> None:
    route = Route([A])
    route.learn([B])
    route.answered(B)
    route.learn([C])
    assert list(route.urls) == [A, C, B]
    assert route.choose(0.0) == (B, 0.0)


def test_configured_urls_come_before_learned_ones() -> None:
    route = Route([B])
    route.learn([A, B, C])
    assert list(route.urls) == [B, A, C]
    route.learn([C])
    assert list(route.urls) == [B, C], "a node that left the cluster is forgotten"


@given(st.lists(st.sampled_from([200, 404, 429, 503, None]), max_size=30), st.floats(0, 5))
def test_a_call_always_ends_and_never_begins_a_try_after_its_patience(
    outcomes: list[int | None], patience: float
) -> None:
    route, now, tries = Route([A, B]), 0.0, 0
    attempts = Attempts(route, patience, now)
    script = iter([*outcomes, *[None] * 100])
    while True:
        try:
            url, wait = attempts.next(now)
        except (errors.Unreachable, errors.Unavailable, errors.Overloaded):
            break
        now += wait
        assert tries == 0 or now < patience
        tries += 1
        outcome = next(script)
        if outcome is None:
            attempts.failed(url, "refused", now)
        elif attempts.settled(answer(outcome, url=url), now):
            break
        now += 0.01
    assert tries >= 1


def test_the_reason_a_node_gave_is_told_rather_than_a_refused_connection() -> None:
    route = Route([A, B])
    attempts = Attempts(route, 0.5, 0.0)
    attempts.next(0.0)
    assert not attempts.settled(
        answer(503, b'{"error":"2 of 3 voters are gone","code":"no_quorum"}', retry_after="1"), 0.0
    )
    attempts.failed(B, "connection refused", 0.1)
    with pytest.raises(errors.NoQuorum, match="2 of 3 voters are gone"):
        attempts.next(0.2)


def test_an_unreachable_cluster_names_every_url_and_reason() -> None:
    attempts = Attempts(Route([A, B]), 0.5, 0.0)
    attempts.next(0.0)
    attempts.failed(A, "connection refused", 0.0)
    attempts.failed(B, "timed out", 0.1)
    with pytest.raises(errors.Unreachable, match=r"http://a: connection refused; http://b: timed out"):
        attempts.next(0.2)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid", errors.Invalid),
        (401, "unauthorized", errors.Unauthorized),
        (403, "forbidden", errors.Forbidden),
        (404, "unknown_job", errors.NotFound),
        (409, "in_use", errors.Conflict),
        (413, "too_large", errors.TooLarge),
        (415, "unknown_format", errors.Invalid),
        (422, "ragged_row", errors.Invalid),
        (429, "overloaded", errors.Overloaded),
        (500, "internal", errors.ServerFault),
        (503, "not_ready", errors.Unavailable),
        (503, "no_quorum", errors.NoQuorum),
        (418, "teapot", errors.ApiError),
    ],
)
def test_statuses_become_exceptions_that_keep_what_the_api_said(
    status: int, code: str, kind: type[errors.ApiError]
) -> None:
    body = b'{"error":"row 7 has 3 fields","code":"%s","details":{"row":7}}' % code.encode()
    error = problem_of(answer(status, body, x_parvada_node="n2", retry_after="3"))
    assert type(error) is kind
    assert (error.status, error.code, error.details, error.node, error.retry_after) == (
        status,
        code,
        {"row": 7},
        "n2",
        3,
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.details) == (kind, "row 7 has 3 fields", {"row": 7})


def test_an_error_page_of_something_else_is_shown_not_hidden() -> None:
    assert "<h1>Bad gateway</h1>" in str(problem_of(answer(502, b"<h1>Bad gateway</h1>")))


@pytest.mark.parametrize(
    ("given_urls", "found"),
    [
        ("http://a:1,http://b:2", ["http://a:1", "http://b:2"]),
        ("a:1, b:2 ,", ["http://a:1", "http://b:2"]),
        (["https://a/"], ["https://a"]),
        ("", []),
    ],
)
def test_urls_are_read_as_people_write_them(given_urls: str | list[str], found: list[str]) -> None:
    assert split_urls(given_urls) == found


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="ftp://x"):
        split_urls("ftp://x")


def test_learned_nodes_never_downgrade_to_plain_http() -> None:
    session = Session("https://gate:8443", token="secret")
    session.learn([_node("10.0.0.7"), _node("fd00::1"), _node("10.0.0.8", state="dead")])
    assert session.urls == ("https://gate:8443", "https://10.0.0.7:8080", "https://[fd00::1]:8080")


def _node(address: str, state: str = "alive") -> Node:
    return Node(
        id=address,
        name="n",
        address=address,
        api_port=8080,
        role="voter",
        state=state,  # type: ignore[arg-type]
        leader=False,
        ray_head=False,
        version="0",
    )
