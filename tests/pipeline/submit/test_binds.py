"""What a container must see: the folders of every local path that a recipe names."""

from __future__ import annotations

from manifests.recipe_files import load_recipe
from pipeline.submit.binds import named_folders


def test_of_a_pattern_it_is_the_folder_before_the_first_wildcard_and_of_a_file_the_one_it_lies_in():
    recipe = load_recipe(
        "rs5m",
        [
            'sources.cc3m.metadata=["/data/cc3m/part-*/x.tsv", "/data/cc3m/more.tsv", "file:///data/a%20b/c.tsv"]',
            'sources.sbu.metadata=["s3://bucket/sbu/*.tsv", "below/the/workdir/*.tsv", "/sbu"]',
            "sources.vg.enabled=false",
            'sources.vg.metadata=["/not/this/*.tsv"]',
            'sources.wit.metadata=["/*/wit.tsv"]',
            'sources.wit.attributes="/data/wit/attributes.parquet"',
            'exclude.ids="/lists/gone.txt"',
            'dedup.benchmarks=["ucm=/eval/ucm/images.txt"]',
            'outlier.encoder="local-dir:/models/clip"',
            'outlier.detector="/heads/one.safetensors"',
            'caption.model="/models/deep/blip2"',
        ],
    )  # fmt: skip
    assert named_folders(recipe) == [
        "/data/a b", "/data/cc3m", "/data/wit", "/eval/ucm", "/heads", "/lists", "/models", "/sbu",
    ]  # fmt: skip
    assert named_folders(load_recipe("rs5m", [])) == []
