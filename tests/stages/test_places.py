"""Names of pooled partitions tell the lane."""

import pytest

from stages.places import archive_partition, archive_source, is_archive, lane, web_partition


@pytest.mark.parametrize(
    ("partition", "source"),
    [(web_partition(7), None), (archive_partition("fmow", 0), "fmow"), (archive_partition("ben", 12_345), "ben"),
     (archive_partition("mine", 3, "pub11"), "mine"), ("held-web-0000", "web"), ("held-held-0000", "held"),
     ("all", None), ("pub11-train-0007", None), ("rs3-val-0001", None)],
)  # fmt: skip
def test_the_source_of_a_part(partition, source):
    assert archive_source(partition) == source
    assert is_archive(partition) == (source is not None)


def test_lanes():
    assert (lane("web-0001"), lane("millionaid-0001")) == ("pub11", "rs3")
    assert archive_partition("mine", 3, "pub11") == "held-mine-0003"
    assert (lane("held-mine-0003"), lane("held-held-0001")) == ("pub11", "pub11")
