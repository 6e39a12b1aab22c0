"""The TLS contexts of one node: mutual, 1.3 only, and renewed in place so that listeners never close."""

import os
import ssl
import time
from collections.abc import Sequence
from typing import Any

NOT_YET_VALID, EXPIRED = 9, 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

OTHER_CA = frozenset({18, 19, 20, 21})
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT and the three for a chain that does not lead to a CA that is trusted."""


class Revoked(PermissionError):
    """The node was removed from the cluster for good."""


class LiveContext(ssl.SSLContext):
    """A context that listeners and clients hold for good, while what it trusts may change: OpenSSL lets nobody take a
    CA out of a context, so from then on every handshake is that of a `successor`."""

    successor: ssl.SSLContext | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **kwargs) if self.successor is None else self.successor.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        if self.successor is not None:
            return self.successor.wrap_socket(*args, **kwargs)
        return super().wrap_socket(*args, **kwargs)


class Contexts:
    """Server and client contexts that trust some CAs and present one leaf, the newest that was loaded."""

    def __init__(self, ca_pem: bytes, chain_pem: bytes) -> None:
        self._ca = ca_pem.decode()
        self._chain = chain_pem
        self._contexts: dict[tuple[bool, tuple[str, ...]], LiveContext] = {}

    def server(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Asks for a client certificate and refuses a handshake without. One object for each `alpn`."""
        return self._context(server=True, alpn=tuple(alpn))

    def client(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Does not look at host names: the caller judges the server by its certificate's identity."""
        return self._context(server=False, alpn=tuple(alpn))

    def load(self, chain_pem: bytes) -> None:
        """Present this key and leaf (PEM) in every handshake from now on; connections that are open stay."""
        self._chain = chain_pem
        for context in self._contexts.values():
            _load(context.successor or context, chain_pem)

    def trust(self, ca_pem: bytes, chain_pem: bytes) -> None:
        """Trust these CAs (PEM) and no others in every handshake from now on, and present this key and leaf."""
        self._ca, self._chain = ca_pem.decode(), chain_pem
        for (server, alpn), context in self._contexts.items():
            context.successor = self._make(server=server, alpn=alpn)

    def _context(self, *, server: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
        if (known := self._contexts.get((server, alpn))) is not None:
            return known
        context = self._contexts[server, alpn] = self._make(server=server, alpn=alpn)
        return context

    def _make(self, *, server: bool, alpn: tuple[str, ...]) -> LiveContext:
        context = LiveContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if server:
            # No resumption: every connection shows its certificate and is judged by today's revocations.
            context.num_tickets = 0
        if alpn:
            context.set_alpn_protocols(list(alpn))
        context.load_verify_locations(cadata=self._ca)
        _load(context, self._chain)
        return context


def clock_reason(error: BaseException | None) -> str:
    """Why a handshake failed, if it was over the time: the clocks are to blame, since every node renews its leaf in
    good time. Looks through the errors that led to this one; empty for any other reason."""
    code = _verify_code(error)
    if code not in (NOT_YET_VALID, EXPIRED):
        return ""
    what = "not yet valid" if code == NOT_YET_VALID else "expired"
    return f"its certificate is {what} by this node's clock ({now_text()}): compare the clocks of both"


def secret_reason(error: BaseException | None) -> str:
    """Why a handshake failed, if the certificate there was made of another secret; empty for any other reason."""
    if _verify_code(error) not in OTHER_CA:
        return ""
    return (
        "the node there has another cluster secret than this one. If it is of this cluster, whose secret was rotated: "
        "`parvada token join` on a member prints what `parvada init --join` takes here; then start this node again"
    )


def _verify_code(error: BaseException | None) -> int | None:
    """OpenSSL's verdict on a certificate, among the errors that led to this one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(code := getattr(error, "verify_code", None), int) and code:
            return code
        error = error.__cause__ or error.__context__
    return None


def now_text() -> str:
    """This node's clock, for messages."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _load(context: ssl.SSLContext, chain_pem: bytes) -> None:
    """OpenSSL takes key and leaf by file name only: an anonymous file in memory keeps the key off the disk."""
    descriptor = os.memfd_create("parvada-leaf", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
