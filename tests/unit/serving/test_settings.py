"""Settings that cannot be used are refused by name."""

import pytest

from serving.settings import SettingsError, read_settings

GOOD = {"PARVADA_LOCAL_SOCKET": "/run/agent.sock", "PARVADA_NODE_ID": "a" * 32}


def test_defaults() -> None:
    settings = read_settings(GOOD | {"PARVADA_MAX_PREDICT_MB": "2"})
    assert (settings.host, settings.port, settings.auth) == ("0.0.0.0", 8080, "writes")
    assert settings.max_predict_bytes == 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARVADA_AUTH", "none"),
        ("PARVADA_PORT", "x"),
        ("PARVADA_PORT", "0"),
        ("PARVADA_PORT", "70000"),
        ("PARVADA_MAX_PREDICT_VALUES", "-1"),
        ("PARVADA_NODE_ID", ""),
        ("PARVADA_LOCAL_SOCKET", ""),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings(GOOD | {name: value})
