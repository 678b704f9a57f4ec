"""Sockets of a server, taken before a model is loaded for nothing."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any

#: Connections that may wait to be taken.
BACKLOG = 2048
#: Errors of an address that this machine lacks, as it does that of `localhost` in IPv6 where there is none.
_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextlib.contextmanager
def bound_sockets(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Give sockets that are bound to the addresses of a host, and close them in the end; none listens yet.

    Args:
        host: a name or an address of this machine.
        port: 0: one that is free, the same for all of them.

    Raises:
        OSError: the host is none of this machine's, the port is taken, or this user may not take it.
    """
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        try:
            missing = None
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, _, _, _, address in dict.fromkeys(found):  # a name can have an address twice
                same_port = sockets[0].getsockname()[1] if sockets else port
                try:
                    sockets.append(stack.enter_context(_bind(family, (address[0], same_port, *address[2:]))))
                except OSError as error:
                    if error.errno not in _MISSING:
                        raise
                    missing = error
            if not sockets and missing is not None:
                raise missing
        except (OSError, UnicodeError) as error:  # the latter where a host can be no name
            raise _refusal(host, port, error) from None
        yield sockets


def listen(sockets: Sequence[socket.socket]) -> None:
    """Let callers connect to sockets that are bound.

    Raises:
        OSError: somebody else, who has bound the same meanwhile, listens there.
    """
    for one in sockets:
        try:
            one.listen(BACKLOG)
        except OSError as error:
            host, port = one.getsockname()[:2]
            raise _refusal(host, port, error) from None


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a server before, which are not quite forgotten, must not keep this one from its port.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # a name's address in IPv4 has its own socket
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _refusal(host: str, port: int, error: OSError | UnicodeError) -> OSError:
    reason = getattr(error, "strerror", None) or error
    return OSError(f"host and port must be this machine's and free (got {host}:{port}: {reason})")


def address_of(host: str, listening: socket.socket) -> str:
    """Return where callers reach a server that listens at a host."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
