"""Where this node looks for places to dial: the operator's seeds, and multicast where that is on."""

from typing import TYPE_CHECKING

from discovery.peer import Peer
from discovery.sources import PeerSource, StaticSource, parse_seed
from node.config import Peers
from node.identity.pki import Identity

if TYPE_CHECKING:
    from discovery.mdns import MdnsSource

DEFAULT_SEED_PORT = 7443


def seeds(config: Peers) -> list[PeerSource]:
    """None or one source, of all seeds. Raises ValueError for one that cannot be."""
    found = [parse_seed(text, DEFAULT_SEED_PORT) for text in config.seeds]
    return [StaticSource(found)] if found else []


def multicast(config: Peers, blank: Peer, identity: Identity) -> "MdnsSource | None":
    """Announces `blank` on its own interface, or the one that is set; None if it is off."""
    if not config.mdns:
        return None
    # zeroconf is a tenth of all that a node imports: not for nothing.
    from discovery.mdns import MdnsSource

    source = MdnsSource(blank, [config.mdns_interface or blank.addresses[0]])
    source.trust(identity.fingerprints)
    return source
