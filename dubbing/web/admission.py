"""Who may knock at all, by address, before anything else is done: REMOTE_ACCESS_MODE."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dubbing.access_errors import AddressError
from dubbing.config import Settings
from dubbing.errors import SettingsError
from dubbing.web.errors import answer_for

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
TAILNET: tuple[Network, ...] = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
PRIVATE: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
    )
)
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip")
IDENTITY = ("tailscale-user-login", "tailscale-user-name", "tailscale-user-profile-pic")
"""Believed of nobody who comes over TCP; tailnet.py has the one door where they may count."""
_REMOVED = frozenset(name.encode() for name in (*FORWARDED, *IDENTITY))


@dataclass(frozen=True, slots=True)
class Policy:
    """Which addresses are let in, and whose word about others is believed."""

    allowed: tuple[Network, ...]
    """Empty: everybody, which only proxy mode means, where the proxies are the door."""
    proxies: tuple[Network, ...] = ()

    def admits(self, address: Address | None) -> bool:
        """Whether a peer may speak to this server."""
        if address is None:
            return False
        return not self.allowed or any(address in network for network in self.allowed)


def policy(settings: Settings) -> Policy:
    """What the settings say. Raises SettingsError for proxies that would be everybody."""
    if settings.remote_access == "tailscale":
        return Policy(TAILNET + LOOPBACK)
    if settings.remote_access == "proxy":
        proxies = _networks(settings.trusted_proxies)
        return Policy(proxies + LOOPBACK, proxies)
    return Policy(LOOPBACK if settings.host in LOOPBACK_HOSTS else LOOPBACK + PRIVATE + TAILNET)


def _networks(text: str) -> tuple[Network, ...]:
    key, found = "DUBBING_TRUSTED_PROXIES", []
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            network = ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise SettingsError(
                key=key, value=text, expected=f"{part!r} is no address or network", fix="Write 10.0.0.5 or 10.0.0.0/24."
            ) from None
        if network.prefixlen == 0:
            raise SettingsError(
                key=key, value=text, expected=f"{part} is everybody", fix="Name the proxy's own address."
            )
        found.append(network)
    if not found:
        raise SettingsError(
            key=key, value=text, expected="REMOTE_ACCESS_MODE=proxy needs to know the proxy", fix="Name its address."
        )
    return tuple(found)


class Admission:
    """ASGI middleware: refuses foreign addresses, and settles who the client is."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 403."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        peer = address_in((scope.get("client") or ("", 0))[0])
        if not self._policy.admits(peer):
            return await answer_for(Request(scope), AddressError(address=str(peer or "?")))(scope, receive, send)
        return await self._app(self._settled(dict(scope), peer), receive, send)

    def _settled(self, scope: dict[str, Any], peer: Address | None) -> dict[str, Any]:
        headers = Headers(raw=scope["headers"])
        scope["headers"] = [pair for pair in headers.raw if pair[0].lower() not in _REMOVED]
        if peer is not None and any(peer in network for network in self._policy.proxies):
            hops, scheme = headers.get("x-forwarded-for", ""), headers.get("x-forwarded-proto", "")
            client = self._client([*map(str.strip, hops.split(","))] if hops else [], peer)
            scope["client"] = (str(client), 0)
            scope["scheme"] = "https" if scheme.split(",")[-1].strip() == "https" else scope["scheme"]
        return scope

    def _client(self, hops: Sequence[str], peer: Address) -> Address:
        """The last hop that is no trusted proxy: what stands before it anybody could have written."""
        client = peer
        for hop in reversed(hops):
            address = address_in(hop)
            if address is None:
                break
            client = address
            if not any(address in network for network in self._policy.proxies):
                break
        return client


def is_loopback(text: str) -> bool:
    """Whether an address is this machine's own."""
    address = address_in(text)
    return address is not None and any(address in network for network in LOOPBACK)


@lru_cache(maxsize=4096)
def address_in(text: str) -> Address | None:
    """The address a text is; None when it is none. IPv4 in IPv6's clothes is IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
