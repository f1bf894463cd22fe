import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.filter.line_blocks import cut_lines
from stages.filter.photo_ids import field_numbers, read_photo_ids
from stages.filter.rows import MetadataError

FIELDS = st.sampled_from(["7", "0012", "9" * 18, "1" * 19, "", "-3", "+4", "5x", " 6", "\u0663", "a"])


@given(st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=8), st.integers(0, 4))
def test_fields_that_are_numbers_are_read_as_python_reads_them(rows, index):
    block = cut_lines("".join("\t".join(row) + "\n" for row in rows).encode(), 9)
    values, numeric = field_numbers(block, index)
    told = [row[index] if index < len(row) else "" for row in rows]
    expected = [field.isascii() and field.isdigit() and len(field) <= 18 for field in told]
    assert numeric.tolist() == expected
    assert values[numeric].tolist() == [int(field) for field, good in zip(told, expected, strict=True) if good]


@given(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=30), st.integers(1, 50))
def test_the_list_is_sorted_whatever_the_blocks(ids, block_bytes):
    data = "".join(f"{line}\t{photo}\thash\n" for line, photo in enumerate(ids)).encode()
    found = read_photo_ids(io.BytesIO(data), block_bytes=block_bytes)
    assert (found.dtype, found.tolist()) == (np.int64, sorted(ids))


@pytest.mark.parametrize(("data", "says"), [(b"", "names no photo"), (b"\n" * 9, "line 1 is not"),
                                            (b"1\t2\th\n1\t2\n", "line 2 is not")])  # fmt: skip
def test_a_list_that_will_not_do(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: {says}.*fetch yfcc100m_subset_data"):
        read_photo_ids(io.BytesIO(data), block_bytes=4)
