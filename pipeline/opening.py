"""Opening a workdir for a command: which recipe holds there, and how its store is reached.

Everything heavy is imported inside, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manifests.recipe import Recipe, StoreAccess
    from manifests.store import Store


def open_new(recipe: str, workdir: str, overrides: list[str]) -> tuple[Recipe, Store]:
    """Open a workdir that need not be one yet."""
    from manifests.recipe_files import load_recipe

    settings = load_recipe(recipe, overrides)
    return settings, _store(workdir or f"build/{settings.name}", settings.store)


def open_existing(recipe: str, workdir: str, overrides: list[str]) -> tuple[Recipe, Store]:
    """Open a workdir with the newest run's recipe, unless one is given."""
    from manifests.recipe_files import load_recipe, override_recipe
    from pipeline.runs import newest_recipe
    from pipeline.workdir import open_workdir, read_workdir

    default = load_recipe(recipe or "mini")
    store = _store(workdir or f"build/{default.name}", _access(default, overrides))
    read_workdir(store)
    settings = override_recipe((None if recipe else newest_recipe(store)) or default, overrides)
    store = _store(store.uri, settings.store)
    open_workdir(store, settings.name, create=False)
    return settings, store


def open_if_there(recipe: str, workdir: str, overrides: list[str]) -> tuple[Recipe, Store]:
    """Open a workdir for a look at what the recipe names; it need not be there."""
    from manifests.recipe_files import load_recipe, override_recipe
    from pipeline.runs import newest_recipe

    default = load_recipe(recipe or "mini")
    store = _store(workdir or f"build/{default.name}", _access(default, overrides))
    settings = (None if recipe else newest_recipe(store)) or default
    return override_recipe(settings, overrides), store


def open_to_train(recipe: str, workdir: str, overrides: list[str], *, needs_build: bool) -> tuple[Recipe, Store]:
    """Open a workdir for training; one that holds nothing but training is made when tars are named."""
    if needs_build:
        return open_existing(recipe, workdir, overrides)
    return open_new(recipe or "mini", workdir, overrides)


def _access(default: Recipe, overrides: list[str]) -> StoreAccess:
    """Return how to reach a workdir whose newest recipe is not read yet: by the default one and --set store.KEY."""
    from manifests.recipe_files import override_recipe

    return override_recipe(default, [one for one in overrides if one.lstrip().startswith("store.")]).store


def _store(uri: str, access: StoreAccess) -> Store:
    from manifests.store import Store
    from manifests.store_options import store_options
    from pipeline.errors import UserError

    try:
        return Store(uri, store_options(uri, access))
    except (ImportError, ValueError) as error:  # fsspec's words: an unknown protocol, or a package to install
        raise UserError(f"--workdir {uri}: {error}") from error
