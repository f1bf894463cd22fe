"""How a download goes, in a few numbers: told every few seconds, and never part of a result."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from manifests.canonical import JsonValue

SLOWEST = 10
"""Hosts that are told of."""

LEAST_REQUESTS = 3
"""Requests that a host's mean time must stand on before the host is told of."""

_HOSTS_KEPT = 2048
_HOST_CHARACTERS = 253  # the longest name DNS has (RFC 1035)


class Meter:
    """Counts what one `fetch_all` does and posts the counts now and then.

    Of hosts it keeps at most 4,096: beyond that, the half that took the least time together is forgotten, so that
    memory is bounded however many hosts there are, and a host that is slow again and again stays.

    Values posted: ``urls`` to answer for, ``answered`` of them, ``images`` of those (answers without a reason),
    ``bytes`` of their bodies, ``seconds`` since the start, ``attempts`` (requests that ended, hops of redirects
    included), ``reasons`` with their counts, and ``hosts``: the 10 slowest by mean seconds a request, each with
    ``host``, ``requests``, ``failed`` and ``mean_s``.

    Args:
        urls: How many urls are to be answered for.
        post: Told of the values; it must not block.
        clock: Seconds, from any start.
        every_s: Least time between two posts, but for the first and the last.
    """

    def __init__(
        self,
        urls: int,
        post: Callable[[Mapping[str, JsonValue]], None],
        clock: Callable[[], float],
        every_s: float = 2.0,
    ) -> None:
        self._urls = urls
        self._post = post
        self._clock = clock
        self._every_s = every_s
        self._answered = self._images = self._bytes = self._attempts = 0
        self._reasons: dict[str, int] = {}
        self._hosts: dict[str, list[float]] = {}  # requests, failed ones, seconds
        self._begun_s = clock()
        self._tell(self._begun_s)

    def asked(self, host: str, seconds: float, reason: str | None) -> None:
        """Count a request that ended: an attempt, or one hop of it.

        Args:
            host: Who was asked.
            seconds: How long it took.
            reason: Why it gave nothing, None if it did.
        """
        self._attempts += 1
        counts = self._hosts.get(host)
        if counts is None:
            counts = self._enter(host)
        counts[0] += 1
        counts[1] += reason is not None
        counts[2] += seconds
        self._tell_if_due()

    def answered(self, reason: str | None, body_bytes: int) -> None:
        """Count a url that is settled.

        Args:
            reason: Why there is no image, None if there is one.
            body_bytes: Length of its body.
        """
        self._answered += 1
        if reason is None:
            self._images += 1
            self._bytes += body_bytes
        else:
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self._tell_if_due()

    def close(self) -> None:
        """Post the last values."""
        self._tell(self._clock())

    def _enter(self, host: str) -> list[float]:
        if len(self._hosts) >= 2 * _HOSTS_KEPT:
            longest = heapq.nlargest(_HOSTS_KEPT, self._hosts.items(), key=lambda item: item[1][2])
            self._hosts = dict(longest)
        return self._hosts.setdefault(host[:_HOST_CHARACTERS], [0, 0, 0.0])

    def _tell_if_due(self) -> None:
        now_s = self._clock()
        if now_s >= self._due_s:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        self._due_s = now_s + self._every_s
        self._post(
            {
                "urls": self._urls,
                "answered": self._answered,
                "images": self._images,
                "bytes": self._bytes,
                "seconds": round(now_s - self._begun_s, 3),
                "attempts": self._attempts,
                "reasons": dict[str, JsonValue](sorted(self._reasons.items())),
                "hosts": self._slowest(),
            }
        )

    def _slowest(self) -> list[JsonValue]:
        told = [(c[2] / c[0], host) for host, c in self._hosts.items() if c[0] >= LEAST_REQUESTS]
        hosts: list[JsonValue] = []
        for mean_s, host in heapq.nsmallest(SLOWEST, told, key=lambda item: (-item[0], item[1])):
            requests, failed, _ = self._hosts[host]
            hosts.append({"host": host, "requests": int(requests), "failed": int(failed), "mean_s": round(mean_s, 3)})
        return hosts
