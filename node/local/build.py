"""The room's parts, built in one line: what the agent's own children are told and may ask."""

from collections.abc import Callable, Sequence
from pathlib import Path

from consensus.ports import Log
from consensus.state import NodeId
from node.blobs.build import Bytes
from node.config import Client
from node.local.api import Live, LocalApi, Reports
from node.local.serving_view import ViewBuilder
from node.local.view_feed import ViewFeed
from node.tasks import Tasks


class Local:
    """`api` goes into the application that serves the socket."""

    def __init__(
        self,
        config: Client,
        me: NodeId,
        log: Log,
        admin_sha256s: Callable[[], Sequence[str]],
        held: Bytes,
        reports: Reports,
        live: Live,
        tmp: Path,
    ) -> None:
        """`admin_sha256s`, `tmp`: see `ViewBuilder`, `LocalApi`."""
        self._views = ViewFeed(log, ViewBuilder(me, config.auth, admin_sha256s))
        self.api = LocalApi(log, self._views, held.store, held.transfer, held.distributor, reports, tmp, live)

    def start(self, tasks: Tasks) -> None:
        tasks.start(self._views.run(), "views")
