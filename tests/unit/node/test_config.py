"""Settings: defaults, values and the messages for wrong ones."""

from pathlib import Path

import pytest

from node.config import ConfigError, load


def test_defaults_are_those_of_a_container() -> None:
    config = load({})
    assert (config.client.port, config.peers.port, config.peers.raft_port) == (8080, 7443, 7444)
    assert config.secret_path == Path("/var/lib/parvada/secret")
    assert config.cluster.max_voters == 5
    assert config.training.ray


def test_values_are_read_by_their_types() -> None:
    config = load(
        {
            "PARVADA_PORT": "9000",
            "PARVADA_SEEDS": "a:1, b ,",
            "PARVADA_RAY": "off",
            "PARVADA_DATA": "/x",
            "PARVADA_QUIET_SECONDS": "1.5",
            "OTHER": "ignored",
        }
    )
    assert config.client.port == 9000
    assert config.peers.seeds == ("a:1", "b")
    assert not config.training.ray
    assert config.secret_path == Path("/x/secret")
    assert config.cluster.quiet == 1.5


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PARVADA_PROT": "1"}, "unknown setting PARVADA_PROT; did you mean PARVADA_PORT?"),
        ({"PARVADA_PORT": "http"}, "PARVADA_PORT='http'"),
        ({"PARVADA_PORT": "70000"}, "PARVADA_PORT=70000: a port is a number from 1 to 65535"),
        ({"PARVADA_RAY": "maybe"}, "PARVADA_RAY='maybe': give on or off"),
        ({"PARVADA_MAX_VOTERS": "4"}, "PARVADA_MAX_VOTERS=4: give an odd number"),
        ({"PARVADA_AUTH": "none"}, "PARVADA_AUTH='none'"),
        ({"PARVADA_COPIES": "0"}, "PARVADA_COPIES=0: give 1 or more"),
        ({"PARVADA_SCRUB_HOURS": "-1"}, "PARVADA_SCRUB_HOURS=-1.0: give 0 or more"),
        ({"PARVADA_FRONTS": "-1"}, "PARVADA_FRONTS=-1: give 0 or more"),
        ({"PARVADA_CPUS": "-2"}, "PARVADA_CPUS=-2: give 0 or more"),
        ({"PARVADA_MAX_UPLOAD_MB": "0"}, "PARVADA_MAX_UPLOAD_MB=0: give 1 or more"),
        ({"PARVADA_MAX_PREDICT_MB": "5000"}, "PARVADA_MAX_PREDICT_MB=5000: give 1 to 4096"),
        ({"PARVADA_AWAY_AFTER_SECONDS": "inf"}, "PARVADA_AWAY_AFTER_SECONDS=inf: give 0 or more"),
        ({"PARVADA_HANDOVER_SECONDS": "-1"}, "PARVADA_HANDOVER_SECONDS=-1.0: give 0 or more"),
        ({"PARVADA_QUIET_SECONDS": "nan"}, "PARVADA_QUIET_SECONDS=nan: give 0 or more"),
        ({"PARVADA_SLOT": "0"}, "PARVADA_SLOT=0: slots count from 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=r"PARVADA_") as caught:
        load(environment)
    assert message in str(caught.value)
