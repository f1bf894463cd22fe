"""The report: the funnel in the published table's columns, every reason rows left for, and whether the laws hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from manifests.canonical import JsonValue
from manifests.ledger import RowCounts
from manifests.manifest import FORMAT, Manifest
from manifests.recipe import Recipe
from manifests.source_specs import enabled_specs
from manifests.sources import Published, SourceSpec
from manifests.store import Store
from pipeline.books import Books, chain_holds, committed, leak_counts, ledger_closes, read_books
from pipeline.download_facts import download_facts
from pipeline.funnel import FunnelRow, funnel, funnel_closes, total
from pipeline.line import LINE
from pipeline.planner import Planner
from pipeline.plans import PartitionPlan, StepPlan
from pipeline.runs import newest_events
from pipeline.worlds import world_facts

SUBSETS = ("pub11", "rs3")
_NOT_FACTS = {"keywords", "layout"}


def make_report(recipe: Recipe, store: Store, planner: Planner) -> dict[str, JsonValue]:
    """Return the report of what is committed under the current recipe (contracts, section 8).

    Args:
        recipe: The current recipe.
        store: The workdir.
        planner: Plans over it.

    Returns:
        A JSON document. ``complete``: every step is settled, but for what ``run.skip`` names. A source's partitions
        are those that hold rows of it; of a partition that is missing nobody knows whose rows it holds, so that it
        counts for each.
    """
    books = read_books(planner)
    specs = enabled_specs(recipe)
    leaks = leak_counts(planner)
    rows = funnel(books, specs, leaks_sought=bool(leaks))
    plans = [planner.plan(step) for step in LINE]
    failed = _failed_last_time(store)
    laws = [ledger_closes(planner), funnel_closes(books, rows), chain_holds(planner, books, recipe.run.skip)]
    return {
        "format": FORMAT,
        "recipe": recipe.name,
        "complete": all(_is_complete(plan, recipe) for plan in plans),
        "funnel": {subset: _funnel(subset, specs, rows) for subset in SUBSETS},
        "steps": [line for plan in plans for line in _step(plan, books, failed)],
        "leaks": [{"benchmark": name, **counts} for name, counts in leaks.items()],
        "keywords": _keywords(committed(plans[0])),
        "facts": {plan.step.name: facts for plan in plans if (facts := _facts(committed(plan)))},
        "unreadable": list[JsonValue](_unreadable(plans[0])),
        "staged": list[JsonValue](world_facts(store).get("staged", [])),
        "skip": list[JsonValue](recipe.run.skip),
        "laws": [asdict(law) for law in laws],
    }


def _unreadable(plan: StepPlan) -> list[str]:
    """Return what planning saw of metadata that is missing or cannot be read; its rows are in no count."""
    return list(dict.fromkeys(str(p.params["problem"]) for p in plan.partitions if "problem" in p.params))


def _is_complete(plan: StepPlan, recipe: Recipe) -> bool:
    return not plan.waiting and all(p.state == "done" or p.name in recipe.run.skip for p in plan.partitions)


def _funnel(subset: str, specs: Mapping[str, SourceSpec], rows: Mapping[str, FunnelRow]) -> JsonValue:
    mine = {key: spec for key, spec in specs.items() if spec.subset == subset}
    listed: list[JsonValue] = [
        {
            "source": key,
            "name": spec.name,
            **asdict(rows[key]),
            "published": _published(spec.published),
            **_archive(spec),
        }
        for key, spec in mine.items()
    ]
    return {"rows": listed, "total": {**asdict(total(rows[key] for key in mine)), "published": _sum(mine.values())}}


def _archive(spec: SourceSpec) -> dict[str, JsonValue]:
    """Return what the published table of archives says beside the counts."""
    if spec.subset != "rs3":
        return {}
    return {"original_split": spec.original_split.capitalize(), "has_class_label": spec.has_class_label}


def _published(row: Published | None) -> JsonValue:
    return row.model_dump(mode="json") if row else None


def _sum(specs: Iterable[SourceSpec]) -> JsonValue:
    """Return the published numbers of the listed sources, added up."""
    published = [spec.published.model_dump(exclude={"amount_text"}) for spec in specs if spec.published]
    return {name: sum(row[name] for row in published) for name in published[0]} if published else None


def _step(plan: StepPlan, books: Books, failed: frozenset[str]) -> list[JsonValue]:
    empty = RowCounts.model_validate({"in": 0, "kept": 0})
    missing = {str(p.params["source"]) for p in plan.partitions if "source" in p.params}
    sources = sorted({*books.get(plan.step.name, {}), *missing})
    return [
        {
            "step": plan.step.name,
            "source": source,
            **books.get(plan.step.name, {}).get(source, empty).model_dump(by_alias=True),
            "partitions": _partitions(plan, source, failed),
        }
        for source in sources
    ]


def _partitions(plan: StepPlan, source: str, failed: frozenset[str]) -> JsonValue:
    counts: dict[str, JsonValue] = {}
    states = [_state(p, failed) for p in plan.partitions if _holds(p, source)]
    for state in ("done", "open", "failed", "missing"):
        counts[state] = states.count(state)
    return counts


def _state(partition: PartitionPlan, failed: frozenset[str]) -> str:
    if partition.state != "todo":
        return partition.state
    return "failed" if partition.name in failed else "missing"


def _holds(partition: PartitionPlan, source: str) -> bool:
    if "source" in partition.params:
        return partition.params["source"] == source
    return partition.state == "todo" or partition.manifest is None or source in partition.manifest.rows


def _failed_last_time(store: Store) -> frozenset[str]:
    """Return the partitions that failed in the newest run, by the events it left."""
    lines = newest_events(store)
    events = [json.loads(line) for line in lines if b'"partition_failed"' in line and line.endswith(b"}")]
    return frozenset(f"{event['step']}/{event['partition']}" for event in events)


def _keywords(manifests: list[Manifest]) -> dict[str, JsonValue]:
    """Return how many kept rows each keyword matched, per source, the most frequent first."""
    sums: dict[str, dict[str, int]] = {}
    for manifest in manifests:
        found = manifest.facts.get("keywords")
        for source in manifest.rows:
            counts = sums.setdefault(source, {})
            for keyword, rows in found.items() if isinstance(found, dict) else ():
                counts[keyword] = counts.get(keyword, 0) + int(str(rows))
    return {source: _most_first(counts) for source, counts in sorted(sums.items())}


def _most_first(counts: Mapping[str, int]) -> JsonValue:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict[str, JsonValue](ordered)


def _facts(manifests: list[Manifest]) -> dict[str, JsonValue]:
    """Return what a step's commits state: counts added up, other values as they are, and what `download_facts` sums."""
    sums: dict[str, JsonValue] = {}
    for manifest in manifests:
        for name, value in manifest.facts.items():
            if name not in _NOT_FACTS and isinstance(value, int):
                sums[name] = value + int(str(sums.get(name, 0)))
            elif name not in _NOT_FACTS and isinstance(value, float | str):
                sums[name] = value  # a cut, or what every commit of a step says alike
    return sums | download_facts([manifest.facts for manifest in manifests])
