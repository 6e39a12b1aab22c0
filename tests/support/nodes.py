"""What all clusters under test share: asking any node over HTTP, and waiting for what the cluster should reach."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from tests.support.http import Answer, request
from tests.support.wait import wait_for


class NodeHandle(Protocol):
    """One node of a cluster under test, wherever it runs."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def alive(self) -> bool: ...

    def kill(self) -> None:
        """kill -9 of the node and all it started."""
        ...


class ClusterUnderTest:
    """Verbs over a list of nodes. Subclasses start and stop them."""

    token: str = ""
    written: int = 0
    """Log index of the newest write made through `ask`."""

    @property
    def nodes(self) -> Sequence[NodeHandle]:
        raise NotImplementedError

    @property
    def living(self) -> list[NodeHandle]:
        return [node for node in self.nodes if node.alive]

    def node(self, name: str) -> NodeHandle:
        return next(node for node in self.nodes if node.name == name)

    def ask(self, node: NodeHandle, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        answer = request(method, node.url + path, body, token=self.token, **options)
        self.written = max(self.written, int(answer.headers.get("x-parvada-index", 0)))
        return answer

    def view(self, node: NodeHandle) -> dict[str, Any]:
        """GET /v1/cluster as this node sees it."""
        return self.read(node, "/v1/cluster")

    def read(self, node: NodeHandle, path: str) -> dict[str, Any]:
        """GET what is there. A node that is not ready yet counts as one out of reach: waits go on.

        Raises:
            OSError: not to be had of this node now.
        """
        answer = self.ask(node, "GET", path, timeout=10.0)
        if answer.status == 503:
            raise ConnectionError(f"{node.name}: {answer.body}")
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.body
        return body

    # ---------------------------------------------------------------- waiting
    def wait_ready(self, timeout: float = 90.0) -> None:
        """Every living node answers /readyz with 200."""
        for node in self.living:
            said: list[object] = [None]

            def ready(node: NodeHandle = node, said: list[object] = said) -> bool:
                answer = self.ask(node, "GET", "/readyz", timeout=3.0)
                said[0] = answer.body
                return answer.status == 200

            try:
                wait_for(f"{node.name} to be ready", ready, timeout)
            except AssertionError as error:
                raise AssertionError(f"{error}; /readyz said last: {said[0]}") from None

    def wait_for_leader(self, timeout: float = 40.0, not_id: str = "") -> str:
        """The id of the leader that a majority of the living nodes agree on (another than `not_id`)."""

        def agreed() -> str | None:
            seen: dict[str, int] = {}
            living = self.living
            for node in living:
                try:
                    leader = self.view(node)["leader"]
                except (OSError, AssertionError):
                    continue
                if leader and leader != not_id:
                    seen[leader] = seen.get(leader, 0) + 1
            best = max(seen, key=seen.__getitem__, default="")
            return best if best and seen[best] * 2 > len(living) else None

        return wait_for("a leader", agreed, timeout)

    def wait_for_new_leader(self, old: str, timeout: float = 10.0) -> str:
        return self.wait_for_leader(timeout, not_id=old)

    def leader_that_trains(self) -> NodeHandle:
        """The leader, once it is the head of the epoch too: after an election in which the head lived on, it is not."""
        asked = self.living[0]
        head: str = next(node["id"] for node in self.view(asked)["nodes"] if node["ray_head"])
        if self.wait_for_leader() != head:
            answer = self.ask(asked, "POST", "/v1/cluster/transfer", {"to": head}, timeout=30.0)
            assert answer.status == 200, answer
            wait_for("the head to lead", lambda: self.wait_for_leader() == head)
        return self.by_id(head)

    def wait_for_voters(self, count: int, timeout: float = 90.0) -> None:
        wait_for(
            f"{count} voters",
            lambda: all(len(self.view(node)["voters"]) == count and self.view(node)["quorum"] for node in self.living),
            timeout,
            every=0.2,
        )

    def wait_for_ray(self, nodes: int, timeout: float = 120.0, newer_than: int = 0) -> dict[str, Any]:
        """Ray is up with that many nodes, in an epoch above `newer_than`."""

        def up() -> dict[str, Any] | None:
            ray: dict[str, Any] = self.view(self.living[0])["ray"]
            fits = ray["state"] == "up" and len(ray["nodes"]) >= nodes and ray["epoch"] > newer_than
            return ray if fits else None

        return wait_for(f"Ray on {nodes} nodes", up, timeout, every=0.2)

    def by_id(self, node_id: str) -> NodeHandle:
        """The handle of the node with this id."""

        def named() -> str | None:
            seen = self.view(self.living[0])["nodes"]
            return next((node["name"] for node in seen if node["id"] == node_id), None)

        return self.node(wait_for(f"the name of {node_id}", named))

    def wait_for_answer(self, node: NodeHandle, method: str, path: str, body: Any = None) -> Answer:
        """The first answer with status 200, e.g. from a node that is still loading."""

        def good() -> Answer | None:
            answer = self.ask(node, method, path, body, timeout=5.0)
            return answer if answer.status == 200 else None

        return wait_for(f"{method} {path} on {node.name}", good, 60)

    # ---------------------------------------------------------------- the journey
    def push(self, node: NodeHandle, name: str, content: bytes, query: str = "") -> dict[str, Any]:
        answer = self.ask(
            node, "PUT", f"/v1/datasets/{name}{query}", content, headers={"Content-Type": "text/csv"}, timeout=60.0
        )
        assert answer.status in (200, 201), answer
        pushed: dict[str, Any] = answer.body
        return pushed

    def submit(self, node: NodeHandle, spec: dict[str, Any]) -> str:
        answer = self.ask(node, "POST", "/v1/jobs", spec, timeout=60.0)
        assert answer.status == 202, answer
        return str(answer.body["id"])

    def job(self, job: str, node: NodeHandle | None = None) -> dict[str, Any]:
        """After all that was written before: another node than the one that took the job may be a little behind."""
        return self.read(node or self.living[0], f"/v1/jobs/{job}?min_index={self.written}")

    def wait_for_job(self, job: str, timeout: float = 180.0) -> dict[str, Any]:
        """The job once it has ended."""

        def ended() -> dict[str, Any] | None:
            seen = self.job(job)
            return seen if seen["state"] in ("succeeded", "failed", "cancelled") else None

        return wait_for(f"the end of job {job}", ended, timeout, every=0.2)

    def leaderboard(self, job: str) -> list[dict[str, Any]]:
        """As it is now: the node that is asked may have just come back."""
        path = f"/v1/jobs/{job}/leaderboard?consistency=linearizable"
        board = wait_for("the leaderboard", lambda: self.read(self.living[0], path))
        rows: list[dict[str, Any]] = board["rows"]
        return rows


def comparable(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What of a leaderboard must not depend on where and how often the folds ran: all but the times."""
    return [
        (row["rank"], row["estimator"], row["state"], row["metric"], row["cv_mean"], row["cv_std"], tuple(row["folds"]))
        for row in rows
    ]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
