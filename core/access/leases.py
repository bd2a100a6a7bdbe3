"""Leases: requests that a process admits by what it knows of a bucket, and counts with the next round trip to Redis.

A round trip has told what a bucket lacks. For 25 milliseconds a process goes by that and by what it has admitted
since, so that a request without a key to mark waits for nobody. Every request is counted, if a little later; a process
that is killed forgets what it owes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from core.access.rates import Limit

# The last word on a bucket is believed for so long: a process admits requests by it, and counts them afterwards. The
# guard tells what is owed after 10 ms, and hears anew, so that under a steady load no request waits.
LEASE_US = 25_000
# It admits so many of a burst in that way. A burst of less than that is counted exactly.
LEASED_PART = 100
# So many buckets are known. Beyond that all are forgotten, and asked for again.
MAX_LEASES = 10_000


class Lease:
    """A bucket that others fill, too, as a process knows it, and the cost that the process admitted and still owes.

    Only a bucket that is half empty is believed, so nothing is let through too much unless others fill the rest within
    LEASE_US. Then it is a hundredth of the burst for each process.
    """

    __slots__ = ("_asked_us", "_at_us", "_fill_us", "limit", "owed")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.owed = 0
        self._fill_us = self._at_us = 0
        self._asked_us = -LEASE_US

    def learn(self, fill_us: int, now_us: int) -> None:
        """Take over the lack of a bucket that was counted just now. Cost that is owed comes on top."""
        self._fill_us, self._at_us = fill_us + self.owed * self.limit.step_us, now_us
        self._asked_us = now_us

    def lack_after(self, cost: int, now_us: int) -> int | None:
        """Return the microseconds that the bucket lacks after `cost`; None where it has to be asked."""
        if now_us - self._asked_us >= LEASE_US or (self.owed + cost) * LEASED_PART > self.limit.burst:
            return None
        fill = max(self._fill_us - now_us + self._at_us, 0) + cost * self.limit.step_us
        return fill if 2 * fill <= self.limit.burst_us else None

    def take(self, cost: int, fill_us: int, now_us: int) -> None:
        """Owe `cost`, after which the bucket lacks `fill_us`."""
        self.owed += cost
        self._fill_us, self._at_us = fill_us, now_us


class Leases:
    """The leases of one process, by the names of buckets. A name may be empty: nothing is limited there."""

    def __init__(self) -> None:
        self._known: dict[str, Lease] = {}
        self._owing: dict[str, Lease] = {}

    def __bool__(self) -> bool:
        """Whether something is owed."""
        return bool(self._owing)

    def take(self, key: str, address: str, cost: int, now_us: int) -> tuple[int, int] | None:
        """Take `cost` from both buckets or from none. Return what each lacks, in microseconds; None: ask Redis."""
        of_key, of_address = self._known.get(key), self._known.get(address)
        key_fill = address_fill = 0
        if key:
            if of_key is None or (found := of_key.lack_after(cost, now_us)) is None:
                return None
            key_fill = found
        if address:
            if of_address is None or (found := of_address.lack_after(cost, now_us)) is None:
                return None
            address_fill = found
            of_address.take(cost, address_fill, now_us)
            self._owing[address] = of_address
        if of_key is not None:
            of_key.take(cost, key_fill, now_us)
            self._owing[key] = of_key
        return key_fill, address_fill

    def learn(self, told: Iterable[tuple[str, Limit, int]], now_us: int) -> None:
        """Take over what buckets lack; the last word on a bucket counts."""
        if len(self._known) > MAX_LEASES:
            self._known.clear()  # `_owing` has those that owe something
        for name, (limit, fill_us) in {name: (limit, fill_us) for name, limit, fill_us in told}.items():
            if name and limit.burst >= LEASED_PART and not limit.window_us:
                lease = self._known.get(name)
                if lease is None or lease.limit != limit:
                    lease = self._known[name] = Lease(limit)
                lease.learn(fill_us, now_us)

    def owing(self) -> list[tuple[str, Limit]]:
        """Return the buckets to which something is owed, with their limits."""
        return [(name, lease.limit) for name, lease in self._owing.items()]

    def settle(self) -> Iterator[tuple[str, Limit, int]]:
        """Yield each bucket to which something is owed, with its limit and that cost, which then counts as told."""
        owing, self._owing = self._owing, {}
        for name, lease in owing.items():
            owed, lease.owed = lease.owed, 0
            yield name, lease.limit, owed
