"""caption.choose: the top caption or the rotation rule's, by a seeded draw per image."""

from __future__ import annotations

import polars as pl

from manifests.identity import draw
from manifests.ledger import count_by_source
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame
from stages.caption.chain import steadiest
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

# The paper chooses between the two at random and does not say how often which.
_TOP_SHARE = 0.5
_JUDGED = ["sample_id", "index", "text", "rank_b", "rotation_variance"]


class Choose(Step):
    """Chooses one caption per image from its stored candidates. No model is touched."""

    name = "caption.choose"
    kind = "map"
    VERSION = 1
    reads = ("seed",)
    inputs = (Input("caption.generate", "survivors"), Input("caption.generate", "caption_candidates"))
    outputs = ("captions",)
    keeps = "captions"
    lanes = ("rs3",)

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Choose the partition's captions."""
        del prior
        survivors = tables.frame("caption.generate", "survivors", ["sample_id", "source"])
        judged = tables.frame("caption.generate", "caption_candidates", _JUDGED).sort("sample_id", "index")
        seed = task.settings.integer("seed")
        captions = pl.DataFrame(
            [_chosen(seed, str(name), mine) for (name,), mine in judged.group_by("sample_id", maintain_order=True)],
            schema=empty_frame(TABLES["captions"]).schema,
            orient="row",
        )
        return Result(
            outputs=[Output("captions", captions)],
            ledger=empty_frame(LEDGER),
            seen=count_by_source(survivors),
            kept=count_by_source(captions.join(survivors, on="sample_id")),
        )


def _chosen(seed: int, sample_id: str, judged: pl.DataFrame) -> tuple[str, str, str, str, str]:
    """Return a row of ``captions``: sample id, top, ssl, chosen, rule.

    The top caption is the second encoder's first; the other, "ssl" in the paper, has the least variance of its cosine
    over the rotated views, ties by the candidate's number.
    """
    texts = judged["text"].to_list()
    top = texts[judged["rank_b"].to_list().index(1)]
    steady = steadiest(judged["rotation_variance"].to_list())
    if steady is None:
        raise ValueError(f"{sample_id}: caption.generate kept it without a finite rotation variance")
    ssl = texts[steady]
    if top == ssl:
        return sample_id, top, ssl, top, "same"
    if draw("caption", seed, sample_id) < _TOP_SHARE:
        return sample_id, top, ssl, top, "top"
    return sample_id, top, ssl, ssl, "ssl"
