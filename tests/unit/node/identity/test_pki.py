"""Who gets in: real handshakes on loopback between identities made by `node.identity.pki`."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from consensus.state import NodeId
from node.identity.pki import DNS_NAME, Authority, Identity, NodeKey, SecretError
from node.identity.tls import Contexts, Revoked

SECRET = bytes(range(32))
IPS = ("127.0.0.1",)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.from_secret(SECRET)


@pytest.fixture
def alice(authority: Authority) -> Identity:
    return Identity(authority, NodeKey.generate(), IPS)


@pytest.fixture
def bob(authority: Authority) -> Identity:
    return Identity(authority, NodeKey.generate(), IPS)


class Door:
    """A listener that says "hello, ID" to whom `identify` lets in, and keeps what it found."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.refusals: list[str] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            der = writer.get_extra_info("ssl_object").getpeercert(True)
            writer.write(f"hello, {self.identity.identify(der)}\n".encode())
            await writer.drain()
            await reader.read(1)
        except PermissionError as refusal:
            self.refusals.append(str(refusal))
        finally:
            writer.close()


@asynccontextmanager
async def door(identity: Identity) -> AsyncIterator[Door]:
    opened = Door(identity)
    # Handshakes that fail are what these tests are about: the loop shall not report them as leaks.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    server = await asyncio.start_server(opened.answer, "127.0.0.1", 0, ssl=identity.server_context())
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), 30)


