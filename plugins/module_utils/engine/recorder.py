# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks Compose what it would create, without creating anything.

A view that takes every creation down and answers as if it had been done. The bodies tell what Compose would have made,
its own hash included, also for files whose resolved form Compose cannot read back (a dollar in a key, a limit of -1).
"""

from __future__ import annotations

import json
import threading
from typing import Any

from .successor import LABEL_HASH, LABEL_SERVICE
from .view import Handler, View


class Recorder(View):
    """Records the hash of each service of which Compose creates a container."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hashes: dict[str, str] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    @property
    def handler(self) -> type[Handler]:
        return _Recording

    def record(self, body: dict[str, Any]) -> str:
        """Takes a creation down; returns the id that Compose is told."""
        labels = body.get("Labels") or {}
        with self.lock:
            container_id = f"{len(self.documents) + 1:064x}"
            self.hashes[labels.get(LABEL_SERVICE, "")] = labels.get(LABEL_HASH, "")
            self.documents[container_id] = {
                "Id": container_id,
                "Name": f"/recorded-{len(self.documents)}",
                "Config": {"Labels": labels},
                "State": {"Status": "created"},
                "NetworkSettings": {"Networks": {}},
            }
        return container_id


class _Recording(Handler):
    view: Recorder

    def _create(self, _path: str, _query: str) -> None:
        self.respond(201, {"Id": self.view.record(json.loads(self.body())), "Warnings": []})

    def _resource(self, _kind: str) -> None:
        name = json.loads(self.body()).get("Name", "")
        self.respond(201, {"Id": name, "Name": name, "Warning": ""})

    def _connect(self) -> None:
        self.body()
        self.respond(200, {})

    def _inspect(self, container_id: str) -> None:
        if container_id in self.view.documents:
            self.respond(200, self.view.documents[container_id])
        else:
            super()._inspect(container_id)

    def _inject(self, _container_id: str) -> None:
        self.body()
        self.respond(200, {})
