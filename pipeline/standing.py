"""Which commits of a step stand: found by partition and fingerprint."""

from __future__ import annotations

from manifests.records import Records

_KEY_END = -len(".0000.json")


class Standing:
    """The commits of a step that stand: of every partition and fingerprint the highest pass."""

    def __init__(self, records: Records) -> None:
        self._names = names = records.values("name")
        self.open: list[bool] = records.values("open")
        self.failed: list[bool] = records.values("failed")
        self._rows: dict[str, int] = {}
        for row, name in enumerate(names):
            key = name[:_KEY_END]
            if key not in self._rows or names[self._rows[key]] < name:
                self._rows[key] = row

    def has(self, partition: str, fingerprint: str) -> bool:
        """Whether there is a commit."""
        return self.row(partition, fingerprint) is not None

    def row(self, partition: str, fingerprint: str) -> int | None:
        """Return the row of the highest pass in the records."""
        return self._rows.get(f"{partition}@{fingerprint[:16]}")

    def number(self, row: int) -> int:
        """Return which pass a commit is."""
        return int(self._names[row][_KEY_END + 1 : -5])
