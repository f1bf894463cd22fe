"""Tars and folders as people hold them: written by webdataset's own writer, shaped like img2dataset's and RS5M's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import webdataset as wds

from manifests.sources import SourceSpec
from manifests.store import Store
from stages.shard.pack import Pack
from tests.stages.archive_making import jpeg
from tests.stages.handing import Handed, perform, rows_of, store_images


def held(layout: str = "webdataset", **said: Any) -> SourceSpec:
    """Return a source of one's own as a recipe that says nothing else of it makes one."""
    return SourceSpec.model_validate({"key": "mine", "name": "mine", "format": layout, "keywords": "all"} | said)


def write_wds(file: Path, samples: Mapping[str, Mapping[str, bytes]]) -> str:
    """Write samples, ending to body by key, with webdataset's writer; return the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with wds.TarWriter(str(file)) as tar:
        for key, members in samples.items():
            tar.write({"__key__": key, **members})
    return file.name


def img2dataset_sample(number: int, caption: str, **changed: Any) -> dict[str, bytes]:
    """Return the members that img2dataset writes of one download."""
    record = {
        "url": f"https://a.org/{number}.jpg", "caption": caption, "key": f"{number:09d}", "status": "success",
        "error_message": None, "width": 256, "height": 200, "original_width": 1024, "original_height": 800,
        "exif": "{}", "sha256": "0" * 64, "similarity": 0.31, "LICENSE": "?",
    } | changed  # fmt: skip
    return {"jpg": jpeg(number), "txt": caption.encode(), "json": json.dumps(record, indent=4).encode()}


def rs5m_tar(store: Store, captions: Mapping[str, str], name: str = "pub11-train-0000") -> str:
    """Write a released tar with shard.pack, image n by `jpeg`; return its path."""
    places = store_images(store, "i.tar", *(jpeg(number) for number in range(len(captions))))
    plan = rows_of("plan", *(
        {"tar": name, "position": n, "sample_id": key, "source": "cc3m", "img_name": f"cc3m_{key}.jpg",
         "caption": caption, "image_tar": place.tar, "offset": place.offset, "length": place.length,
         "sha256": place.sha256}
        for n, ((key, caption), place) in enumerate(zip(captions.items(), places, strict=True))
    ))  # fmt: skip
    return perform(Pack(), Handed(store, {("shard.plan", "plan"): plan}), partition=name).files("tar")[0]
