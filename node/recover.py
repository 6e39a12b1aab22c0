"""`parvada cluster recover`: a stopped node's slot becomes the beginning of a new cluster after a majority was lost."""

import shutil
import time
import uuid
from pathlib import Path

import msgspec

from consensus.log import recovery
from consensus.log.recovery import Recovery
from consensus.ports import LogError
from consensus.state import NodeId
from node.files import fsync_folder, write_atomically
from node.identity.pki import NodeKey
from node.joining.joining import RECOVERING, ClusterRecord, read_record
from node.joining.slot import GenesisRecord, Slot, SlotError, claim


class RecoverError(Exception):
    """The slot cannot be recovered; the message says why. Nothing was changed."""


class Survivor:
    """A stopped node's slot, held so that nobody starts it meanwhile. Use it as a context."""

    def __init__(self, data: Path, number: int) -> None:
        self._data = data
        self._path = data / "slots" / str(number)
        if not (self._path / "key.pem").exists() or read_record(self._path) is None:
            raise RecoverError(f"{self._path} is not the slot of a node that belongs to a cluster")
        self._slot: Slot = _claim(data, number)
        try:
            self._record = read_record(self._path)
            self.me: NodeId = NodeKey.load_or_make(self._path / "key.pem").id
            self.cluster_id = str(uuid.uuid4())
            self.plan: Recovery = recovery.plan(self._path / "raft", self.me, self.cluster_id, time.time())
        except (LogError, OSError) as error:
            self._slot.release()
            raise RecoverError(str(error)) from error

    def __enter__(self) -> "Survivor":
        return self

    def __exit__(self, *_: object) -> None:
        self._slot.release()

    def recover(self) -> Path:
        """Do it; returns the folder with a copy of the log as it was.

        A crash on the way leaves the marker that keeps the node from starting: recover again.
        """
        assert self._record is not None  # noqa: S101  for the type checker: checked before the slot was claimed
        kept = self._keep_a_copy()
        write_atomically(self._path / RECOVERING, b"")
        recovery.put_in_place(self._path / "raft", self.plan)
        record = ClusterRecord(self.cluster_id, self.me, self._record.name, "recovered")
        write_atomically(self._path / "cluster.json", msgspec.json.encode(record))
        self._rewrite_genesis(record)
        (self._path / RECOVERING).unlink()
        fsync_folder(self._path)
        return kept

    def _keep_a_copy(self) -> Path:
        kept = self._path / f"raft.before-{self.cluster_id[:8]}"
        shutil.copytree(self._path / "raft", kept)
        return kept

    def _rewrite_genesis(self, record: ClusterRecord) -> None:
        """Else blank nodes of a shared data folder would wait for the old cluster's first node."""
        path = self._data / "genesis"
        if path.exists():
            genesis = GenesisRecord(cluster_id=record.cluster_id, node_id=self.me, name=record.name)
            write_atomically(path, msgspec.json.encode(genesis))


def _claim(data: Path, number: int) -> Slot:
    try:
        return claim(data, number, wait=0.0)
    except SlotError as error:
        raise RecoverError(str(error)) from error
