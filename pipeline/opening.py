"""Opening a workdir for a command: which recipe holds there, and how its store is reached.

Everything heavy is imported inside, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manifests.recipe import Recipe, StoreAccess
    from manifests.store import Store

BRIEF_PATIENCE_S = 20.0
"""How long a command that only reads asks a store that does not answer: a person waits for it, and nothing is lost."""


def open_new(recipe: str, workdir: str, overrides: list[str], *, brief: bool = False) -> tuple[Recipe, Store]:
    """Open a workdir that need not be one yet; ``brief``: asked for no longer than `BRIEF_PATIENCE_S`."""
    from manifests.recipe_files import load_recipe

    settings = load_recipe(recipe, overrides)
    return settings, _store(workdir or f"build/{settings.name}", _asked(settings.store, overrides, brief=brief))


def open_existing(recipe: str, workdir: str, overrides: list[str], *, brief: bool = False) -> tuple[Recipe, Store]:
    """Open a workdir with the newest run's recipe, unless one is given; ``brief`` as in `open_new`."""
    from manifests.recipe_files import load_recipe, override_recipe
    from pipeline.runs import newest_recipe
    from pipeline.workdir import open_workdir, read_workdir

    default = load_recipe(recipe or "mini")
    access = _asked(_access(default, overrides), overrides, brief=brief)
    store = _store(workdir or f"build/{default.name}", access)
    read_workdir(store)
    settings = override_recipe((None if recipe else newest_recipe(store)) or default, overrides)
    store = _store(store.uri, _asked(settings.store, overrides, brief=brief))
    open_workdir(store, settings.name, create=False)
    return settings, store


def open_if_there(recipe: str, workdir: str, overrides: list[str]) -> tuple[Recipe, Store]:
    """Open a workdir for a look at what the recipe names; it need not be there, and is not asked for long."""
    from manifests.recipe_files import load_recipe, override_recipe
    from pipeline.runs import newest_recipe

    default = load_recipe(recipe or "mini")
    access = _asked(_access(default, overrides), overrides, brief=True)
    store = _store(workdir or f"build/{default.name}", access)
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


def _asked(access: StoreAccess, overrides: list[str], *, brief: bool) -> StoreAccess:
    """Return how to reach a workdir, not for long where that is enough and nobody said how long."""
    said = any(one.partition("=")[0].strip() == "store.patience_s" for one in overrides)
    if not brief or said or access.patience_s != type(access)().patience_s:
        return access
    return access.model_copy(update={"patience_s": BRIEF_PATIENCE_S})


def _store(uri: str, access: StoreAccess) -> Store:
    from manifests.patience import say_through
    from manifests.store import Store
    from manifests.store_options import store_options
    from pipeline.errors import UserError
    from pipeline.progress import stderr_say

    say_through(stderr_say)
    try:
        return Store(uri, store_options(uri, access))
    except (ImportError, ValueError) as error:  # fsspec's words: an unknown protocol, or a package to install
        raise UserError(f"--workdir {uri}: {error}") from error
