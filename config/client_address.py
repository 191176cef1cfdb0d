"""Who sent a request: one address for rate limits, logs and security events.

A proxy passes on the client's address in `X-Forwarded-For`, which anybody can write. Only what a
trusted proxy (`TRUSTED_PROXIES`) added counts: the list is read from its end for as long as the hop
that wrote an entry is trusted. Everything behind this middleware reads `REMOTE_ADDR`, and the headers
of other senders are removed.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase

UNIX = "unix"
"""In TRUSTED_PROXIES: a proxy that connects through a unix socket, and so has no address."""
LOCAL = "127.0.0.1"
"""Stands for a client without an address: a program on this machine, at a unix socket."""
# What only a proxy may say of a request.
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: `REMOTE_ADDR` becomes the client's address; untrusted forwarding headers go."""
    trusted = Trusted(settings.TRUSTED_PROXIES)

    def middleware(request: HttpRequest) -> HttpResponseBase:
        peer = request.META.get("REMOTE_ADDR", "")
        if peer in trusted:
            hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
            request.META["REMOTE_ADDR"] = trusted.client(peer, hops)
        else:
            request.META["REMOTE_ADDR"] = plain(peer) or LOCAL
            for name in FORWARDED:
                request.META.pop(name, None)
        return get_response(request)

    return middleware


class Trusted:
    """The proxies whose word counts: addresses, networks such as 10.0.0.0/8, and "unix"."""

    def __init__(self, proxies: Sequence[str]) -> None:
        self.unix = UNIX in proxies
        self.networks: list[Network] = []
        for proxy in proxies:
            if proxy == UNIX:
                continue
            try:
                self.networks.append(ipaddress.ip_network(proxy, strict=False))
            except ValueError as error:
                raise ImproperlyConfigured(
                    f"TRUSTED_PROXIES: “{proxy}” is no address or network; give such as "
                    "127.0.0.1, 10.0.0.0/8 or unix, separated by commas."
                ) from error

    def __contains__(self, peer: Any) -> bool:
        address = plain(peer)
        if not address:
            return self.unix and not peer
        return any(ipaddress.ip_address(address) in network for network in self.networks)

    def client(self, peer: str, hops: Sequence[str]) -> str:
        """The first hop, from the nearest on, that is not a trusted proxy itself."""
        address = plain(peer) or LOCAL
        for hop in reversed(hops):
            entry = plain(hop)
            if not entry:
                break
            address = entry
            if address not in self:
                break
        return address


def plain(text: str) -> str:
    """An address without port and brackets, in its usual spelling; "" for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)
