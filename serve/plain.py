"""The endpoint as one process without Ray: the same service, for replays and for trying things out."""

from __future__ import annotations

import threading
from typing import Any

import uvicorn

from kit.errors import UserError
from kit.memory import keep_freed_memory
from serve.config import ServeConfig, tokens
from serve.deploy import changes, wanted
from serve.http import create_app
from serve.registry import Registry
from serve.service import Service


def serve_plainly(config: ServeConfig, registry: Registry, **options: Any) -> None:
    """Until it is interrupted; follows the registry. `options` are uvicorn's."""
    keep_freed_memory()
    service = Service(config.endpoint)
    versions = wanted(registry)
    if not _load(service, registry, versions):
        raise UserError(service.trouble)

    def follow() -> None:
        for newer in changes(registry, versions):
            _load(service, registry, newer)

    threading.Thread(target=follow, name="registry", daemon=True).start()
    app = create_app(service, registry, *tokens())
    uvicorn.run(app, host=config.host, port=config.port, log_level="warning", **options)


def _load(service: Service, registry: Registry, versions: dict[str, list[str]]) -> bool:
    try:
        folders = {state: [registry.bundle_of(version) for version in these] for state, these in versions.items()}
    except UserError as error:
        service.trouble = str(error)
        return False
    return service.load(folders)
