"""A band whose cluster secret is replaced: how far that is, and how to hold it there."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support import node_logs
from tests.support.band import Band, BandNode
from tests.support.wait import wait_for

HANDOVER: Final = "PARVADA_HANDOVER_SECONDS"


class Rotating(Band):
    """Whose secret is replaced; some nodes are given settings of their own."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count, {HANDOVER: "0.5"})
        self.settings: dict[int, dict[str, str]] = {}
        self.paused: list[BandNode] = []

    def environment_of(self, node: BandNode) -> dict[str, str]:
        return super().environment_of(node) | self.settings.get(node.number, {})

    def give_secret(self, node: BandNode, secret: bytes) -> None:
        """From its next start on, in a file of its own: as on a host that shares no folder with the others."""
        path = self.data.parent / f"secret-of-{node.name}"
        path.write_text(secret.hex())
        path.chmod(0o600)
        self.settings[node.number] = {"PARVADA_SECRET_FILE": str(path)}

    def pause(self, node: BandNode) -> None:
        """It stands still, holds up the phase that it is in, and is not asked for anything."""
        node.pause()
        self.paused.append(node)

    def resume(self, node: BandNode) -> None:
        node.resume()
        self.paused.remove(node)

    def keep_a_token(self) -> None:
        """One of an admin, which does not follow from the secret."""
        made = self.ask(self.living[0], "POST", "/v1/tokens", {"name": "tester", "role": "admin"})
        assert made.status == 201, made
        self.token = made.body["token"]

    def rotation(self) -> dict[str, Any]:
        """As the first node that answers sees it."""
        for node in [node for node in self.living if node not in self.paused]:
            with contextlib.suppress(OSError):
                return self.read(node, "/v1/cluster/secret")
        raise ConnectionError("no node answers")

    def waiting(self) -> set[str]:
        """The names of the nodes that have not done yet what the phase asks."""
        found = self.rotation()
        return {node["name"] for node in found["nodes"] if not node["done"]} if found["phase"] != "settled" else set()

    def wait_until_held(self, phase: str, node: BandNode) -> None:
        """The rotation is in this phase and stays there for as long as `node` stands still or is away: it alone has not
        done what the phase asks."""
        wait_for(f"all but {node.name} to have done {phase}", lambda: self.held(phase) == {node.name}, 60)

    def held(self, phase: str) -> set[str]:
        return self.waiting() if self.phase() == phase else set()

    def phase(self) -> str:
        with contextlib.suppress(OSError):
            return str(self.rotation()["phase"])
        return ""

    def settled(self, generation: int) -> bool:
        """On every living node."""
        with contextlib.suppress(OSError):
            seen = [self.read(node, "/v1/cluster/secret") for node in self.living]
            return all((each["phase"], each["generation"]) == ("settled", generation) for each in seen)
        return False

    def begin(self, node: BandNode) -> None:
        """Retried under one key, as a client would."""
        headers = {"Idempotency-Key": secrets.token_hex(8)}

        def begun() -> bool:
            return self.ask(node, "POST", "/v1/cluster/secret/rotate", headers=headers, timeout=10.0).status == 202

        wait_for("the rotation to begin", begun, 40)


@contextlib.contextmanager
def rotating(folder: Path) -> Iterator[Rotating]:
    """Three nodes that vote, and room for two more."""
    made = Rotating(folder, 5)
    with node_logs.shown(folder):
        try:
            made.grow(3)
            made.settle(3, 3)
            made.keep_a_token()
            yield made
        finally:
            made.stop()
