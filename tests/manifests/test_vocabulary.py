import pytest

from manifests.vocabulary import load_vocabulary, make_vocabulary

SMALL = {
    "scenes": ["a harbor"],
    "objects": ["boats", "cars"],
    "templates": ["{scene}", "{scene} with {object} and {other}"],
    "scene_prompt": "an image of {scene}",
    "object_prompt": "an image with {object}",
}


def test_the_shipped_vocabulary():
    words = load_vocabulary("scenes-1")
    assert words.id == "scenes-1"
    assert (len(words.scenes), len(words.objects), len(words.templates)) == (38, 40, 7)
    assert words.digest == "01bd41a72f1c8fc103968e14e73d3b3945566bfb7f29bfb686a6e73f1dbb518b"
    every = {
        template.format(scene=scene, object=thing, other=other)
        for template in words.templates
        for scene in words.scenes
        for thing, other in zip(words.objects, words.objects[1:], strict=False)
    }
    assert all(text == " ".join(text.split()) and text.isascii() for text in every)


def test_the_digest_sees_any_edit():
    changes = [{}, {"scenes": ["a port"]}, {"objects": ["cars", "boats"]}, {"scene_prompt": "a photo of {scene}"}]
    assert len({make_vocabulary("x", SMALL | change).digest for change in changes}) == 4
    assert make_vocabulary("y", SMALL).digest == make_vocabulary("x", SMALL).digest


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no vocabulary 'scenes'; known: scenes-1"):
        load_vocabulary("scenes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenes": []}, "scenes must be texts"),
        ({"objects": ["boats", ""]}, "objects must be texts"),
        ({"objects": ["boats", " cars"]}, "objects must be texts"),
        ({"objects": ["boats"]}, "at least two"),
        ({"objects": ["boats", 3]}, "objects must be texts"),
        ({"scenes": ["a harbor", "a harbor"]}, "entry twice"),
        ({"templates": ["with {object}"]}, "must have {scene}"),
        ({"templates": ["{scene} {seed}"]}, "must have {scene}"),
        ({"templates": ["{scene.__class__}"]}, "must have {scene}"),
        ({"templates": ["{scene!r}"]}, "must have {scene}"),
        ({"templates": ["{scene} {"]}, "must have {scene}"),
        ({"templates": ["{scene} {}"]}, "must have {scene}"),
        ({"scene_prompt": "no field"}, "scene_prompt must have"),
        ({"object_prompt": "{scene} {object}"}, "object_prompt must have"),
        ({"more": 1}, "nothing else"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        make_vocabulary("x", SMALL | change)


def test_a_part_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="must have scenes"):
        make_vocabulary("x", {name: part for name, part in SMALL.items() if name != "objects"})