async def knock(port: int, context: ssl.SSLContext, identify: Identity | None = None) -> str:
    """What the listener says; raises SSLError, ConnectionError or PermissionError if one side refuses the other."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, ssl=context), 30)
    try:
        if identify is not None:
            identify.identify(writer.get_extra_info("ssl_object").getpeercert(True))
        # In TLS 1.3 the client is done before the server has judged it: only an answer proves that it was let in.
        line = await asyncio.wait_for(reader.readline(), 30)
    finally:
        writer.close()
    if not line:
        raise ConnectionError("closed without an answer")
    return line.decode().strip()


async def refused(opened: Door, context: ssl.SSLContext) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await knock(opened.port, context)


def presenting(authority: Authority, key: NodeKey, leaf: x509.Certificate) -> ssl.SSLContext:
    """A client that presents `leaf`, whatever it says, and is otherwise like ours."""
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Contexts(authority.ca_pem, pem + leaf.public_bytes(serialization.Encoding.PEM)).client()


def uri(text: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(text)]


def test_two_nodes_derive_the_same_authority(tmp_path: Path, authority: Authority) -> None:
    """In another process, from the file: same key, same name, same tokens."""
    (tmp_path / "secret").write_text(SECRET.hex())
    (tmp_path / "secret").chmod(0o600)
    code = (
        "import sys, pathlib; from node.identity.pki import *\n"
        "a = Authority.from_secret(load_secret(pathlib.Path(sys.argv[1])))\n"
        "sys.stdout.write(a.fingerprint + ' ' + a.admin_token() + ' ' + a.certificate.subject.rfc4514_string())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "secret")], capture_output=True, text=True, check=True, timeout=30
    )
    subject = authority.certificate.subject.rfc4514_string()
    assert result.stdout == f"{authority.fingerprint} {authority.admin_token()} {subject}"
    assert Authority.from_secret(bytes(32)).fingerprint != authority.fingerprint


async def test_nodes_of_one_secret_know_each_other(alice: Identity, bob: Identity) -> None:
    async with door(alice) as opened:
        assert await knock(opened.port, bob.client_context(), identify=bob) == f"hello, {bob.id}"
        assert opened.refusals == []


async def test_leaf_holds_under_python_3_13_defaults(alice: Identity, bob: Identity, authority: Authority) -> None:
    """`create_default_context` of 3.13 is strict, and a client that does look at host names finds ours."""
    context = bob.client_context()
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    checking = ssl.create_default_context(cadata=authority.ca_pem.decode())
    checking.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    async with door(alice) as opened:
        for name in ("127.0.0.1", DNS_NAME):
            connection = asyncio.open_connection("127.0.0.1", opened.port, ssl=checking, server_hostname=name)
            _, writer = await asyncio.wait_for(connection, 30)
            writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", opened.port, ssl=checking, server_hostname="127.0.0.9")


async def test_without_certificate_refused(alice: Identity, authority: Authority) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=authority.ca_pem.decode())
    async with door(alice) as opened:
        await refused(opened, bare)
        assert opened.refusals == []  # not even asked: the handshake failed


async def test_old_tls_refused(alice: Identity, bob: Identity) -> None:
    old = bob.client_context(alpn=("old",))
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with door(alice) as opened:
        await refused(opened, old)


async def test_other_secret_refused_on_both_sides(alice: Identity) -> None:
    other = Authority.from_secret(b"x" * 32)
    mallory = Identity(other, NodeKey.generate(), IPS)
    async with door(alice) as opened:
        with pytest.raises(ssl.SSLCertVerificationError):
            await knock(opened.port, mallory.client_context())
        trusting = mallory.client_context()
        trusting.verify_mode = ssl.CERT_NONE
        await refused(opened, trusting)


async def test_expired_refused_by_handshake_and_by_identify(alice: Identity, authority: Authority) -> None:
    key = NodeKey.generate()
    leaf = authority.issue(key.private.public_key(), key.id, uri(authority.spiffe_id(key.id)), timedelta(minutes=-1))
    async with door(alice) as opened:
        await refused(opened, presenting(authority, key, leaf))
    with pytest.raises(PermissionError, match="expired"):
        alice.identify(leaf.public_bytes(serialization.Encoding.DER))


async def test_not_yet_valid_refused(alice: Identity, authority: Authority) -> None:
    early = Identity(authority, NodeKey.generate(), IPS, now=lambda: datetime.now(UTC) + timedelta(hours=1))
    async with door(alice) as opened:
        await refused(opened, early.client_context())


async def test_holder_of_the_secret_cannot_pass_for_another_node(
    alice: Identity, bob: Identity, authority: Authority
) -> None:
    mine = NodeKey.generate()
    forged = authority.issue(mine.private.public_key(), bob.id, uri(authority.spiffe_id(bob.id)), timedelta(hours=1))
    async with door(alice) as opened:
        await refused(opened, presenting(authority, mine, forged))
        assert opened.refusals == ["the identity in the peer's certificate is not the hash of its key"]


async def test_revoked_refused_and_only_from_then_on(authority: Authority, bob: Identity) -> None:
    revoked: set[NodeId] = set()
    alice = Identity(authority, NodeKey.generate(), IPS, revoked=revoked.__contains__)
    async with door(alice) as opened:
        assert await knock(opened.port, bob.client_context()) == f"hello, {bob.id}"
        revoked.add(bob.id)
        await refused(opened, bob.client_context())
        assert opened.refusals == [f"node {bob.id} is revoked"]


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://0123456789abcdef.parvada/node/{id}"],  # another trust domain
        ["{own}", "spiffe://elsewhere/node/1"],
        ["{own}", "{own}"],
        ["{own}/more"],
        [],
    ],
)
async def test_names_must_be_exactly_one_of_ours(alice: Identity, authority: Authority, uris: list[str]) -> None:
    key = NodeKey.generate()
    own = authority.spiffe_id(key.id)
    names: list[x509.GeneralName] = [x509.DNSName(DNS_NAME)]
    names += [x509.UniformResourceIdentifier(text.format(id=key.id, own=own)) for text in uris]
    leaf = authority.issue(key.private.public_key(), key.id, names, timedelta(hours=1))
    async with door(alice) as opened:
        await refused(opened, presenting(authority, key, leaf))
        assert len(opened.refusals) == 1


async def test_renewed_on_a_live_listener(alice: Identity, bob: Identity) -> None:
    async def serial(port: int) -> int:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=bob.client_context())
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return x509.load_der_x509_certificate(der).serial_number

    async with door(alice) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port, ssl=bob.client_context())
        before = await serial(opened.port)
        alice.renew()
        bob.renew(ips=["127.0.0.1", "10.1.2.3"])
        assert await serial(opened.port) != before
        assert await knock(opened.port, bob.client_context()) == f"hello, {bob.id}"
        # The connection from before goes on.
        assert await asyncio.wait_for(reader.readline(), 30) == f"hello, {bob.id}\n".encode()
        writer.close()


def test_renewal_is_due_at_half_to_four_fifths_and_when_the_clock_jumps(authority: Authority) -> None:
    now = start = datetime.now(UTC)
    alice = Identity(authority, NodeKey.generate(), IPS, now=lambda: now)

    def at(after: timedelta) -> bool:
        nonlocal now
        now = start + after
        return alice.renew_if_due()

    assert not at(timedelta(hours=11))
    assert at(timedelta(hours=20))
    assert not at(timedelta(hours=20))
    assert at(timedelta(hours=-1)), "a clock set back makes the leaf not yet valid for this node's own peers"
    assert at(timedelta(days=3))


def test_ray_credentials(alice: Identity, bob: Identity) -> None:
    mine = alice.ray_credentials(7, "cluster", IPS)
    assert mine.token == bob.ray_credentials(7, "cluster", IPS).token
    assert len(mine.token) == 64
    assert mine.token != alice.ray_credentials(8, "cluster", IPS).token
    assert mine.token != alice.ray_credentials(7, "other", IPS).token
    assert mine.token not in repr(mine)
    assert b"PRIVATE" not in repr(mine).encode()
    leaf = x509.load_pem_x509_certificate(mine.cert_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert leaf.not_valid_after_utc - datetime.now(UTC) > timedelta(days=89)
    with pytest.raises(PermissionError):  # Ray's leaf is no node's identity
        bob.identify(leaf.public_bytes(serialization.Encoding.DER))


def test_key_is_private_kept_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = NodeKey.load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert NodeKey.load_or_make(path).id == made.id
    assert len(made.id) == 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.pem"]
    for damaged in (b"", path.read_bytes()[:60]):
        path.write_bytes(damaged)
        with pytest.raises(SecretError, match=r"key\.pem"):
            NodeKey.load_or_make(path)
        assert path.read_bytes() == damaged


def test_self_signed_twin_of_the_authority_is_not_believed(alice: Identity, authority: Authority) -> None:
    """The name of the CA is public; a leaf "issued" by it with another key must not pass, TLS or no TLS."""
    key = NodeKey.generate()
    false = (
        x509.CertificateBuilder()
        .subject_name(authority.certificate.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key.private.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(uri(authority.spiffe_id(key.id))), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    with pytest.raises(PermissionError):
        alice.identify(false.public_bytes(serialization.Encoding.DER))


def test_who_was_let_in_before_is_judged_anew(authority: Authority) -> None:
    revoked, later = set[NodeId](), timedelta()
    alice = Identity(
        authority, NodeKey.generate(), IPS, revoked=revoked.__contains__, now=lambda: datetime.now(UTC) + later
    )
    key, newer = NodeKey.generate(), Authority.from_secret(bytes(32))
    leaf = authority.issue(key.private.public_key(), key.id, uri(authority.spiffe_id(key.id)), timedelta(hours=1))
    der = leaf.public_bytes(serialization.Encoding.DER)
    assert alice.identify(der) == key.id
    revoked.add(key.id)
    with pytest.raises(Revoked):
        alice.identify(der)
    revoked.clear()
    later = timedelta(hours=2)
    with pytest.raises(PermissionError, match="expired"):
        alice.identify(der)
    later = timedelta()
    alice.use(newer, [authority])
    assert alice.identify(der) == key.id
    alice.use(newer)
    with pytest.raises(PermissionError, match="not a certificate of this cluster"):
        alice.identify(der)


@given(st.binary(max_size=300))
def test_no_bytes_break_identify(der: bytes) -> None:
    identity = Identity(Authority.from_secret(SECRET), KEY, IPS)
    with pytest.raises(PermissionError):
        identity.identify(der)


def test_a_change_of_any_signed_byte_is_noticed() -> None:
    identity = Identity(Authority.from_secret(SECRET), KEY, IPS)
    leaf = identity.issue()
    der = leaf.public_bytes(serialization.Encoding.DER)
    signed = der.index(leaf.tbs_certificate_bytes)
    assert identity.identify(der) == identity.id
    for position in range(signed, signed + len(leaf.tbs_certificate_bytes)):
        for mask in (0x01, 0x20, 0xFF):
            damaged = der[:position] + bytes([der[position] ^ mask]) + der[position + 1 :]
            with pytest.raises(PermissionError):
                identity.identify(damaged)


KEY = NodeKey.generate()
