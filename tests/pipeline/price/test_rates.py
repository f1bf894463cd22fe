"""The table of rates: complete for every step of the line, and every figure says what it rests on."""

from __future__ import annotations

import tomllib
from dataclasses import fields

from pipeline.line import LINE
from pipeline.price.rates import TABLE, ModelRates, StepRates, load_rates

TOLD = tomllib.loads(TABLE.read_text(encoding="utf-8"))


def figures() -> dict[str, tuple[float, str]]:
    """Return every figure of the table by its place."""
    found = {}
    for kind in ("web", "run"):
        found |= {f"{kind}.{key}": tuple(figure) for key, figure in TOLD[kind].items()}
    for kind in ("steps", "models", "metadata", "worlds"):
        for name, rows in TOLD[kind].items():
            found |= {f"{kind}.{name}.{key}": tuple(figure) for key, figure in rows.items()}
    return found


def test_every_step_of_the_line_has_every_rate_and_no_other_step_has():
    assert set(load_rates().steps) == {step.name for step in LINE}
    for name, rows in TOLD["steps"].items():
        assert set(rows) == {field.name for field in fields(StepRates)}, name


def test_every_figure_is_a_number_with_a_known_provenance():
    for place, (value, by) in figures().items():
        assert isinstance(value, int | float), place
        assert value >= 0, place
        assert by in TOLD["by"], place


def test_a_measurement_names_command_machine_and_date_and_an_assumption_its_reason():
    for name, by in TOLD["by"].items():
        if by["kind"] == "measured":
            assert set(by) == {"kind", "how", "machine", "date"}, name
        else:
            assert by["kind"] == "assumed", name
            assert set(by) == {"kind", "how"}, name
        assert len(by["how"]) > 20, name
    assert set(TOLD["by"]) == {by for _, by in figures().values()}


def test_what_nobody_measured_is_marked():
    rates = load_rates()
    for table in ("web", "models.blip2", "models.clip-vit-h-14", "models.clip-convnext-xxl", "models.other"):
        assert rates.is_assumed(table), table
    assert not any(rates.is_assumed(table) for table in ("run", *(f"steps.{step.name}" for step in LINE)))


def test_a_model_that_is_not_listed_is_priced_as_another():
    name, rates = load_rates().model("open_clip:ViT-L-14/openai")
    assert name == "other"
    assert isinstance(rates, ModelRates)
    assert rates.gpu_s_per_image > 0
