"""What the fronts answer is what they declare."""

from pathlib import Path

from serving.front import make_app
from serving.operations import OPERATIONS
from serving.service import Service
from serving.settings import FrontSettings


async def test_every_route_of_a_front_is_declared_and_every_declaration_is_a_route() -> None:
    service = Service(FrontSettings(socket=Path("agent.sock"), node="n" * 32))
    try:
        routes = make_app(service).router.routes()
        found = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    finally:
        await service.close()
    declared = {(operation.method, operation.path) for operation in OPERATIONS}
    assert found == declared | {("HEAD", path) for method, path in declared if method == "GET"}
