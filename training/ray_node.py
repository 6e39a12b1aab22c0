"""`python -m training.ray_node …` is `ray start …` with two changes, for one node's share of a Ray cluster.

Loopback addresses stay what they are: Ray replaces 127.0.0.1 by the host's address, and its servers listen on
loopback only if their node's address is exactly 127.0.0.1. And the head starts no dashboard server (96 MB), which
`--include-dashboard=false` only empties. Both hold on to private names of Ray 2.60: where one is missing, `main`
says so at once rather than start something else than was asked for.
"""

import sys


class UnknownRay(Exception):
    """This release of Ray has not the internals that are changed here."""


def keep_loopback() -> None:
    """Let Ray take 127.0.0.1 at its word, in this process.

    Raises:
        UnknownRay: this release resolves addresses elsewhere.
    """
    from ray._private import services

    if not hasattr(services, "resolve_ip_for_localhost"):
        raise UnknownRay("ray._private.services.resolve_ip_for_localhost is gone: use a release of Ray 2.60")
    services.resolve_ip_for_localhost = _as_given


def start_no_dashboard() -> None:
    """Let a head start without the dashboard's server, in this process.

    Raises:
        UnknownRay: this release starts it elsewhere.
    """
    from ray._private.node import Node

    if not hasattr(Node, "start_api_server"):
        raise UnknownRay("ray._private.node.Node.start_api_server is gone: use a release of Ray 2.60")
    setattr(Node, "start_api_server", _start_nothing)  # noqa: B010  an assignment would not type-check


def _as_given(host: str) -> str:
    return host


def _start_nothing(_node: object, **_options: object) -> None:
    """In place of `Node.start_api_server`."""


def main() -> None:
    from ray.scripts import scripts

    keep_loopback()
    start_no_dashboard()
    sys.argv = ["ray", "start", *sys.argv[1:]]
    scripts.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
