"""Where the node is and which token to use: flag before environment before what lies around here."""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from parvada._protocol import split_urls
from parvada._session import DEFAULT_URL
from parvada.cli.exits import Failure
from parvada.cli.groups import connection_options
from parvada.cli.later import loaded

if TYPE_CHECKING:
    from parvada.client import Client

PATIENCE_SECONDS = 4.0
"""A person waits this long for another leader or node before the command says what is wrong."""
LOCAL_FLOCK = Path(".parvada")

F = TypeVar("F", bound=Callable[..., Any])


class _UpNode(msgspec.Struct):
    api_port: int


class _UpFile(msgspec.Struct):
    nodes: list[_UpNode]


class Pace(msgspec.Struct, frozen=True):
    """The time in which commands wait: monotonic seconds, and how some of them pass."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Settings(msgspec.Struct, frozen=True):
    """Where to call and how to prove who calls. `data` is the data folder with the cluster secret, if known."""

    urls: tuple[str, ...]
    token: str | None
    data: Path | None
    secret: Path | None
    pace: Pace = Pace()

    def client(self, timeout: float = 30.0, patience: float | None = None) -> "Client":
        """A blocking client for these nodes."""
        from parvada.client import Client

        patience = PATIENCE_SECONDS if patience is None else patience
        return Client(
            list(self.urls),
            self.token or self.derived_token,
            timeout=timeout,
            patience=patience,
            clock=self.pace.clock,
            sleep=self.pace.sleep,
        )

    def derived_token(self) -> str | None:
        """The admin token, from the cluster secret where that may be read; None elsewhere."""
        if self.secret is None:
            return None
        token: str = loaded("node.commands:admin_token")(self.secret, self.data)
        return token


def locate(
    environment: Mapping[str, str],
    here: Path,
    *,
    urls: Sequence[str] = (),
    token_file: Path | None = None,
    data: Path | None = None,
    pace: Pace | None = None,
) -> Settings:
    """Work out the settings. Raises ValueError for a URL that is none and OSError for a token file not there."""
    folder, stated = _data_folder(environment, here, data)
    found, known = _urls(environment, here, folder if stated else None, urls)
    secret = _secret(environment, folder)
    if not known and not stated and not all(_is_loopback(url) for url in found):
        secret = None  # the admin token of a cluster on this machine is not for another machine's ears
    return Settings(tuple(found), _token(environment, token_file), folder, secret, pace or Pace())


def _data_folder(environment: Mapping[str, str], here: Path, flag: Path | None) -> tuple[Path | None, bool]:
    """(folder, whether it was stated rather than found)."""
    if flag is not None:
        return flag, True
    if environment.get("PARVADA_DATA"):
        return Path(environment["PARVADA_DATA"]), True
    local = here / LOCAL_FLOCK
    return (local, False) if local.is_dir() else (None, False)


def _urls(environment: Mapping[str, str], here: Path, data: Path | None, flag: Sequence[str]) -> tuple[list[str], bool]:
    """(base URLs, whether they are this machine's own cluster for sure)."""
    if flag:
        return split_urls(",".join(flag)), False
    if environment.get("PARVADA_URL"):
        return split_urls(environment["PARVADA_URL"]), False
    for folder in (data, here / LOCAL_FLOCK):
        running = _running(folder) if folder is not None else []
        if running:
            return running, True
    return [f"http://127.0.0.1:{environment.get('PARVADA_PORT') or urlsplit(DEFAULT_URL).port}"], True


def _running(data: Path) -> list[str]:
    """URLs of the nodes that `parvada up` runs on this folder."""
    try:
        flock = msgspec.json.decode((data / "up.json").read_bytes(), type=_UpFile)
    except (OSError, msgspec.MsgspecError):
        return []
    return [f"http://127.0.0.1:{node.api_port}" for node in flock.nodes]


def _secret(environment: Mapping[str, str], data: Path | None) -> Path | None:
    stated = environment.get("PARVADA_SECRET_FILE")
    path = Path(stated) if stated else data / "secret" if data is not None else None
    return path if path is not None and path.is_file() else None


def _token(environment: Mapping[str, str], flag: Path | None) -> str | None:
    if flag is not None:
        return flag.read_text().strip()
    if environment.get("PARVADA_TOKEN"):
        return environment["PARVADA_TOKEN"].strip()
    if environment.get("PARVADA_TOKEN_FILE"):
        return Path(environment["PARVADA_TOKEN_FILE"]).read_text().strip()
    return None


def _is_loopback(url: str) -> bool:
    from ipaddress import ip_address

    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may lead anywhere: also 127.0.0.1.example.org


def no_secret(settings: Settings) -> Failure:
    """Of a command that needs the cluster secret itself."""
    where = settings.data or "PARVADA_DATA"
    return Failure(f"there is no cluster secret at {where}", "run this inside a node, or give its folder: --data DIR")


def connected(command: F) -> F:
    """Options of every command that calls a node; the command receives `settings`."""

    @functools.wraps(command)
    def run(*args: Any, url: tuple[str, ...], token_file: str | None, data: str | None, **kwargs: Any) -> Any:
        pace = click.get_current_context().find_object(Pace)
        token, folder = Path(token_file) if token_file else None, Path(data) if data else None
        settings = locate(os.environ, Path.cwd(), urls=url, token_file=token, data=folder, pace=pace)
        return command(*args, settings=settings, **kwargs)

    return connection_options(run)  # type: ignore[return-value]  # click's decorators keep the function


def as_json_option(command: F) -> F:
    """`--json`: the answer of the API instead of a table."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
