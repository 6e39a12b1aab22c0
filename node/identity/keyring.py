"""What follows from the secrets that a node goes by: its TLS identity, the admin tokens it takes, Ray's credentials."""

import asyncio
import hashlib
import hmac
from collections.abc import Container, Sequence

from consensus.state import NodeId
from node import logs
from node.identity.pki import Authority, Identity, NodeKey
from node.identity.ring import Ring, RingStore
from node.identity.rotation_plan import Held
from node.identity.secret import SecretError, digest_of

log = logs.get("node.identity.keyring")


class Keyring:
    """One or two secrets. What changes is durable before it is used; one caller at a time."""

    def __init__(self, store: RingStore, key: NodeKey, ips: Sequence[str]) -> None:
        self._store = store
        self._ring = store.load()
        self._authorities = {secret: Authority.from_secret(secret) for secret in self._ring.secrets}
        self._revoked: Container[NodeId] = ()
        first, *also = self._in_order()
        self.identity = Identity(first, key, ips, revoked=lambda node: node in self._revoked, also=also)
        self._derive()

    @property
    def held(self) -> Held:
        return self._held

    @property
    def admin_sha256s(self) -> tuple[str, ...]:
        """Hashes of the admin tokens that this node takes; the same object until they change."""
        return self._admin_sha256s

    @property
    def token_seeds(self) -> tuple[bytes, ...]:
        """What the texts of API tokens are made from, the newest first."""
        return self._token_seeds

    def revoke(self, nodes: Container[NodeId]) -> None:
        """All whose certificates are worth nothing from here on, by the cluster's log."""
        self._revoked = nodes

    def secret_with(self, digest: str) -> bytes | None:
        return self._by_digest.get(digest)

    def authority_with(self, digest: str) -> Authority:
        """Of the secret with this digest; empty for the first of the cluster, which is then the older one here.

        Raises SecretError if this node does not have it (any more).
        """
        secret = self._ring.current if not digest else self._by_digest.get(digest)
        if secret is None:
            raise SecretError(
                f"the secret {digest[:16]} of this epoch is not kept any more: the next epoch has another"
            )
        return self._authorities[secret]

    # ------------------------------------------------------------ changes
    async def prepare(self, coming: bytes) -> None:
        """Keep it durably and trust both. Raises OSError, SecretError."""
        self._authorities[coming] = await asyncio.to_thread(Authority.from_secret, coming)
        await self._change(self._ring.preparing(coming))

    async def present(self) -> None:
        """Present the coming one from here on, as will all that start from the secret's file. Raises OSError."""
        await self._change(self._ring.presenting())
        try:
            await asyncio.to_thread(self._store.publish, self._ring)
        except (OSError, SecretError) as error:
            log.warning("secret.file_not_replaced", reason=str(error))

    async def retire(self) -> None:
        """Keep and trust the presented one alone. Raises OSError."""
        ring = self._ring.retiring() if self._ring.presents_coming else self._ring.abandoning()
        await self._change(ring)
        try:
            await asyncio.to_thread(self._store.settle, ring)
        except (OSError, SecretError) as error:
            log.warning("secret.file_not_replaced", reason=str(error))

    async def _change(self, ring: Ring) -> None:
        await asyncio.to_thread(self._store.save, ring)
        self._ring = ring
        self._authorities = {secret: self._authorities[secret] for secret in ring.secrets}
        first, *also = self._in_order()
        self.identity.use(first, also)
        self._derive()

    def _in_order(self) -> list[Authority]:
        return [self._authorities[secret] for secret in self._ring.secrets]

    def _derive(self) -> None:
        self._by_digest = {digest_of(secret): secret for secret in self._ring.secrets}
        presented, *also = self._by_digest
        self._held = Held(presented, also[0] if also else "")
        tokens = [authority.admin_token().encode() for authority in self._in_order()]
        self._admin_sha256s = tuple(hashlib.sha256(token).hexdigest() for token in tokens)
        self._token_seeds = tuple(hmac.digest(token, b"texts of tokens", "sha256") for token in tokens)
