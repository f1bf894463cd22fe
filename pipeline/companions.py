"""Files that belong to every file of rows of a source: VG's image data, YFCC15M's list of ids, SBU's captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from manifests.recipe_files import RecipeError
from manifests.sources import SourceSpec
from stages.uris import Named


@dataclass(frozen=True, slots=True)
class Companions:
    """A source's files, told apart.

    Attributes:
        rows: The files of rows, each with the companions that belong to it, by role.
        faults: What is missing or ambiguous, in words.
    """

    rows: list[tuple[Named, dict[str, Named]]]
    faults: list[str]


def tell_apart(spec: SourceSpec, files: Sequence[Named]) -> Companions:
    """Tell files of rows from their companions.

    A companion is known by its name, in any case. One that is alone in its role belongs to every file of rows; of
    several each belongs to those of its own folder.

    Args:
        spec: The source; `beside` names roles and patterns.
        files: All files that the recipe names.
    """
    by_role = {
        role: [file for file in files if fnmatchcase(_name(file), pattern.lower())]
        for role, pattern in spec.beside.items()
    }
    beside = {file.uri for found in by_role.values() for file in found}
    rows, faults = list[tuple[Named, dict[str, Named]]](), dict[str, None]()
    for file in files:
        if file.uri in beside:
            continue
        mine: dict[str, Named] = {}
        for role, found in by_role.items():
            fitting = found if len(found) == 1 else [other for other in found if _folder(other) == _folder(file)]
            if len(fitting) == 1:
                mine[role] = fitting[0]
            elif fitting:
                faults[_too_many(role, fitting)] = None
            elif _needs(spec, file):
                faults[_missing(spec, role, file, found)] = None
        rows.append((file, mine))
    if files and not rows:
        faults[f"only {_shown(files)} is named, which goes with files of rows; {_get(spec)}, and name those too"] = None
    return Companions(rows, list(faults))


def checked(spec: SourceSpec, files: Sequence[Named]) -> list[tuple[Named, dict[str, Named]]]:
    """Return the files of rows with their companions. Raises RecipeError for the first fault."""
    found = tell_apart(spec, files)
    if found.faults:
        raise RecipeError(f"sources.{spec.key}: {found.faults[0]}")
    return found.rows


def _needs(spec: SourceSpec, file: Named) -> bool:
    """Whether a file of rows is of no use alone: SBU's JSON has its captions inside, its list of urls has none."""
    return spec.format != "sbu" or ".json" not in _name(file)


def _missing(spec: SourceSpec, role: str, file: Named, found: Sequence[Named]) -> str:
    told = f"{_shown(found)} lie in other folders" if found else f"no file is named like {spec.beside[role]}"
    return (
        f"{file.uri} needs the file of its {role} beside it, and {told}; {_get(spec)}, and name it in "
        f"sources.{spec.key}.metadata too"
    )


def _too_many(role: str, found: Sequence[Named]) -> str:
    return f"{_shown(found)} are both files of {role} in one folder; name one of them, or part them by folder"


def _get(spec: SourceSpec) -> str:
    return f"get {spec.get or 'it'}" + (f" ({spec.home})" if spec.home else "")


def _shown(files: Sequence[Named]) -> str:
    return " and ".join(file.uri for file in files[:2])


def _name(file: Named) -> str:
    return PurePosixPath(file.uri).name.lower()


def _folder(file: Named) -> str:
    return str(PurePosixPath(file.uri).parent)
