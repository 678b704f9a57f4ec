"""Sockets of a server: bound to what it was told, once, and closed in the end."""

from __future__ import annotations

import socket

import pytest

from moco_rt.server.listening import address_of, bound_sockets, listen

LOOPBACK = "127.0.0.1"


def test_a_socket_is_bound_and_does_not_listen():
    with bound_sockets(LOOPBACK, 0) as (one,):
        port = one.getsockname()[1]
        assert address_of(LOOPBACK, one) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port), timeout=10)
        listen([one])
        socket.create_connection((LOOPBACK, port), timeout=10).close()
    assert one.fileno() == -1
    with bound_sockets(LOOPBACK, port) as (again,):  # at once, although there was a connection
        assert again.getsockname()[1] == port


def test_all_addresses_of_a_name_have_one_port(monkeypatch):
    """Those that the machine lacks are left out, and one that is named twice is taken once."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))
        for host in (LOOPBACK, "192.0.2.1", LOOPBACK, "127.0.0.2")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with bound_sockets("name", 0) as sockets:
        assert [each.getsockname()[0] for each in sockets] == [LOOPBACK, "127.0.0.2"]
        assert len({each.getsockname()[1] for each in sockets}) == 1


def test_addresses_in_ipv6_stand_in_brackets():
    with bound_sockets(LOOPBACK, 0) as (one,):
        assert address_of("::1", one) == f"http://[::1]:{one.getsockname()[1]}"


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "256.256.256.256"])
def test_a_host_that_is_none_of_this_machine_is_refused(host, one_line_error):
    with (
        one_line_error(OSError, f"host and port must be this machine's and free (got {host}:0: "),
        bound_sockets(host, 0),
    ):
        pass


def test_a_port_that_is_taken_is_refused(one_line_error):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        words = f"host and port must be this machine's and free (got 127.0.0.1:{port}: Address already in use)"
        with one_line_error(OSError, words), bound_sockets(LOOPBACK, port):
            pass


def test_a_port_that_is_taken_meanwhile_is_refused(one_line_error):
    """Two may be bound to a port as long as none listens."""
    with bound_sockets(LOOPBACK, 0) as first, bound_sockets(LOOPBACK, first[0].getsockname()[1]) as second:
        listen(first)
        with one_line_error(OSError, "host and port must be this machine's and free (got 127.0.0.1:"):
            listen(second)
