"""The room's parts, built in one line: who this node is."""

from pathlib import Path

from node.config import Config
from node.identity.keyring import Keyring
from node.identity.pki import NodeKey
from node.identity.ring import RingStore


def keyring(config: Config, slot: Path, address: str) -> Keyring:
    """The CA follows from the cluster's secret (two, while it is rotated), the node's id from its own key.

    Raises SecretError.
    """
    store = RingStore(slot, config.secret_path, owned=config.storage.secret_file is None)
    return Keyring(store, NodeKey.load_or_make(slot / "key.pem"), sorted({address, "127.0.0.1"}))
