"""The table of tags that is read without open_clip, held to what open_clip itself says."""

import warnings

import pytest

from manifests.open_clip_tags import TagSource, tag_source
from stages import torchvision_shim


def test_every_tag_of_open_clip_is_found_where_it_is_published():
    torchvision_shim.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained
    listed = list_pretrained()
    assert len(listed) > 100
    for model, tag in listed:
        config = get_pretrained_cfg(model, tag)
        assert tag_source(model, tag) == TagSource(config["hf_hub"], config["url"]), (model, tag)
        assert {"mean", "std", "interpolation", "resize_mode"} <= set(config)  # what a tag brings beside its weights


@pytest.mark.parametrize(("model", "tag"), [("ViT-B-33", "openai"), ("ViT-B-32", "none"), ("", "")])
def test_what_is_not_listed(model, tag):
    assert tag_source(model, tag) is None


def test_tags_are_written_either_way():
    assert tag_source("ViT-B-32", "LAION2B-s34b_b79k") == tag_source("ViT-B-32", "laion2b_s34b_b79k") is not None
