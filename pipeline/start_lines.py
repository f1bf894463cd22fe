"""What a run that asks the web says before it does: settings that lower safety, and what the engine lacks."""

from __future__ import annotations

from typing import get_args

from manifests.recipe import Recipe
from manifests.source_specs import enabled_specs
from manifests.sources import HeldFormat


def download_lines(recipe: Recipe) -> list[str]:
    """Return one line for each thing to be known before the web is asked under these settings.

    Raises:
        RecipeError: A source of the recipe is not known.
    """
    settings, lines = recipe.download, []
    if settings.allow_private:
        lines.append("download.allow_private is on: addresses of this machine and its network may be dialled")
    words = {
        "robots": "robots.txt is not asked for",
        "headers": "X-Robots-Tag is not heeded",
        "tdm": "TDM reservations are not heeded",
    }
    for name, what in words.items():
        if not getattr(settings.consent, name):
            lines.append(f"download.consent.{name} is off: {what}, and what owners refuse there is taken")
    if settings.engine == "img2dataset":
        from stages.download.img2dataset_engine import LACKS

        lines += [f"download.engine is img2dataset, which lacks: {lack}" for lack in LACKS]
    elif not settings.contact and recipe.world is None and _asks_the_web(recipe):
        lines.append("download.contact is empty: site owners cannot reach you; --set download.contact=URL or ADDRESS")
    return lines


def _asks_the_web(recipe: Recipe) -> bool:
    held = get_args(HeldFormat)
    return any(spec.subset == "pub11" and spec.format not in held for spec in enabled_specs(recipe).values())
