# Made from parvada/aio.py by `make generate`: do not edit.
"""`Client`: every call as a method that blocks, on the standard library's HTTP alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Unpack

from parvada import _calls
from parvada._body import Download, Progress
from parvada._calls import ENDED, MAX_PAGE, DownloadFormat, UploadOptions
from parvada._events import EventStream
from parvada._http import SyncSession
from parvada.errors import JobTimeout
from parvada.schema import (
    AliasChange,
    AliasMoved,
    AliasRequest,
    AuditRecord,
    Cluster,
    Dataset,
    EventRecord,
    Job,
    JobSpec,
    Leaderboard,
    Model,
    ModelVersion,
    Node,
    PredictResponse,
    Role,
    SecretRotation,
    Stats,
    TokenRecord,
    TokenRequest,
)

if TYPE_CHECKING:
    import pandas as pd


class Client(SyncSession):
    """Talks to whichever node answers; safe to share between threads.

    ```python
    with Client("http://127.0.0.1:8080", token="pvd_…") as parvada:
        parvada.upload("iris", "iris.csv", target="species")
        job = parvada.submit(job_spec("iris"))
        for job in parvada.wait_for_job(job.id): print(job.progress.fraction)
        answer = parvada.predict("iris", [{"sepal_length": 5.1, ...}])
    ```
    Every method raises `ApiError` (its subclass says which kind), `Unreachable` when no node answered in time, and
    `BadAnswer` when something that is not Parvada did.
    """

    # ------------------------------------------------------------ cluster
    def status(self, *, linearizable: bool = False) -> Cluster:
        """The cluster as one node sees it; with `linearizable`, as of now for sure (needs a quorum)."""
        return self._call(_calls.status(linearizable=linearizable))

    def ready(self) -> bool:
        """Whether the node can serve what it should."""
        return self._call(_calls.ready())

    def nodes(self) -> list[Node]:
        """All members."""
        cluster = self.status()
        return cluster.nodes

    def stats(self) -> Stats:
        """Load and latencies, merged over all nodes."""
        return self._call(_calls.stats())

    def audit(self) -> list[AuditRecord]:
        """Who changed what, newest first."""
        return self._call(_calls.audit())

    def drain(self, node: str) -> None:
        """Move work away from a node."""
        self._call(_calls.drain(node))

    def undrain(self, node: str) -> None:
        """Give a drained node work again."""
        self._call(_calls.undrain(node))

    def remove_node(self, node: str, *, force: bool = False) -> None:
        """Take a node out of the membership for good; its certificate is revoked."""
        self._call(_calls.remove_node(node, force=force))

    def transfer(self, to: str | None = None) -> None:
        """Hand the leadership over, to a given node or to any."""
        self._call(_calls.transfer(to))

    def rotation(self) -> SecretRotation:
        """How far the rotation of the cluster secret is."""
        return self._call(_calls.rotation())

    def rotate_secret(self) -> SecretRotation:
        """Begin to replace the cluster secret on all nodes; one that is under way already goes on."""
        return self._call(_calls.rotate_secret())

    def excuse_node(self, node: str) -> SecretRotation:
        """Let the rotation go on without a node (id or name), which then needs the new secret by hand."""
        return self._call(_calls.excuse_node(node))

    def abandon_rotation(self) -> SecretRotation:
        """Back to the old secret, as long as no node presents the new one."""
        return self._call(_calls.abandon_rotation())

    # ------------------------------------------------------------ datasets
    def datasets(self) -> list[Dataset]:
        """The newest version of every dataset."""
        return self._call(_calls.datasets())

    def dataset(self, name: str, version: int | None = None) -> Dataset:
        """One dataset, its newest version by default."""
        return self._call(_calls.dataset(name, version))

    def delete_dataset(self, name: str) -> None:
        """Delete all versions. Raises `Conflict` while a running job uses one."""
        self._call(_calls.delete_dataset(name))

    def upload(
        self,
        name: str,
        source: "str | Path | bytes | IO[bytes] | pd.DataFrame",
        *,
        progress: Progress | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Stream a file (path, bytes, binary file or DataFrame) into a new version of a dataset.

        Returns when the data is durable on two nodes; equal content gives the version that is there already.
        """
        body = self._upload_of(source, progress)
        try:
            return self._call(_calls.upload(name, body, options))
        finally:
            body.close()

    def download(
        self,
        name: str,
        to: str | Path,
        *,
        version: int | None = None,
        format: DownloadFormat = "parquet",  # noqa: A002
    ) -> Path:
        """Write a dataset, its newest version by default, to the file `to`, which is there once it is whole.

        Parquet keeps every type. In CSV texts are quoted and nothing else is. Raises OSError: no such folder.
        """
        path = Path(to)
        with Download(path) as file:
            self._download(_calls.content(name, version, format), file)
        return path

    # ------------------------------------------------------------ jobs
    def submit(self, spec: JobSpec, *, key: str | None = None) -> Job:
        """Start a training job (see `job_spec`). The same idempotency `key` never starts a second one."""
        return self._call(_calls.submit(spec), key)

    def jobs(self, state: str | None = None, *, prefix: str | None = None, limit: int | None = None) -> list[Job]:
        """Jobs, newest first: all of them, or those in a state, whose id begins with `prefix`, the first `limit`."""
        found: list[Job] = []
        after: str | None = None
        while limit is None or len(found) < limit:
            most = None if limit is None else min(limit - len(found), MAX_PAGE)
            page = self._call(_calls.jobs(state, prefix, most, after))
            found += page.jobs
            after = page.next
            if after is None:
                break
        return found

    def job(self, job_id: str) -> Job:
        """One job with its progress."""
        return self._call(_calls.job(job_id))

    def leaderboard(self, job_id: str, dataset: str | None = None) -> Leaderboard:
        """A job's candidates, best first; every candidate has a row, also the failed ones."""
        return self._call(_calls.leaderboard(job_id, dataset))

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what it finished stays."""
        return self._call(_calls.cancel(job_id))

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with its leaderboard; models that it made stay."""
        self._call(_calls.delete_job(job_id))

    def retry(self, job_id: str) -> Job:
        """Run the failed part of a job that has ended again."""
        return self._call(_calls.retry(job_id))

    def wait_for_job(self, job_id: str, *, timeout: float | None = None, every: float = 0.5) -> Iterator[Job]:
        """Yield the job whenever it has changed, at last in its final state. Raises `JobTimeout` after `timeout`."""
        deadline = None if timeout is None else self._clock() + timeout
        seen: Job | None = None
        while True:
            job = self.job(job_id)
            if job != seen:
                yield job
                seen = job
            if job.state in ENDED:
                return
            if deadline is not None and self._clock() + every > deadline:
                raise JobTimeout(f"job {job_id} is still {job.state} after {timeout:g} s; it runs on")
            self._sleep(every)

    # ------------------------------------------------------------ models
    def models(self) -> list[Model]:
        """All models."""
        return self._call(_calls.models())

    def model(self, name: str) -> Model:
        """One model with its versions and aliases."""
        return self._call(_calls.model(name))

    def model_version(self, name: str, version: int) -> ModelVersion:
        """Everything that is known of one version."""
        return self._call(_calls.model_version(name, version))

    def predict(
        self,
        model: str,
        data: "Sequence[Mapping[str, Any]] | bytes | pd.DataFrame",
        *,
        version: int | None = None,
        timeout: float | None = None,
    ) -> PredictResponse:
        """Predict for rows (mappings of column to value), CSV bytes with a header, or a DataFrame.

        Without a version, the `production` alias decides, else the newest one. Predictions keep the rows' order.
        """
        return self._call(_calls.predict(model, data, version, timeout))

    def promote(
        self, model: str, version: int, alias: str = "production", *, comment: str = "", expected: int | None = None
    ) -> AliasMoved:
        """Point an alias at a version on every node at once; `Conflict` if it is not at `expected` any more."""
        return self._call(
            _calls.set_alias(model, alias, AliasRequest(version=version, comment=comment, expected=expected))
        )

    def delete_alias(self, model: str, alias: str) -> None:
        """Remove an alias."""
        self._call(_calls.delete_alias(model, alias))

    def rollback(self, model: str, alias: str = "production") -> AliasMoved:
        """Point an alias back at the version before."""
        return self._call(_calls.rollback(model, alias))

    def alias_history(self, model: str, alias: str = "production") -> list[AliasChange]:
        """Every move of an alias, newest first."""
        return self._call(_calls.alias_history(model, alias))

    # ------------------------------------------------------------ access, events
    def tokens(self) -> list[TokenRecord]:
        """All tokens, without their text."""
        return self._call(_calls.tokens())

    def create_token(self, name: str, role: Role) -> TokenRecord:
        """Make a token; its text is in this answer only."""
        return self._call(_calls.create_token(TokenRequest(name=name, role=role)))

    def revoke_token(self, token_id: str) -> None:
        """Make a token worthless at once."""
        self._call(_calls.revoke_token(token_id))

    def events(
        self, since: int | None = None, kind: str | None = None, *, follow: bool = True
    ) -> Iterator[EventRecord]:
        """What happens, from log index `since` on, without end; goes on at another node when one is lost.

        Without `follow` it ends once nothing has come for half a second.
        """
        stream = EventStream(since)
        while True:
            with self._open(_calls.events(stream.last, kind, follow=follow)) as opened:
                while chunk := opened.next_chunk():
                    yield from stream.feed(chunk)
            if not follow:
                return
            stream.reconnected()
