"""Token buckets in memory: how often a key or an address may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

KNOWN = 10_000  # buckets kept; the one that was used longest ago goes first


class RateLimit:
    """per_minute tokens come back in a minute, at most `burst` are kept. per_minute 0: no limit."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.per_second, self.burst, self._clock = per_minute / 60, burst, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> float:
        """Takes a token; 0, or the seconds to wait until there is one."""
        if not self.per_second:
            return 0.0
        with self._lock:
            tokens, now = self._tokens(who)
            allowed = tokens >= 1
            self._keep(who, tokens - 1 if allowed else tokens, now)
        return 0.0 if allowed else (1 - tokens) / self.per_second

    def charge(self, who: str, count: int) -> None:
        """Takes `count` more, into debt if need be: what a request costs is known only when it was received."""
        if self.per_second and count:
            with self._lock:
                tokens, now = self._tokens(who)
                self._keep(who, tokens - count, now)

    def _tokens(self, who: str) -> tuple[float, float]:
        now = self._clock()
        tokens, since = self._buckets.get(who, (float(self.burst), now))
        return min(float(self.burst), tokens + (now - since) * self.per_second), now

    def _keep(self, who: str, tokens: float, now: float) -> None:
        self._buckets[who] = (tokens, now)
        self._buckets.move_to_end(who)
        while len(self._buckets) > KNOWN:
            self._buckets.popitem(last=False)


def address_group(address: str | None) -> str:
    """What of an address is limited: one of version 4, the /64 network of one of version 6 (a household has one)."""
    try:
        parsed = ip_address((address or "").split("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
    return str(parsed)
