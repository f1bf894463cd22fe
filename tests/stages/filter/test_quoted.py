import io

import pytest

from stages.filter.quoted import MAX_TORN, cut_whole, cutting, quoted_blocks, splitter
from stages.filter.rows import MetadataError
from stages.filter.streams import MAX_LINE_BYTES

COMMA, TAB = 44, 9


def records(data, fields=2, mark=COMMA, block_bytes=1 << 20):
    blocks = quoted_blocks(io.BytesIO(data), mark, fields, "file", block_bytes)
    return [(block.record(index), int(block.fields[index])) for block in blocks for index in range(len(block.fields))]


def test_fields_are_unquoted():
    split = splitter(TAB)
    assert split(b'a "b\t"c\td"\t"say ""x"""\t""\t') == [b'a "b', b"c\td", b'say "x"', b"", b""]
    for torn in (b'"a', b'"a" b\tc', b'a\t"'):
        with pytest.raises(ValueError, match="not closed where its field ends"):
            split(torn)


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_marks_and_line_ends_inside_quotes_are_text(block_bytes):
    data = b'"a,\nb",c\r\nd,"e ""f""\r\n"\n\ng,h'
    assert records(data, block_bytes=block_bytes) == [
        (b'"a,\nb",c', 2), (b'd,"e ""f""\r\n"', 2), (b"", 1), (b"g,h", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_a_record_of_lines_that_is_none_costs_its_first_line(block_bytes):
    data = b'a,b\nc,"open\nd,e" x\nf,g\nh,"i\n",j\nk,l\n'
    assert records(data, block_bytes=block_bytes) == [
        (b"a,b", 2), (b'c,"open', 0), (b'd,e" x', 2), (b"f,g", 2), (b'h,"i', 0), (b'",j', 0), (b"k,l", 2),
    ]  # fmt: skip


def test_a_record_never_grows_over_the_bound():
    data = b'a,"' + b"x\n" * MAX_LINE_BYTES + b'"\nb,c\n'
    found = records(data)
    assert (found[0], found[1], found[-1]) == ((b'a,"x', 0), (b"x", 1), (b"b,c", 2))


def test_too_many_torn_records_are_another_format():
    assert len(records(b'a,"b\n' * 900, block_bytes=512)) == 900
    with pytest.raises(MetadataError, match=r"file: \d+ of \d+ records have a quote that is never closed"):
        records(b'a,"b\n' * (3 * MAX_TORN), block_bytes=512)


def test_a_look_at_the_head_gives_up_after_some_torn_records():
    assert len(list(cut_whole(b'a,"b\n' * 100, 2, COMMA))) == 20
    (block,) = cutting(COMMA).cut(b'a,"b\nc"\n' * 100, 2)
    assert block.fields.tolist() == [2] * 100
    assert cutting(COMMA).split(b'a,"b"') == [b"a", b"b"]
