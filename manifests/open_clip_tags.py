"""Where open_clip gets the weights of its tags, without importing it: its import takes torch and seconds.

The table is read out of the source of open_clip's ``pretrained.py``, never run: ``NAME = dict(TAG=_pcfg(url=...,
hf_hub=...), ...)`` and ``_PRETRAINED = {MODEL: NAME or dict(...)}``. Tests hold it to what open_clip itself says.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = "_PRETRAINED"
_QUICK = "-quickgelu"  # open_clip lists such models as copies of those without it


@dataclass(frozen=True, slots=True)
class TagSource:
    """Where a tag's weights are published.

    Attributes:
        hub: ``ORG/NAME/`` or ``ORG/NAME/FILE`` on the hub, which open_clip prefers; may be empty.
        url: Any other address; may be empty.
    """

    hub: str
    url: str


def tag_source(model: str, tag: str) -> TagSource | None:
    """Return where open_clip gets the weights ``model``/``tag``; None for what it does not list."""
    models = _models()
    tags = models.get(model) or models.get(model.removesuffix(_QUICK)) or {}
    return tags.get(tag.lower().replace("-", "_"))


@cache
def _models() -> dict[str, dict[str, TagSource]]:
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        return {}
    named: dict[str, dict[str, TagSource]] = {}
    for node in ast.parse(Path(package.origin).with_name("pretrained.py").read_text("utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id == _TABLE and isinstance(node.value, ast.Dict):
            listed = zip(node.value.keys, node.value.values, strict=True)
            return {_text(model): _tags(tags, named) for model, tags in listed}
        named[node.targets[0].id] = _tags(node.value, named)
    return {}


def _tags(node: ast.expr, named: dict[str, dict[str, TagSource]]) -> dict[str, TagSource]:
    if isinstance(node, ast.Name):
        return named.get(node.id, {})
    if not isinstance(node, ast.Call):
        return {}
    return {call.arg: _source(call.value) for call in node.keywords if call.arg and isinstance(call.value, ast.Call)}


def _source(call: ast.Call) -> TagSource:
    told = {keyword.arg: _text(keyword.value) for keyword in call.keywords}
    return TagSource(told.get("hf_hub", ""), told.get("url", ""))


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
