# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Find the address of a host, and refuse those of private networks.

A list of URLs comes from strangers. One of them may lead to a service of this machine or of its network, such as the metadata of a
cloud, and what is answered would become training data. A name is resolved once and the connection made to that very address, so that no
second answer of a name server leads elsewhere.
"""

import ipaddress
import socket
import threading
import time

from .failures import FetchError


# Seconds that an answer of the name server is kept
_KEPT_SECONDS = 300.0
# Networks whose addresses carry one of IPv4 in their last or their second group
_NAT64, _SIX_TO_FOUR = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16")


def is_public(address: str) -> bool:
    """Tell whether an address is of the public internet: not of this machine, of a private network, or of a group of machines."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip in _SIX_TO_FOUR:
            inner = ip.sixtofour
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


class Resolver:
    """
    Resolver of names that keeps the answers.

    Args:
        allow_private_hosts (`bool`): Whether addresses of private networks are returned, too.
    """

    def __init__(self, allow_private_hosts: bool):
        self.allow_private_hosts = allow_private_hosts
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], tuple[float, list[str] | FetchError]] = {}

    def resolve(self, host: str, port: int) -> list[str]:
        """
        Return the addresses of a host, at most two.

        Raises:
            FetchError: there is none (`dns`), or none that is public (`private_address`).
        """
        with self._lock:
            since, answer = self._known.get((host, port), (0.0, []))
        if not answer or time.monotonic() - since > _KEPT_SECONDS:
            answer = self._ask(host, port)
            if not isinstance(answer, FetchError) or not answer.can_retry:
                with self._lock:
                    self._known[host, port] = (time.monotonic(), answer)
        if isinstance(answer, FetchError):
            raise FetchError(answer.reason, answer.detail, answer.can_retry)
        return answer

    def check_literal(self, host: str) -> None:
        """
        Refuse a host that is a private address by its spelling. Of a name, the proxy that resolves it decides.

        Raises:
            FetchError: it is private.
        """
        if self.allow_private_hosts:
            return
        try:
            is_private = not is_public(host)
        except ValueError:
            is_private = host.lower() == "localhost" or host.lower().endswith(".localhost")
        if is_private:
            raise FetchError("private_address", f"{host!r} is an address of a private network")

    def _ask(self, host: str, port: int) -> list[str] | FetchError:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            can_retry = error.errno in (socket.EAI_AGAIN, getattr(socket, "EAI_SYSTEM", None))
            return FetchError("dns", f"{host!r} has no address ({error.strerror})", can_retry)
        except (UnicodeError, ValueError) as error:
            return FetchError("bad_url", f"{host!r} is not the name of a host ({error})")
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        public = [address for address in addresses if self.allow_private_hosts or is_public(address)]
        if not public:
            return FetchError("private_address", f"{host!r} leads to {addresses[0]}, which is in a private network")
        return public[:2]
