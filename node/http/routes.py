"""How a resource module declares its calls, and what its handlers share: how they commit and how they answer."""

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Required, TypedDict, TypeVar, Unpack, overload

import msgspec
from aiohttp import web
from msgspec.structs import replace

from consensus.messages import Command
from consensus.ports import Committed, Log, NoQuorum
from consensus.queries import remembers
from consensus.state import CommandId
from node.http.auth import CALLER
from node.http.context import PORTS, Ports
from node.http.errors import Refusal, invalid
from parvada.contract.kinds import Freshness
from parvada.contract.operation import Answer, Body, Example, Operation, Tag
from parvada.schema import Role

T = TypeVar("T")
Q = TypeVar("Q", bound=Freshness)
B = TypeVar("B", bound=msgspec.Struct)

MAX_KEY = 200
QUORUM_SECONDS = 2.0
"""A write waits for so long without a majority: an election, also on a busy machine, is over by then."""
QUORUM_CHECK_SECONDS = 0.1


class Route(msgspec.Struct, frozen=True):
    """A call as it is declared, and who answers it: with the request, then the query and the body where it has any."""

    operation: Operation
    handler: Callable[..., Awaitable[web.StreamResponse]]
    query: bool = False
    """Whether the handler asks for the query; that of every call is checked."""

    @property
    def method(self) -> str:
        return self.operation.method

    @property
    def path(self) -> str:
        return self.operation.path

    def at(self, path: str) -> "Route":
        """The same call on another path."""
        return replace(self, operation=replace(self.operation, path=path))


class Options(TypedDict, total=False):
    """What a declaration may say beyond path, query, body and answers; see `parvada.contract.operation.Operation`."""

    tag: Required[Tag]
    role: Role | None
    makes: str
    refuses: tuple[int, ...]
    takes: Body
    """A body that the handler reads itself."""
    optional: bool
    """The body may be empty, which is the struct's defaults."""
    examples: tuple[Example, ...]
    """Of the body."""


Method = Literal["GET", "POST", "PUT", "DELETE"]
Answered = Awaitable[web.StreamResponse]


@overload
def route(
    method: Method, path: str, *answers: Answer, **more: Unpack[Options]
) -> Callable[[Callable[[web.Request], Answered]], Route]: ...


@overload
def route(
    method: Method, path: str, *answers: Answer, query: type[Q], **more: Unpack[Options]
) -> Callable[[Callable[[web.Request, Q], Answered]], Route]: ...


@overload
def route(
    method: Method, path: str, *answers: Answer, body: type[B], **more: Unpack[Options]
) -> Callable[[Callable[[web.Request, B], Answered]], Route]: ...


def route(
    method: Method,
    path: str,
    *answers: Answer,
    query: Any = None,
    body: Any = None,
    **more: Unpack[Options],
) -> Callable[[Callable[..., Answered]], Route]:
    """Declares a call by its handler, whose docstring is the summary, and what follows its first paragraph the text."""
    takes = more.get("takes")
    if body is not None:
        takes = Body(body, required=not more.get("optional", False), examples=more.get("examples", ()))

    def declare(handler: Callable[..., Answered]) -> Route:
        summary, _, text = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
        operation = Operation(
            method=method,
            path=path,
            tag=more["tag"],
            summary=" ".join(summary.split()),
            text=" ".join(text.split()),
            role=more.get("role", "viewer"),
            query=query or Freshness,
            makes=more.get("makes", ""),
            body=takes,
            answers=answers,
            refuses=more.get("refuses", ()),
        )
        return Route(operation, handler, query is not None)

    return declare


def ports_of(request: web.Request) -> Ports:
    return request.app[PORTS]


def command_id(request: web.Request) -> CommandId | None:
    """The command id that an `Idempotency-Key` stands for: the same caller's same key on the same call."""
    key = request.headers.get("Idempotency-Key")
    if not key:
        return None
    if len(key) > MAX_KEY:
        raise invalid("Idempotency-Key", f"{key[:40]}…", f"at most {MAX_KEY} characters")
    scope = f"{request.method} {request.path}\0{request[CALLER].token}\0{key}"
    return CommandId(hashlib.sha256(scope.encode(errors="surrogateescape")).hexdigest()[:32])


def was_done(request: web.Request) -> bool:
    """Whether this very call, by its idempotency key, was committed before: what it needed may be gone since."""
    key = command_id(request)
    return key is not None and remembers(ports_of(request).log.state, key)


def key_reused(what: str) -> Refusal:
    """409: the key's first call was about something else, or what it made is gone."""
    return Refusal(409, "conflict", f"this Idempotency-Key was used before, and {what}", {"field": "Idempotency-Key"})


async def commit(request: web.Request, command: Command) -> Committed:
    """Commit under the caller's name, once per idempotency key. Raises consensus.ports.LogError; NoQuorum already when
    the majority has been out of reach for longer than an election takes: whoever asks may do better elsewhere."""
    log = ports_of(request).log
    return await _while_majority(log, log.propose(command, actor=request[CALLER].name, command_id=command_id(request)))


async def catch_up(ports: Ports) -> None:
    """Until this node has applied all that any node had acknowledged before the call. Raises NoQuorum as `commit`."""
    await _while_majority(ports.log, ports.log.barrier())


async def _while_majority(log: Log, work: Awaitable[T]) -> T:
    working, alone = asyncio.ensure_future(work), 0.0
    try:
        while not (await asyncio.wait({working}, timeout=QUORUM_CHECK_SECONDS))[0]:
            alone = log.status.seconds_without_quorum
            if alone > QUORUM_SECONDS:
                working.cancel()
                await asyncio.wait({working})
                break
        if working.cancelled():
            raise NoQuorum(f"not committed: no majority of the voters has been in reach for {alone:.1f} s")
        return working.result()
    finally:
        working.cancel()


def value_of(committed: Committed) -> dict[str, Any]:
    """The small JSON object that the state machine answered."""
    found: dict[str, Any] = msgspec.json.decode(committed.outcome.value) if committed.outcome.value else {}
    return found


def answer(body: object, status: int = 200, index: int | None = None) -> web.Response:
    """JSON; `index` is the log index of the write that it answers."""
    headers = {"x-parvada-index": str(index)} if index is not None else None
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )
