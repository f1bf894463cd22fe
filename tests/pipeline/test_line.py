"""The line: its order, and how a part of it is named."""

import pytest

from pipeline.line import LINE, STAGES, select, step_named


def test_every_step_stands_after_what_it_reads():
    seen = set()
    for step in LINE:
        for wanted in step.inputs:
            assert wanted.step in seen, step.name
            assert wanted.table in step_named(wanted.step).outputs, step.name
        seen.add(step.name)
    assert len(seen) == len(LINE)


def test_a_stages_steps_stand_together_and_begin_the_line_with_the_metadata():
    assert [step.name for step in LINE if not step.inputs] == [LINE[0].name]
    runs = [
        name
        for i, name in enumerate(s.name.split(".")[0] for s in LINE)
        if i == 0 or LINE[i - 1].name.split(".")[0] != name
    ]
    assert tuple(runs) == STAGES


def test_the_rows_kept_have_an_output():
    assert all(step.keeps in step.outputs for step in LINE)


@pytest.mark.parametrize(
    ("stage", "until", "names"),
    [
        ("", "", [step.name for step in LINE]),
        ("filter", "", ["filter.match", "filter.pool"]),
        ("filter.pool", "", ["filter.pool"]),
        ("", "filter", ["filter.match", "filter.pool"]),
        ("", "filter.match", ["filter.match"]),
        ("", "download", ["filter.match", "filter.pool", "download.fetch"]),
    ],
)
def test_a_part_of_the_line_is_named_by_stage_or_step(stage, until, names):
    assert [step.name for step in select(stage, until)] == names


@pytest.mark.parametrize("where", ["stage", "until"])
def test_a_name_that_is_none_is_told_the_stages(where):
    with pytest.raises(ValueError, match=r"'dedupe'; the stages are filter, download, dedup"):
        select(**{where: "dedupe"})
    with pytest.raises(KeyError):
        step_named("dedup")
