"""A node's own key and certificates: its side of every mutual TLS connection, and its judgement of the other side.

A node's identity is the hash of its own long-lived key. Whoever knows the secret may bring in a new node, but cannot
pass for one that exists. With `node.identity.authority` the only module that imports `cryptography`.
"""

import contextlib
import functools
import hashlib
import random
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consensus.state import NodeId
from node import logs
from node.files import write_atomically
from node.identity.authority import Authority, spki, utc_now
from node.identity.secret import SecretError, load_secret, make_secret
from node.identity.tls import Contexts, Revoked, now_text

__all__ = ["Authority", "Identity", "NodeKey", "RayCredentials", "SecretError", "load_secret", "make_secret"]

log = logs.get("node.identity.pki")

DNS_NAME = "node.parvada.internal"
LEAF_LIFETIME = timedelta(hours=24)
RAY_LIFETIME = timedelta(days=90)
"""Ray reads its certificate once, at its start; an epoch older than 60 days is renewed when idle."""
KNOWN_CERTIFICATES = 1024
RENEW_BETWEEN = (0.5, 0.8)
"""Share of its lifetime at which a leaf is renewed, by lot: nodes started together do not renew together."""


class NodeKey:
    """A node's long-lived key pair. `id` is what the cluster knows the node by: 32 digits of the hash of its key."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.id = _node_id(private.public_key())

    @classmethod
    def generate(cls) -> "NodeKey":
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load_or_make(cls, path: Path) -> "NodeKey":
        """The key in the file (PEM, mode 0600); made, durably, if there is none.

        Raises SecretError if the file holds something else: with a new key this would be another node.
        """
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            made = cls.generate()
            write_atomically(path, _key_pem(made.private), mode=0o600)
            return made
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise SecretError(
                f"{path} is not this node's key any more: restore it, or remove its slot's folder"
            ) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise SecretError(f"{path} holds a key of another kind than P-256")
        return cls(private)


class RayCredentials(msgspec.Struct, frozen=True):
    """What Ray gets for one epoch: PEM files, and a token (64 characters) that all nodes of the epoch share."""

    cert_pem: bytes
    key_pem: bytes
    ca_pem: bytes
    token: str

    def __repr__(self) -> str:
        return "RayCredentials(...)"


class _Presented(msgspec.Struct, frozen=True):
    """A certificate of ours: whose, and from when to when."""

    node: NodeId
    not_before: datetime
    not_after: datetime


def _examiner(trusted: tuple[Authority, ...]) -> Callable[[bytes], _Presented]:
    """Remembers those that it did not refuse: the same few certificates come again with every request. Whoever trusts
    others takes a new one, so that nothing judged before is found in it."""
    return functools.lru_cache(KNOWN_CERTIFICATES)(functools.partial(_examine, trusted))


def _examine(trusted: tuple[Authority, ...], der: bytes) -> _Presented:
    """What is true of these bytes at any time, for whoever trusts these authorities. Raises PermissionError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        authority = _issuer(trusted, certificate)
        key = certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except Exception as error:  # the fence to hostile bytes: whatever the parser says, it is a refusal
        raise PermissionError(f"not a certificate of this cluster: {type(error).__name__}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PermissionError("the peer's key is of another kind than ours")
    node = _node_id(key)
    if uris != [authority.spiffe_id(node)]:
        raise PermissionError("the identity in the peer's certificate is not the hash of its key")
    return _Presented(node, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _issuer(trusted: tuple[Authority, ...], certificate: x509.Certificate) -> Authority:
    """Whose it is, of those that are trusted. Raises what `cryptography` says of the last that was tried."""
    for authority in trusted[:-1]:
        with contextlib.suppress(InvalidSignature, ValueError, TypeError):
            certificate.verify_directly_issued_by(authority.certificate)
            return authority
    certificate.verify_directly_issued_by(trusted[-1].certificate)
    return trusted[-1]


class Identity:
    """This node's side of every mutual TLS connection, and its judgement of the other side."""

    def __init__(
        self,
        authority: Authority,
        key: NodeKey,
        ips: Sequence[str],
        dns: Sequence[str] = (),
        revoked: Callable[[NodeId], bool] = lambda _: False,
        also: Sequence[Authority] = (),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`now` is this node's wall clock: it dates leaves, and judges those of others."""
        self.id = key.id
        self._now = now
        self._authority = authority
        self._trusted = (authority, *also)
        self._examine = _examiner(self._trusted)
        self._key = key
        self._ips = tuple(ips)
        self._dns = (DNS_NAME, *dns)
        self._revoked = revoked
        self._leaf = self.issue()
        self._renew_at = _renewal_time(self._leaf, self._now())
        self._contexts = Contexts(self._cas_pem(), self._chain_pem())

    @property
    def fingerprint(self) -> str:
        """Of the CA of the leaf that this node presents."""
        return self._authority.fingerprint

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of all CAs that it trusts: two while the cluster's secret is rotated."""
        return frozenset(authority.fingerprint for authority in self._trusted)

    def use(self, authority: Authority, also: Sequence[Authority] = ()) -> None:
        """Present a leaf of `authority` and trust it, `also` these, and no others; open connections stay, but those
        who opened them are judged anew by `identify`."""
        self._authority, self._trusted = authority, (authority, *also)
        self._examine = _examiner(self._trusted)
        self._leaf = self.issue()
        self._renew_at = _renewal_time(self._leaf, self._now())
        self._contexts.trust(self._cas_pem(), self._chain_pem())

    def issue(self) -> x509.Certificate:
        """A new leaf for this node's present addresses: 24 hours, 0.3 ms."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(self._authority.spiffe_id(self.id))]
        names += [x509.DNSName(name) for name in self._dns]
        names += [x509.IPAddress(ip_address(ip)) for ip in self._ips]
        return self._authority.issue(self._key.private.public_key(), self.id, names, LEAF_LIFETIME, self._now())

    def server_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """TLS 1.3 only, client certificate required. One object for each `alpn`, so that `renew` reaches it."""
        return self._contexts.server(alpn)

    def client_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """TLS 1.3 only. Who the server is says `identify`, not its host name."""
        return self._contexts.client(alpn)

    def renew(self, ips: Sequence[str] | None = None) -> None:
        """Put a new leaf (for other addresses, if given) into all contexts; open connections stay."""
        if ips is not None:
            self._ips = tuple(ips)
        self._leaf = self.issue()
        self._renew_at = _renewal_time(self._leaf, self._now())
        self._contexts.load(self._chain_pem())
        log.info("certificate.renewed", until=self._leaf.not_valid_after_utc.isoformat())

    def renew_if_due(self) -> bool:
        """To be called each minute: by the wall clock, so that a clock set forward heals at the next call."""
        now = self._now()
        if self._leaf.not_valid_before_utc <= now < self._renew_at:
            return False
        self.renew()
        return True

    def identify(self, der: bytes | None) -> NodeId:
        """The id of the node that presented this certificate (DER, None if it presented none).

        Raises PermissionError, with the reason, unless it is ours, in force, names exactly the presented key and
        is not revoked (Revoked). Complete in itself: it does not rely on what the TLS context has checked.
        """
        if not der:
            raise PermissionError("the peer presented no certificate")
        presented = self._examine(der)
        if not presented.not_before <= self._now() <= presented.not_after:
            raise PermissionError(f"its certificate is expired or not yet valid at {now_text()}: compare the clocks")
        if self._revoked(presented.node):
            raise Revoked(f"node {presented.node} is revoked")
        return presented.node

    def ray_credentials(
        self, epoch: int, cluster_id: str, ips: Sequence[str], authority: Authority | None = None
    ) -> RayCredentials:
        """A leaf and the token for this node's Ray in one epoch: a worker of an older epoch has another token. All
        nodes of an epoch must take them from the same `authority`; by default it is that of this node's own leaf.

        The leaf has a key of its own and no SPIFFE URI: stolen from Ray, it does not pass for this node.
        """
        authority = authority or self._authority
        private = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(DNS_NAME)]
        names += [x509.IPAddress(ip_address(ip)) for ip in ips]
        leaf = authority.issue(private.public_key(), f"ray {self.id[:16]}", names, RAY_LIFETIME, self._now())
        return RayCredentials(
            cert_pem=leaf.public_bytes(serialization.Encoding.PEM),
            key_pem=_key_pem(private),
            ca_pem=authority.ca_pem,
            token=authority.derive(f"ray-token/{cluster_id}/{epoch}", 32).hex(),
        )

    def _cas_pem(self) -> bytes:
        return b"".join(authority.ca_pem for authority in self._trusted)

    def _chain_pem(self) -> bytes:
        return _key_pem(self._key.private) + self._leaf.public_bytes(serialization.Encoding.PEM)


def _renewal_time(leaf: x509.Certificate, now: datetime) -> datetime:
    share = random.uniform(*RENEW_BETWEEN)  # noqa: S311 - spreads load, protects nothing
    return now + (leaf.not_valid_after_utc - now) * share


def _node_id(key: ec.EllipticCurvePublicKey) -> NodeId:
    return NodeId(hashlib.sha256(spki(key)).hexdigest()[:32])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
