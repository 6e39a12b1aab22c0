"""Ports that tests are lent: nobody else's until they are given back."""

import socket

from tests.support.ports import give_back, lend, lent


def test_what_is_lent_is_lent_once_though_nobody_listens_there_yet() -> None:
    with lent(4) as one, lent(4) as other:
        assert not {*range(one, one + 4)} & {*range(other, other + 4)}


def test_what_is_given_back_may_be_lent_again() -> None:
    base = lend(4)
    give_back(base)
    give_back(base)
    assert lend(4) == base
    give_back(base)


def test_a_range_in_which_somebody_listens_is_passed_over() -> None:
    base = lend(4)
    give_back(base)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", base + 3))
        busy.listen()
        with lent(4) as other:
            assert other != base
        with lent(3) as fits:
            assert fits == base
