"""Which address of this machine others should dial."""

import socket


def own_address() -> str:
    """The IPv4 address of the interface with the default route; loopback where there is none.

    A datagram socket is connected, which chooses a route and sends nothing.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: reserved, nobody is there
        except OSError:
            return _by_name()
        return str(probe.getsockname()[0])


def _by_name() -> str:
    """An internal network has no default route: the address of our own host name, else loopback."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
