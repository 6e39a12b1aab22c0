"""Imports at the start of a node's processes: what is switched off for them is back afterwards."""

import gc
import os

import pytest

from parvada._startup import cheap_imports


def test_the_collector_and_the_environment_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ours.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    try:
        with cheap_imports():
            assert not gc.isenabled()
            assert os.environ["SSL_CERT_FILE"] == os.environ["SSL_CERT_DIR"] == os.devnull
        assert gc.isenabled()
        assert os.environ["SSL_CERT_FILE"] == "/etc/ours.pem"
        assert "SSL_CERT_DIR" not in os.environ
    finally:
        gc.unfreeze()
