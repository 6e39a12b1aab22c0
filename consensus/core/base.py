"""PySyncObj 0.3.17 as a base class: checked to be the release that was studied, with pickle locked out, and
with those of its private attributes that `hardened` works on under readable, typed names."""

import _socket
import hashlib
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast, overload

import msgspec
import pysyncobj.journal
import pysyncobj.pickle
from pysyncobj import SyncObj, SyncObjConf, syncobj
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from consensus.core.journal import Journal
from consensus.ports import LogError
from consensus.wire.frames import Message, Propose, RequestVote, TimeoutNow, VoteGranted

SYNCOBJ_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
REGULAR, NO_OP, MEMBERSHIP = b"\x00", b"\x01", b"\x02"
"""First byte of a log entry: a command of ours, the no-op of a new leader, a change of voters."""

T = TypeVar("T")
Send = Callable[[Node, Message], bool]
__all__ = ["LibraryMismatch", "Network", "Node", "RaftBase", "Send", "Timers", "check_library", "now"]


class Timers(msgspec.Struct, frozen=True):
    """Raft's times in seconds."""

    heartbeat: float = 0.1
    election_min: float = 0.4
    election_max: float = 0.8
    quorum: float = 1.0
    """A leader that has not heard from a majority for so long steps down."""


class Network(Protocol):
    """Where messages go. They leave only after the journal was synced."""

    def send(self, peer: str, message: Message) -> bool:
        """False when the peer is not connected."""
        ...

    def backlog(self, peer: str) -> int:
        """Bytes that wait to be sent to the peer."""
        ...


class LibraryMismatch(LogError):
    """The installed pysyncobj is not the release whose private methods are overridden."""


def check_library() -> None:
    """Raises LibraryMismatch unless `syncobj.py` is, byte for byte, the file that was studied and tested."""
    digest = hashlib.sha256(Path(syncobj.__file__).read_bytes()).hexdigest()
    if digest != SYNCOBJ_SHA256:
        raise LibraryMismatch(
            f"pysyncobj/syncobj.py has SHA-256 {digest}, expected {SYNCOBJ_SHA256} (pysyncobj 0.3.17): "
            "its private methods are overridden, so no other release is safe. Install pysyncobj==0.3.17."
        )


# Importing pysyncobj 0.3.17 puts a function that only works on Windows in the place of this one (win_inet_pton.py,
# last line), for the whole process: IPv6 addresses could not be written any more.
socket.inet_ntop = _socket.inet_ntop


def now() -> float:
    """Seconds on the library's monotonic clock, looked up at each call: a simulator replaces it."""
    return cast(float, syncobj.monotonicTime())


def _no_pickle(*_args: object, **_kwargs: object) -> NoReturn:
    raise RuntimeError("pickle is locked out: nothing here is ever pickled or unpickled")


def _lock_out_pickle() -> None:
    for name in ("load", "loads", "dump", "dumps"):
        setattr(pysyncobj.pickle, name, _no_pickle)
    pysyncobj.journal.loads = pysyncobj.journal.dumps = _no_pickle


_lock_out_pickle()
# The library makes its journal from a file name in its configuration: ours is handed through that setting.
syncobj.createJournal = lambda journal: journal


class Hidden(Generic[T]):
    """A private attribute of SyncObj (`_SyncObj__name`) under a name of ours."""

    def __init__(self, name: str) -> None:
        self._name = f"_SyncObj__{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> "Hidden[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "Hidden[T] | T":
        if instance is None:
            return self
        # The library's constructor walks over all attributes, also those that it has not set yet.
        return cast(T, instance.__dict__.get(self._name))

    def __set__(self, instance: object, value: T) -> None:
        instance.__dict__[self._name] = value


class _NoPoller:
    """The library polls its sockets each tick; it has none, the transport is ours."""

    def poll(self, timeout: float) -> None:
        pass


class _LibraryTransport(Transport):  # type: ignore[misc]  # the library is untyped
    """Takes the few messages that the library itself still makes, as structs of the wire."""

    def __init__(self, send: Send) -> None:
        super().__init__(None, None, None)
        self._send = send

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        return self._send(node, _from_engine(message))


def _from_engine(message: dict[str, Any]) -> Message:
    match message["type"]:
        case "request_vote":
            return RequestVote(message["term"], message["last_log_index"], message["last_log_term"])
        case "response_vote":
            return VoteGranted(message["term"])
        case "timeout_now":
            return TimeoutNow(message["term"])
        case "apply_command":
            return Propose(message["command"])
        case other:
            raise AssertionError(f"the library sent {other!r}, which is replaced here")


def _library_conf(journal: Journal, timers: Timers) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,
        journalFile=journal,
        raftMinTimeout=timers.election_min,
        raftMaxTimeout=timers.election_max,
        appendEntriesPeriod=timers.heartbeat,
        leaderFallbackTimeout=timers.quorum,
        connectionTimeout=timers.election_max,
        commandsQueueSize=10_000,
        # Without a leader a command is dropped, not kept: whoever proposed it repeats it under the same id.
        commandsWaitLeader=False,
        useFork=False,
    )


