"""What is said before the web is asked: settings that lower safety, an engine's gaps, a missing contact."""

import pytest

from manifests.recipe_files import load_recipe
from pipeline.start_lines import download_lines
from stages.download.img2dataset_engine import LACKS
from tests.pipeline.read_commands import ask

RS5M = ("rs5m", ["sources.cc3m.metadata=x.tsv", "download.contact=https://site.example/bot"])
NANO = "download.allow_private is on: addresses of this machine and its network may be dialled"


def test_a_recipe_of_the_web_with_a_contact_and_all_consent_says_nothing():
    assert download_lines(load_recipe(*RS5M)) == []


@pytest.mark.parametrize(
    ("name", "words"), [("robots", "robots.txt"), ("headers", "X-Robots-Tag"), ("tdm", "TDM reservations")]
)
def test_consent_that_is_off_is_named(name, words):
    (line,) = download_lines(load_recipe(RS5M[0], [*RS5M[1], f"download.consent.{name}=false"]))
    assert line.startswith(
        f"download.consent.{name} is off: {words} is not" if name != "tdm" else "download.consent.tdm"
    )
    assert words in line


def test_an_empty_contact_is_named_where_the_web_is_asked():
    (line,) = download_lines(load_recipe("rs5m", ["sources.cc3m.metadata=x.tsv", "download.contact="]))
    assert line == "download.contact is empty: site owners cannot reach you; --set download.contact=URL or ADDRESS"
    assert download_lines(load_recipe("nano")) == [NANO], "a world has no site owners"


def test_archives_and_held_images_have_no_site_owners_to_reach():
    off = [f"sources.{name}.enabled=false" for name in load_recipe("rs5m").enabled_sources()]
    mine = ["sources.mine.format=imagefolder", "sources.mine.metadata=pictures", "sources.mine.enabled=true"]
    assert download_lines(load_recipe("rs5m", [*off, *mine, "download.contact="])) == []
    assert download_lines(load_recipe("rs5m", [*off, "sources.fmow.enabled=true", "download.contact="])) == []


def test_what_the_other_engine_lacks_is_said_line_by_line():
    lines = download_lines(load_recipe(RS5M[0], [*RS5M[1], "download.engine=img2dataset"]))
    assert lines == [f"download.engine is img2dataset, which lacks: {lack}" for lack in LACKS]
    assert len(lines) >= 3


def test_it_is_said_only_by_runs_that_download(fresh):
    assert NANO not in ask(fresh, "run", "--until", "filter").err
    assert NANO in ask(fresh, "run", "--stage", "download", "--set", "run.rounds=1").err
