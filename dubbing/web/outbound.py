"""The one door from the web process to other servers: a POST to an address that a user named.

Users must not reach through this server into its own network: the name is resolved here, every address of private
networks is refused, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from dubbing.api_errors import WebhookAddressError

DEADLINE_S = 10.0
"""For all of it: name, connection, sending, and the first line of the answer."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a POST goes."""

    host: str
    port: int
    path: str
    secure: bool
    authority: str
    """For the Host header."""


def check_url(url: str, *, private: bool) -> Target:
    """Read an address of http or https. Raises WebhookAddressError; for literal private addresses unless `private`."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookAddressError(url=url[:80], detail="it has other characters than those of an address")
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise WebhookAddressError(url=url[:80], detail=str(error)) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebhookAddressError(url=url[:80], detail="it must begin with https:// or http:// and name a host")
    if "@" in parts.netloc:
        raise WebhookAddressError(url=url[:80], detail="a name or a password in the address is not sent")
    try:
        literal = ipaddress.ip_address(parts.hostname)
    except ValueError:
        literal = None
    if not private and (parts.hostname == "localhost" or (literal is not None and not is_public(literal))):
        raise WebhookAddressError(
            url=url[:80], detail="it lies in a private network, which only administrators may name"
        )
    return Target(parts.hostname, port, _path(parts), parts.scheme == "https", parts.netloc)


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet at large, and not to this machine, its networks or a way into them."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


async def resolve(target: Target, *, private: bool) -> str:
    """The address of a host that may be connected to. Raises WebhookAddressError, OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    for *_, place in found:
        address = str(place[0])
        if private or is_public(ipaddress.ip_address(address.partition("%")[0])):
            return address
    detail = "its name leads into a private network, which only administrators may name"
    raise WebhookAddressError(url=target.host, detail=detail)


async def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    """Send a body and answer the status; redirects are not followed, and what else is answered is not read.

    Raises WebhookAddressError, OSError (which TimeoutError, ssl.SSLError and refused connections are).
    """
    target = check_url(url, private=private)
    try:
        return await asyncio.wait_for(_post(target, body, headers, private=private), DEADLINE_S)
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer within {DEADLINE_S:.0f} s") from None


async def _post(target: Target, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    address = await resolve(target, private=private)
    context = ssl.create_default_context() if target.secure else None
    reader, writer = await asyncio.open_connection(
        address, target.port, ssl=context, server_hostname=target.host if context else None
    )
    try:
        lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", f"Content-Length: {len(body)}"]
        lines += [*(f"{name}: {value}" for name, value in headers.items()), "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()
        status = _STATUS.match(await reader.readline())
        if status is None:
            raise ConnectionError("the answer is not HTTP")
        return int(status[1])
    except ValueError as error:
        raise ConnectionError("the answer is not HTTP") from error  # a first line without an end
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