class RaftBase(SyncObj):  # type: ignore[misc]  # the library is untyped
    """SyncObj with names. Voters other than this node are `others`, all further connected peers `learners`."""

    log = Hidden[Journal]("raftLog")
    role = Hidden[int]("raftState")
    term = Hidden[int]("raftCurrentTerm")
    leader = Hidden[Node | None]("raftLeader")
    others = Hidden[set[Node]]("otherNodes")
    learners = Hidden[set[Node]]("readonlyNodes")
    connected = Hidden[set[Node]]("connectedNodes")
    commit_index = Hidden[int]("raftCommitIndex")
    applied_index = Hidden[int]("raftLastApplied")
    next_index = Hidden[dict[Node, int]]("raftNextIndex")
    match_index = Hidden[dict[Node, int]]("raftMatchIndex")
    heard_at = Hidden[dict[Node, float]]("lastResponseTime")
    election_deadline = Hidden[float]("raftElectionDeadline")
    heartbeat_deadline = Hidden[float]("newAppendEntriesTime")
    handing_over = Hidden[bool]("transferInProgress")
    """This node was told to take over and has not stood for election yet."""
    no_op_index = Hidden[int | None]("noopIDx")

    voter = False
    """Whether this node is in its own configuration. Only voters stand for election."""

    def __init__(self, me: str, journal: Journal, timers: Timers, send: Send, rng: random.Random) -> None:
        check_library()
        self.me = me
        self._rng = rng
        conf, transport = _library_conf(journal, timers), _LibraryTransport(send)
        super().__init__(Node(me), [], conf, transport=transport, nodeClass=Node)
        self._poller = _NoPoller()

    @property
    def is_leader(self) -> bool:
        return self.role == LEADER

    @property
    def last_index(self) -> int:
        return self.log[-1][1]

    @property
    def last_term(self) -> int:
        return self.log[-1][2]

    def adopt_term(self, term: int) -> None:
        """A newer term was seen: become a follower in it, without a vote."""
        self._SyncObj__setCurrentTerm(term, None)
        self.become_follower()

    def become_follower(self) -> None:
        self._SyncObj__setState(FOLLOWER)
        self.leader = None

    def begin_election_timeout(self) -> None:
        self.election_deadline = now() + self.election_timeout()

    def begin_heartbeat_period(self) -> None:
        self.heartbeat_deadline = now() + cast(float, self.conf.appendEntriesPeriod)

    def set_commit(self, index: int) -> None:
        self.commit_index = index
        self.log.setRaftCommitIndex(index)

    def engine_receives(self, node: Node, message: dict[str, Any]) -> None:
        """The library's own handling of a message."""
        SyncObj._SyncObj__onMessageReceived(self, node, message)

    def engine_ticks(self) -> None:
        SyncObj._onTick(self, 0.0)

    def election_timeout(self) -> float:
        """A random election timeout in seconds."""
        return self._rng.uniform(self.conf.raftMinTimeout, self.conf.raftMaxTimeout)

    # ---- the library calls these by their private names
    def _SyncObj__generateRaftTimeout(self) -> float:
        return self.election_timeout()

    def _SyncObj__onSetCodeVersion(self, version: int) -> None:
        """No methods are replicated through the library, so none has versions."""
