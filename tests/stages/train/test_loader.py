import itertools
from contextlib import closing

import pytest
import torch

from stages.train.loader import Loader, Position
from stages.train.members import ShardError
from stages.train.order import Shares
from tests.stages.train.tiny import pair, pairs, samples_of, write_tar

BAD = [(b"no picture", "a caption"), (b"", "a caption"), (pair(5)[0], ""), (pair(6)[0], " \n\t")]


def taken(loader, count):
    with closing(iter(loader)) as batches:
        return list(itertools.islice(batches, count))


def same(one, other):
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.tokens, b.tokens) and a.after == b.after
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def read(trainee, tmp_path):
    def make(
        content,
        batch,
        *,
        size=None,
        rank=0,
        world=1,
        transform="georsclip",
        name="a.tar",
        suffixes=("img_content", "caption"),
        **options,
    ):
        path = tmp_path / name
        tar = path if path.exists() else write_tar(path, content, suffixes)
        share = Shares(batch, rank, world)
        return Loader(samples_of(trainee, tar, transform=transform), share, size or share.own, 7, **options)

    return make


def test_an_epoch_is_whole_batches_and_the_next_one_is_shuffled_anew(read):
    batches = taken(read(pairs(70), 16, transform="eval"), 8)
    assert [batch.after.epoch for batch in batches] == [0, 0, 0, 1, 1, 1, 1, 2]
    first, second = ({tuple(row) for b in part for row in b.tokens.tolist()} for part in (batches[:4], batches[4:]))
    assert (len(first), len(second)) == (64, 64)
    assert not torch.equal(batches[0].tokens, batches[4].tokens)


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_reading_goes_on_at_the_very_sample(read, stop):
    content = [*pairs(40), *BAD, *pairs(30, 40)]
    whole = taken(read(content, 16), 9)
    rest = taken(read(content, 16, start=whole[stop - 1].after), 9 - stop)
    assert same(whole[stop:], rest)


def test_worker_processes_change_nothing(read):
    content = [*pairs(40), *BAD, *pairs(30, 40)]
    assert same(taken(read(content, 16), 6), taken(read(content, 16, workers=2), 6))


def test_ranks_together_read_the_batches_of_one_process(read):
    whole = taken(read(pairs(70), 16), 9)
    parts = [taken(read(pairs(70), 16, rank=rank, world=2), 9) for rank in (0, 1)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(batch.images, torch.cat([half.images for half in halves]))
        assert torch.equal(batch.tokens, torch.cat([half.tokens for half in halves]))


def test_parts_together_are_the_batch(read):
    whole = taken(read(pairs(70), 16), 5)
    parts = taken(read(pairs(70), 16, size=4), 20)
    for number, batch in enumerate(whole):
        own = parts[4 * number : 4 * number + 4]
        assert torch.equal(batch.images, torch.cat([part.images for part in own]))
        assert batch.after == own[-1].after


def test_both_layouts_read_the_same(read):
    own = taken(read(pairs(40), 16), 5)
    theirs = taken(read(pairs(40), 16, name="b.tar", suffixes=("png", "txt")), 5)
    assert same(own, theirs)


def test_unusable_samples_are_skipped_and_counted(read):
    batches = taken(read([*pairs(40), *BAD, *pairs(24, 40)], 16, transform="eval"), 4)
    tokens = {tuple(row) for batch in batches for row in batch.tokens.tolist()}
    assert len(tokens) == 64
    assert batches[-1].after == Position(1, 0, 0, {"undecodable": 2, "empty_caption": 2})


def test_the_first_samples_stand_in_where_too_few_are_usable(read):
    whole = taken(read([*pairs(29), *BAD[:3]], 16), 4)
    assert [batch.after.epoch for batch in whole] == [0, 1, 1, 2]
    assert whole[1].after.skipped == {"undecodable": 2, "empty_caption": 1}
    seen = [tuple(row) for batch in whole[:2] for row in batch.tokens.tolist()]
    assert len(set(seen)) == 29
    assert same(whole[2:], taken(read([], 16, start=whole[1].after), 2))


def test_nothing_usable_is_an_error_and_not_an_endless_loop(read):
    with pytest.raises(ShardError, match="none of the 8 pairs"):
        taken(read(BAD * 2, 4), 1)
    with pytest.raises(ShardError, match="none of the 8 pairs"):
        taken(read(BAD * 2, 4, workers=1), 1)


def test_fewer_pairs_than_a_batch_are_refused(read):
    with pytest.raises(ShardError, match=r"hold 3 pairs and train\.batch is 4"):
        read(pairs(3), 4)


@pytest.mark.parametrize("text", ["word " * 3_000, "снимок аэропорта 空港", "\x00\ud7ff", "a" * 100_000])
def test_any_text_becomes_tokens(read, text):
    (batch,) = taken(read([(pair(1)[0], text), pair(2)], 2), 1)
    assert batch.tokens.shape == (2, 16)
    assert not batch.after.skipped


def test_a_caption_that_is_no_utf8_is_read_with_replacements(trainee, tmp_path):
    from stages.tars import TarWriter

    with TarWriter(tmp_path / "a.tar") as tar:
        tar.add("1.png", pair(1)[0])
        tar.add("1.txt", b"a caf\xe9 from above")
    samples = samples_of(trainee, tmp_path / "a.tar")
    assert samples.captions() == ["a caf\ufffd from above"]
    assert samples[0, [0]].verdicts == ("",)
