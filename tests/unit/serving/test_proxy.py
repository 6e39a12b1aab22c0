"""No spelling of a path leads from the client port to the calls that are for the agent's own children."""

import pytest

from serving.proxy import is_private


@pytest.mark.parametrize(
    "path",
    [
        "/local/view",
        "/local",
        "//local/propose",
        "/./local/propose",
        "/%6cocal/propose",
        "/%256cocal/propose",
        "/LOCAL/propose",
        "/v1/../local/propose",
        "/v1/%2e%2e/local/propose",
        "/v1%2f..%2flocal/propose",
        "/%2flocal/propose",
        "/\\local/propose",
    ],
)
def test_private(path: str) -> None:
    assert is_private(path)


@pytest.mark.parametrize(
    "path", ["/v1/cluster", "/metrics", "/", "/v1/datasets/local", "/v1/datasets/a%2Eb", "/locals"]
)
def test_public(path: str) -> None:
    assert not is_private(path)
