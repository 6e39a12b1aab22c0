"""Routes that come while the server runs: aiohttp's own table is closed when it starts."""

from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web


class Mounts(web.AbstractResource):
    """All calls below `prefix` that the application does not answer itself. `UrlDispatcher` finds them, so they are
    routes like others: variables, HEAD beside GET, 405 for another method."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix
        self._table = web.UrlDispatcher()

    def add(self, routes: Iterable[web.RouteDef]) -> None:
        self._table.add_routes(list(routes))

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        found = await self._table.resolve(request)
        if isinstance(found.http_exception, web.HTTPMethodNotAllowed):
            return None, set(found.http_exception.allowed_methods)
        return (found if found.http_exception is None else None), set()

    @property
    def canonical(self) -> str:
        return self._prefix

    def raw_match(self, path: str) -> bool:
        return False

    def add_prefix(self, prefix: str) -> None:
        raise NotImplementedError("the peer port's application is nobody's part")

    def url_for(self, **_: str) -> Any:
        raise NotImplementedError("these are several paths")

    def get_info(self) -> Any:
        return {"prefix": self._prefix}

    def __len__(self) -> int:
        return len(self._table.routes())

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(self._table.routes())
