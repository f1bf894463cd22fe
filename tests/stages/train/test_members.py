import io
import tarfile

import pytest

from stages.tars import TarWriter
from stages.train.members import ShardError, read_members
from tests.stages.train.tiny import pair, pairs, write_tar


def bodies(members):
    found = []
    for row in members.rows:
        raw = members.tars[row["tar"]].read_bytes()
        found.append(tuple(raw[row[n] : row[n] + row[f"{n}_bytes"]] for n in ("picture", "caption")))
    return found


@pytest.mark.parametrize("suffixes", [("img_content", "caption"), ("jpg", "txt"), ("PNG", "txt"), ("webp", "caption")])
def test_members_are_found_under_every_name(tmp_path, suffixes):
    content = pairs(3)
    members = read_members(
        [write_tar(tmp_path / "a.tar", content, suffixes), write_tar(tmp_path / "b.tar", pairs(2, 3), suffixes)]
    )
    assert bodies(members) == [(picture, text.encode()) for picture, text in pairs(5)]
    assert (members.per_tar(), len(members), members.incomplete) == ([3, 2], 5, 0)


def test_keys_are_the_same_whatever_the_members_are_called(tmp_path):
    one = read_members([write_tar(tmp_path / "a.tar", pairs(4))])
    other = read_members([write_tar(tmp_path / "b.tar", pairs(4), ("png", "txt"))])
    assert one.rows["key"].tolist() == other.rows["key"].tolist()
    assert len(set(one.rows["key"].tolist())) == 4


def test_samples_without_picture_or_caption_are_counted(tmp_path):
    picture, text = pair(1)
    with TarWriter(tmp_path / "a.tar") as tar:
        tar.add("1.png", picture)
        tar.add("2.txt", text.encode())
        tar.add("3.json", b"{}")
        tar.add("4.png", picture)
        tar.add("4.txt", text.encode())
    members = read_members([tmp_path / "a.tar"])
    assert (len(members), members.incomplete) == (1, 3)


def test_an_empty_tar_has_no_samples(tmp_path):
    assert len(read_members([write_tar(tmp_path / "a.tar", [])])) == 0
    assert len(read_members([])) == 0


def test_tars_of_other_programs_are_read(tmp_path):
    picture, text = pair(1)
    key = "a folder/" + "long " * 40 + "name"
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            tar.addfile(tarfile.TarInfo("a folder"))
            for suffix, body in (("jpg", picture), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        assert bodies(read_members([path])) == [(picture, text.encode())]


@pytest.mark.parametrize("left", [100, 700, 5_000])
def test_a_tar_that_is_cut_short_is_named(tmp_path, left):
    whole = write_tar(tmp_path / "a.tar", pairs(3))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:left])
    with pytest.raises(ShardError, match=r"cut\.tar .*get it again"):
        read_members([cut])


def test_a_file_that_is_no_tar_or_gone_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    for name in ("a.tar", "gone.tar"):
        with pytest.raises(ShardError, match=name):
            read_members([tmp_path / name])
