"""What the library does to the process that imports it, undone."""

import socket

import pysyncobj.tcp_connection

from consensus.core import base


def test_ipv6_addresses_can_still_be_written_after_the_import() -> None:
    assert pysyncobj.tcp_connection is not None
    assert base.SYNCOBJ_SHA256
    assert socket.inet_ntop(socket.AF_INET6, bytes(15) + b"\x01") == "::1"
