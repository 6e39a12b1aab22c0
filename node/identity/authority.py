"""The CA of a cluster, derived from its secret: equal in every node, so there is no CA server to lose."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.identity import secret as cluster_secret

CLOCK_SKEW = timedelta(minutes=10)
"""How far behind another node's clock may be. Ahead it may be by what is left of a leaf: 4.8 hours at least."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def utc_now() -> datetime:
    return datetime.now(UTC)


class Authority:
    """The CA of one cluster and all that follows from its secret: equal in every node."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # 48 bytes for a 32-byte range: the bias of the remainder is below 2^-128.
        number = int.from_bytes(self.derive("ca-p256", 48), "big") % (_P256_ORDER - 1) + 1
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        self.fingerprint = hashlib.sha256(spki(self._key.public_key())).hexdigest()[:16]
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

    def spiffe_id(self, node: str) -> str:
        """The URI that names a node. Its trust domain is this CA's fingerprint, so secrets never mix."""
        return f"spiffe://{self.fingerprint}.parvada/node/{node}"

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        names: Sequence[x509.GeneralName],
        lifetime: timedelta,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """A leaf for both ends of a connection, valid from `now` (less the clock skew) for `lifetime`."""
        now = now or utc_now()
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


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as certificates hold it (DER): what fingerprints and node ids are hashes of."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
