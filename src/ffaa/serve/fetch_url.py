"""Photos by address, where the operator allows it: only public addresses, the checked one and no other.

A name is resolved once, every address of it must be public, and the connection goes to the checked address itself, so
that a name which resolves differently a moment later leads nowhere else. Redirects are checked again. No proxy, no
cookie, no credential is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from ffaa.errors import FFAAError, TooLargeError
from ffaa.serve.settings import ServeSettings

REDIRECTS = 3
MAX_URL = 2048
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class UrlError(FFAAError):
    """An address that is not fetched, or could not be."""


async def fetch(url: str, settings: ServeSettings) -> bytes:
    """The bytes at a public http(s) address. Raises UrlError, TooLargeError."""
    try:
        async with asyncio.timeout(settings.url_seconds):
            for _ in range(REDIRECTS + 1):
                answer = await _get(url, settings)
                if isinstance(answer, bytes):
                    return answer
                url = answer
    except TimeoutError:
        raise UrlError(f"the address did not answer within {settings.url_seconds:g} s") from None
    raise UrlError(f"the address leads on more than {REDIRECTS} times; give the last one")


def public(addresses: Iterable[str]) -> bool:
    """Are all of them on the public Internet? Addresses that hide another (mapped, translated, tunnelled) are not."""
    return all(_public(ipaddress.ip_address(address.split("%")[0])) for address in addresses)


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour or address.teredo or address in _NAT64
        if hidden or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, those of version 4 first. Raises UrlError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UrlError("the name in the address is not known") from None
    return sorted({str(entry[4][0]) for entry in found}, key=lambda address: (":" in address, address))


async def _get(url: str, settings: ServeSettings) -> bytes | str:
    """The bytes, or where it leads on."""
    parts = _parse(url, settings)
    assert parts.hostname
    addresses = await resolve(parts.hostname, parts.port or _PORTS[parts.scheme])
    if not addresses or not public(addresses):
        raise UrlError("the address is not a public one; it is not fetched")
    address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    port = f":{parts.port}" if parts.port else ""
    target = parts._replace(netloc=address + port, fragment="").geturl()
    head = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "ffaa"}
    # The certificate must be the name's, though the connection goes to a number.
    extensions = {"sni_hostname": parts.hostname}
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=settings.url_seconds) as client:
        try:
            async with client.stream("GET", target, headers=head, extensions=extensions) as answer:
                if answer.is_redirect and "location" in answer.headers:
                    return urljoin(url, answer.headers["location"])
                if answer.status_code != 200:
                    raise UrlError(f"the address answered {answer.status_code}; give one that answers with a photo")
                return await _body(answer, settings.max_bytes)
        except httpx.TimeoutException:
            raise TimeoutError from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            raise UrlError("the address could not be fetched") from None


def _parse(url: str, settings: ServeSettings) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlError("not an address; give http://... or https://...") from None
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise UrlError(f"not an address; give at most {MAX_URL} ASCII characters, others escaped")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UrlError("only http:// and https:// addresses are fetched")
    if parts.username is not None or parts.password is not None:
        raise UrlError("addresses with a user name are not fetched")
    if (port or _PORTS[parts.scheme]) not in settings.url_ports:
        raise UrlError(f"port {port} is not fetched from; allowed: {', '.join(map(str, settings.url_ports))}")
    return parts


async def _body(answer: httpx.Response, most: int) -> bytes:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise UrlError("the address answers with compressed content; it is not unpacked")
    found = bytearray()
    async for chunk in answer.aiter_raw(64 * 1024):
        found += chunk
        if len(found) > most:
            raise TooLargeError(f"the address holds more than {most / 2**20:.1f} MiB; give a smaller file")
    return bytes(found)
