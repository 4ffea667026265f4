"""What a run may take: requests and tokens a minute, and money."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from ffaa.errors import FFAAError


class CapReachedError(FFAAError):
    """The next request could cost more than is left."""


class RateLimit:
    """Even pacing: a request may start when those before it have had their share of a minute. For any threads."""

    def __init__(
        self, requests: float | None, tokens: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """requests, tokens: a minute; None for no limit."""
        self._requests, self._tokens, self._clock = requests, tokens, clock
        self._free, self._lock = clock(), threading.Lock()

    def delay(self, tokens: int) -> float:
        """Takes the next place for a request of so many tokens. Returns the seconds until it may start."""
        with self._lock:
            now = self._clock()
            start = max(now, self._free)
            share = 60 / self._requests if self._requests else 0.0
            self._free = start + max(share, 60 * tokens / self._tokens if self._tokens else 0.0)
            return start - now

    def pause(self, seconds: float) -> None:
        """No request that asks from now on starts within so many seconds."""
        with self._lock:
            self._free = max(self._free, self._clock() + seconds)


def back_off(attempt: int, rng: random.Random) -> float:
    """Seconds before attempt + 1 (attempt from 0): 1, 2, 4 ... 60, of which a random half to whole."""
    return min(60.0, 2.0**attempt) * rng.uniform(0.5, 1)


class Budget:
    """Money spent and held back for requests under way. For any threads.

    price_in, price_out: per million tokens. cap: what a run may spend; None for no limit. Input tokens are estimated
    before a request; where a reply shows that the estimate was low, later ones are raised by the same factor.
    """

    def __init__(self, price_in: float, price_out: float, cap: float | None):
        self._prices, self._cap = (price_in / 1e6, price_out / 1e6), cap
        self._lock, self._factor = threading.Lock(), 1.0
        self.spent = self.held = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        return tokens_in * self._prices[0] + tokens_out * self._prices[1]

    def hold(self, tokens_in: int, tokens_out: int, force: bool = False) -> float | None:
        """Holds back the most that a request can cost. Returns the amount; None, and holds nothing, where that could
        pass the cap. force: hold it in any case, as for what was handed in already."""
        with self._lock:
            amount = self.cost(tokens_in * self._factor, tokens_out)
            if self._cap is not None and not force and self.spent + self.held + amount > self._cap:
                return None
            self.held += amount
            return amount

    def hold_again(self, amount: float, tokens_in: int, tokens_out: int) -> float | None:
        """Raises what was held to the present estimate. Returns the amount; None, and gives all back, if it is over."""
        with self._lock:
            now = max(amount, self.cost(tokens_in * self._factor, tokens_out))
            over = self._cap is not None and self.spent + self.held + now - amount > self._cap
            if now > amount and over:
                self.held -= amount
                return None
            self.held += now - amount
            return now

    def settle(self, amount: float, spent: float) -> None:
        """Gives back what was held and counts what was spent."""
        with self._lock:
            self.held -= amount
            self.spent += spent

    def learn(self, estimated: int, counted: int) -> None:
        """Notes how many input tokens the provider counted for an estimate."""
        with self._lock:
            self._factor = max(self._factor, counted / max(estimated, 1))

    def reached(self) -> CapReachedError:
        """The error for a request that does not fit."""
        return CapReachedError(
            f"the cap of {self._cap:g} is reached ({self.spent:.4f} spent); raise it and run again, replies are kept"
        )
