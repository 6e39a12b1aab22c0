"""The TLS contexts of one node: mutual, 1.3 only, and renewed in place so that listeners never close."""

import os
import ssl
import time
from collections.abc import Sequence

NOT_YET_VALID, EXPIRED = 9, 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Revoked(PermissionError):
    """The node was removed from the cluster for good."""


class Contexts:
    """Server and client contexts that trust one CA and present one leaf, the newest that was loaded."""

    def __init__(self, ca_pem: bytes, chain_pem: bytes) -> None:
        self._ca = ca_pem.decode()
        self._chain = chain_pem
        self._contexts: dict[tuple[bool, tuple[str, ...]], ssl.SSLContext] = {}

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
            _load(context, chain_pem)

    def _context(self, *, server: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
        if (known := self._contexts.get((server, alpn))) is not None:
            return known
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
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
        self._contexts[server, alpn] = context
        return context


def clock_reason(error: BaseException | None) -> str:
    """Why a handshake failed, if it was over the time: the clocks are to blame, since every node renews its leaf in
    good time. Looks through the errors that led to this one; empty for any other reason."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if (code := getattr(error, "verify_code", None)) in (NOT_YET_VALID, EXPIRED):
            what = "not yet valid" if code == NOT_YET_VALID else "expired"
            return f"its certificate is {what} by this node's clock ({now_text()}): compare the clocks of both"
        error = error.__cause__ or error.__context__
    return ""


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
