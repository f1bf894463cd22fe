"""From the recipe's table [store] to the options of a Store: each SDK has words of its own for the same things."""

from __future__ import annotations

from typing import Any

from manifests.recipe import StoreAccess

_S3 = ("s3", "s3a")
_ENDPOINT = {
    "s3": "endpoint_url",
    "s3a": "endpoint_url",
    "gs": "endpoint_url",
    "gcs": "endpoint_url",
    "oss": "endpoint",
}


def store_options(uri: str, access: StoreAccess) -> dict[str, Any]:
    """Return what `manifests.store.Store` is told of a workdir; what is not set is left to the SDK and its environment.

    Raises:
        ValueError: If a setting means nothing to this kind of store, or the URI names no bucket.
    """
    if "://" not in uri:
        return {}
    kind = uri.partition("://")[0].rpartition("::")[2]
    if kind in _ENDPOINT and not uri.partition("://")[2].partition("/")[0]:
        raise ValueError(f"names no bucket; write {kind}://BUCKET/FOLDER")
    options: dict[str, Any] = {"patience_s": access.patience_s}
    if access.endpoint:
        if kind not in _ENDPOINT:
            raise ValueError(f"store.endpoint is of no use to {kind}://; leave it out")
        options[_ENDPOINT[kind]] = access.endpoint
    if kind not in _S3:
        if named := [name for name in ("profile", "region") if getattr(access, name)]:
            raise ValueError(f"store.{named[0]} is of no use to {kind}://; leave it out")
        return options
    if access.profile:
        options["profile"] = access.profile
    if access.region:
        options["client_kwargs"] = {"region_name": access.region}
    options["config_kwargs"] = {"max_pool_connections": access.concurrency}
    if access.attempts:
        options["config_kwargs"]["retries"] = {"total_max_attempts": access.attempts, "mode": "standard"}
    return options
