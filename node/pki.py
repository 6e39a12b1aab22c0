"""Certificates from the cluster secret: every node derives the same CA, so there is no CA server to lose.

A node's identity is the hash of its own long-lived key. Whoever knows the secret may bring in a new node, but
cannot pass for one that exists. The only module that imports `cryptography`.
"""

import hashlib
import random
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from consensus.state import NodeId
from node import logs, secret as cluster_secret
from node.files import write_atomically
from node.secret import SecretError, load_secret, make_secret
from node.tls import Contexts, Revoked, now_text

__all__ = ["Authority", "Identity", "NodeKey", "RayCredentials", "SecretError", "load_secret", "make_secret"]

log = logs.get("node.pki")

DNS_NAME = "node.parvada.internal"
LEAF_LIFETIME = timedelta(hours=24)
RAY_LIFETIME = timedelta(days=90)
"""Ray reads its certificate once, at its start; an epoch older than 60 days is renewed when idle."""
CLOCK_SKEW = timedelta(minutes=10)
"""How far behind another node's clock may be. Ahead it may be by what is left of a leaf: 4.8 hours at least."""
RENEW_BETWEEN = (0.5, 0.8)
"""Share of its lifetime at which a leaf is renewed, by lot: nodes started together do not renew together."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Authority:
    """The CA of one cluster and all that follows from its secret: equal in every node."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # 48 bytes for a 32-byte range: the bias of the remainder is below 2^-128.
        number = int.from_bytes(self.derive("ca-p256", 48), "big") % (_P256_ORDER - 1) + 1
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        self.fingerprint = hashlib.sha256(_spki(self._key.public_key())).hexdigest()[:16]
        """First 16 hexadecimal digits of the hash of the CA's key: public, tells clusters apart."""
        self.certificate = _self_signed(self._key, self.fingerprint)
        self.ca_pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def from_secret(cls, secret: bytes) -> "Authority":
        """From 32 bytes; about 80 ms the first time in a process. Raises SecretError."""
        return cls(secret)

    def derive(self, label: str, size: int) -> bytes:
        """`size` bytes for the purpose that `label` names."""
        return cluster_secret.derive(self._secret, label, size)

    def admin_token(self) -> str:
        return cluster_secret.admin_token(self._secret)

    def join_token(self, cluster_id: str) -> str:
        return cluster_secret.encode_join_token(cluster_id, self._secret)

    def spiffe_id(self, node: str) -> str:
        """The URI that names a node. Its trust domain is this CA's fingerprint, so secrets never mix."""
        return f"spiffe://{self.fingerprint}.parvada/node/{node}"

    def issue(
        self, key: ec.EllipticCurvePublicKey, name: str, names: Sequence[x509.GeneralName], lifetime: timedelta
    ) -> x509.Certificate:
        """A leaf for both ends of a connection, valid from now (less the clock skew) for `lifetime`."""
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + lifetime)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


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


class Identity:
    """This node's side of every mutual TLS connection, and its judgement of the other side."""

    def __init__(
        self,
        authority: Authority,
        key: NodeKey,
        ips: Sequence[str],
        dns: Sequence[str] = (),
        revoked: Callable[[NodeId], bool] = lambda _: False,
    ) -> None:
        self.id = key.id
        self._authority = authority
        self._key = key
        self._ips = tuple(ips)
        self._dns = (DNS_NAME, *dns)
        self._revoked = revoked
        self._leaf = self.issue()
        self._renew_at = _renewal_time(self._leaf)
        self._contexts = Contexts(authority.ca_pem, self._chain_pem())

    def issue(self) -> x509.Certificate:
        """A new leaf for this node's present addresses: 24 hours, 0.3 ms."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(self._authority.spiffe_id(self.id))]
        names += [x509.DNSName(name) for name in self._dns]
        names += [x509.IPAddress(ip_address(ip)) for ip in self._ips]
        return self._authority.issue(self._key.private.public_key(), self.id, names, LEAF_LIFETIME)

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
        self._renew_at = _renewal_time(self._leaf)
        self._contexts.load(self._chain_pem())
        log.info("certificate.renewed", until=self._leaf.not_valid_after_utc.isoformat())

    def renew_if_due(self) -> bool:
        """To be called each minute: by the wall clock, so that a clock set forward heals at the next call."""
        now = datetime.now(UTC)
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
        try:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self._authority.certificate)
            key = certificate.public_key()
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except Exception as error:  # the fence to hostile bytes: whatever the parser says, it is a refusal
            raise PermissionError(f"not a certificate of this cluster: {type(error).__name__}") from error
        if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
            raise PermissionError(f"its certificate is expired or not yet valid at {now_text()}: compare the clocks")
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise PermissionError("the peer's key is of another kind than ours")
        node = _node_id(key)
        if uris != [self._authority.spiffe_id(node)]:
            raise PermissionError("the identity in the peer's certificate is not the hash of its key")
        if self._revoked(node):
            raise Revoked(f"node {node} is revoked")
        return node

    def ray_credentials(self, epoch: int, cluster_id: str, ips: Sequence[str]) -> RayCredentials:
        """A leaf and the token for this node's Ray in one epoch: a worker of an older epoch has another token.

        The leaf has a key of its own and no SPIFFE URI: stolen from Ray, it does not pass for this node.
        """
        private = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(DNS_NAME)]
        names += [x509.IPAddress(ip_address(ip)) for ip in ips]
        leaf = self._authority.issue(private.public_key(), f"ray {self.id[:16]}", names, RAY_LIFETIME)
        return RayCredentials(
            cert_pem=leaf.public_bytes(serialization.Encoding.PEM),
            key_pem=_key_pem(private),
            ca_pem=self._authority.ca_pem,
            token=self._authority.derive(f"ray-token/{cluster_id}/{epoch}", 32).hex(),
        )

    def _chain_pem(self) -> bytes:
        return _key_pem(self._key.private) + self._leaf.public_bytes(serialization.Encoding.PEM)


def _renewal_time(leaf: x509.Certificate) -> datetime:
    share = random.uniform(*RENEW_BETWEEN)  # noqa: S311 - spreads load, protects nothing
    return datetime.now(UTC) + (leaf.not_valid_after_utc - datetime.now(UTC)) * share


def _self_signed(key: ec.EllipticCurvePrivateKey, fingerprint: str) -> x509.Certificate:
    """The CA's certificate. Name, serial number, dates and key are the same everywhere; validation uses no more."""
    name = _common_name(f"Parvada {fingerprint}")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _node_id(key: ec.EllipticCurvePublicKey) -> NodeId:
    return NodeId(hashlib.sha256(_spki(key)).hexdigest()[:32])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
