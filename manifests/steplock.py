"""The step lock: which code each step's version stands for.

A step's ``VERSION`` is part of its fingerprint, so code that changes rows must raise it, or results made before would
be taken for results of the new code. ``steps.lock`` holds, for every step, its version and the digest of its code: the
syntax trees, without docstrings, of the step's module and of the modules of ``stages`` and ``manifests`` it imports,
however far. Modules that carry rows and make none (``_PLUMBING``) are left out. Comments, docstrings and layout do not
count. Where the code moved and the version did not, the check says what to do.

This module reads source files by path: contracts never import stages.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_LOCK = "manifests/steps.lock"
_PACKAGES = frozenset({"stages", "manifests"})
# What is declared, stored, counted or asked for: it says nothing of what stands in a row. What does (the gazetteer, the
# templates, identities and draws, ...) is followed, and so is every module that is added without being listed here.
_PLUMBING = frozenset(
    {"stages", "stages.step", "manifests"}
    | {
        f"manifests.{name}"
        for name in (
            "canonical", "commits", "fingerprint", "ledger", "manifest", "reasons", "recipe", "recipe_files",
            "recipe_train", "schemas", "steplock", "store", "tables",
        )
    }
)  # fmt: skip
_USAGE = "usage: python -m manifests.steplock check | ack STEP [STEP ...]\n"


class StepLockError(Exception):
    """Step code or a lock file that cannot be read: one line that says what to do."""


@dataclass(frozen=True, slots=True)
class LockedStep:
    """A step's version and the digest of its code."""

    version: int
    digest: str


def locked_steps(root: Path = _ROOT) -> dict[str, LockedStep]:
    """Return what the lock file says, by step name; empty without a file.

    Args:
        root: The folder that holds the three packages.

    Raises:
        StepLockError: If the file is no lock.
    """
    try:
        document = json.loads((root / _LOCK).read_text("utf-8"))
        return {str(name): LockedStep(int(e["version"]), str(e["digest"])) for name, e in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StepLockError(f"{root / _LOCK} is no step lock ({error}); restore it from version control") from error


def current_steps(root: Path = _ROOT) -> dict[str, LockedStep]:
    """Return version and code digest of every step in ``stages``, by name.

    A step is a class with a constant text ``name`` and a constant whole ``VERSION`` in its body.

    Raises:
        StepLockError: If two steps share a name.
    """
    found: dict[str, LockedStep] = {}
    for path in sorted((root / "stages").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for name, version in _steps_of(_tree(path)) if module not in _PLUMBING else ():
            if name in found:
                raise StepLockError(f"{path}: a second step is called {name}; every step has a name of its own")
            found[name] = LockedStep(version, code_digest(root, module))
    return dict(sorted(found.items()))


def code_digest(root: Path, module: str) -> str:
    """Return 32 hex digits over the syntax trees that ``module`` is made of.

    Args:
        root: The folder that holds the three packages.
        module: Dotted name of the module that defines the step.
    """
    digest = hashlib.blake2b(digest_size=16, person=b"rs5m-code-1")
    for name in _closure(root, module):
        digest.update(f"{name}\n".encode())
        for token in _tokens(_tree(_file(root, name))):
            digest.update(f"{token}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def complaints(root: Path = _ROOT) -> list[str]:
    """Return one line for every step whose code is not what the lock says; empty when all agree."""
    locked, current = locked_steps(root), current_steps(root)
    lines = [_complaint(name, locked.get(name), current.get(name)) for name in sorted({*locked, *current})]
    return [line for line in lines if line]


def acknowledge(names: Sequence[str], root: Path = _ROOT) -> None:
    """Record the code of the named steps as it is now.

    For an unchanged version this states that the step still makes the same rows.

    Raises:
        StepLockError: If neither the code nor the lock knows a step.
    """
    locked, current = locked_steps(root), current_steps(root)
    for name in names:
        if name not in current and name not in locked:
            raise StepLockError(f"no step is called {name!r}; the steps are {', '.join(current)}")
        locked.pop(name, None)
        locked |= {name: current[name]} if name in current else {}
    text = json.dumps({name: asdict(step) for name, step in locked.items()}, indent=1, sort_keys=True)
    (root / _LOCK).write_text(text + "\n", "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Check the lock, or acknowledge steps; returns the exit code."""
    match list(arguments):
        case ["check"]:
            lines = complaints()
            sys.stderr.write("".join(f"{line}\n" for line in lines))
            return 1 if lines else 0
        case ["ack", *names] if names:
            try:
                acknowledge(names)
            except StepLockError as error:
                sys.stderr.write(f"{error}\n")
                return 2
            return 0
    sys.stderr.write(_USAGE)
    return 2


def _complaint(name: str, locked: LockedStep | None, current: LockedStep | None) -> str:
    record = f"run `make ack-step NAME={name}`"
    if locked == current:
        return ""
    if current is None:
        return f"{name}: is in the lock and no longer in the code; {record} to take it out"
    if locked is None:
        return f"{name}: is not in the lock; {record} to record it"
    if locked.version == current.version:
        return (
            f"{name}: its code changed and VERSION {current.version} did not. If its rows may come out differently, "
            f"raise VERSION, then {record}; if they come out the same, {record} alone"
        )
    if current.version < locked.version:
        return f"{name}: VERSION {current.version} is lower than the locked {locked.version}; versions only rise"
    return f"{name}: VERSION was raised to {current.version}; {record} to record it"


def _steps_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            constants = dict(_constants(node))
            name, version = constants.get("name"), constants.get("VERSION")
            if isinstance(name, str) and isinstance(version, int):
                yield name, version


def _constants(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Constant):
            yield from ((t.id, value.value) for t in targets if isinstance(t, ast.Name))


def _closure(root: Path, module: str) -> list[str]:
    """Return ``module`` and what it imports of `stages` and `manifests` but for plumbing, sorted."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [m for m in _imports(root, _tree(_file(root, name))) if m not in _PLUMBING]
    return sorted(seen)


def _imports(root: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in _PACKAGES and _file(root, name).is_file():
                yield name


def _file(root: Path, module: str) -> Path:
    plain = root.joinpath(*module.split(".")).with_suffix(".py")
    return plain if plain.is_file() else root.joinpath(*module.split("."), "__init__.py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _tokens(node: object) -> Iterator[str]:
    """Yield a syntax tree as text that does not depend on the Python version: fields that are empty are left out."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f".{name}"
                yield from _tokens(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            if not _is_text_alone(item):
                yield from _tokens(item)
        yield "]"
    else:
        yield f"{type(node).__name__} {node!r}"


def _is_text_alone(node: object) -> bool:
    """Tell a docstring, or any other text that stands as a statement."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
