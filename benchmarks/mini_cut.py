"""How well the outlier cut of the miniature build does against what its world knows of every picture.

Needs a settled ``build/mini`` (`make run`), or another workdir as argument. Prints what stayed and what left by kind of
picture, and precision and recall of what stayed, overhead pictures being the positives.
"""

import sys

import polars as pl

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import planner_over
from pipeline.line import step_named


def main() -> None:
    workdir = sys.argv[1] if len(sys.argv) > 1 else "build/mini"
    planner, _ = planner_over(load_recipe("mini"), Store(workdir), reading=True)

    def table(step: str, name: str) -> pl.DataFrame:
        manifests = planner.plan(step_named(step)).settled().values()
        return pl.concat(
            [pl.read_parquet(f"{workdir}/{o.path}") for m in manifests for o in m.outputs if o.name == name]
        )

    truth = pl.read_parquet(f"{workdir}/world/truth.parquet").filter(pl.col("kind").is_not_null())
    kinds = truth.unique(["source", "url"]).select("source", "url", "kind")
    candidates = (
        table("filter.pool", "candidates").filter(pl.col("subset") == "pub11").select("sample_id", "source", "url")
    )
    pool = table("outlier.embed", "scores").join(candidates, on="sample_id").join(kinds, on=["source", "url"])
    stays = pl.col("sample_id").is_in(table("outlier.cut", "survivors")["sample_id"].to_list())
    pool = pool.with_columns(stays.alias("stays"), (pl.col("kind") == "tile").alias("overhead"))
    (facts,) = (m.facts for m in planner.plan(step_named("outlier.cut")).settled().values())
    print(f"{pool.height} pictures after duplicates; cuts: VLM {facts['vlm_cut']}, detector {facts['detector_cut']}")
    for (kind,), part in sorted(pool.partition_by("kind", as_dict=True).items()):
        print(f"{kind:<10} {part['stays'].sum():>4} stayed {part.height - part['stays'].sum():>4} left")
    both = pool.filter("stays", "overhead").height
    print(
        f"precision {both / pool['stays'].sum():.3f}, recall {both / pool['overhead'].sum():.3f} (of overhead pictures)"
    )


if __name__ == "__main__":
    main()
