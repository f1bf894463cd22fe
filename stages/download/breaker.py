"""Gives up on servers that do not answer, or only ask to be left alone, instead of trying every url of theirs."""

from yarl import URL

THRESHOLD = 8
"""Failures in a row, with no other answer between them, after which a server is left alone."""

SILENT_THRESHOLD = 3
"""The same for a server that was never heard from and costs a whole deadline each time."""

_COSTLY = frozenset({"download.timeout", "download.dns_temporary"})
_STRIKES = frozenset("download." + name for name in ("refused", "reset", "timeout", "dns", "dns_temporary", "http_429"))


class Breakers:
    """One breaker per host and port, for the length of one call; a tripped one stays tripped."""

    def __init__(self) -> None:
        self._streaks: dict[tuple[str | None, int | None], int] = {}
        self._heard: set[tuple[str | None, int | None]] = set()
        self._tripped: dict[tuple[str | None, int | None], str] = {}

    def note(self, at: URL, reason: str | None, http_status: int | None) -> None:
        """Record how one exchange went.

        Args:
            at: The url that was asked, after redirects.
            reason: What it failed for, None when it did not.
            http_status: Status of the response, None when none came.
        """
        key = (at.raw_host, at.port)
        if http_status is not None:
            self._heard.add(key)
        if reason not in _STRIKES:
            self._streaks.pop(key, None)
            return
        streak = self._streaks[key] = self._streaks.get(key, 0) + 1
        patience = SILENT_THRESHOLD if reason in _COSTLY and key not in self._heard else THRESHOLD
        if streak >= patience:
            self._tripped.setdefault(key, reason)

    def tripped(self, at: URL) -> str | None:
        """Give the reason that this url takes without being asked, or None when its server may be asked."""
        return self._tripped.get((at.raw_host, at.port))
