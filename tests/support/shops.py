# SPDX-License-Identifier: GPL-3.0-or-later
"""A project of one service whose image is built: what the tests of module `image` look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.engine import BUSYBOX, Project
from tests.support.stacks import STAY, Stack, contract, moved

READING = "io.shipshape.deploy.reading"


class Shop(Stack):
    """A project of one service whose image is built with an entrypoint."""

    @property
    def folder(self) -> Path:
        return self.project.folder

    def dockerfile(self, *lines: str, name: str = "Dockerfile") -> None:
        (self.folder / name).write_text("\n".join([f"FROM {BUSYBOX}", *lines]) + "\n", encoding="utf-8")

    def entrypoint(
        self, lines: int, version: str = "1.0.0", says: str = 'echo "Entrypoint $ENTRYPOINT_VERSION"'
    ) -> None:
        """A script of so many lines that says its version and stays."""
        head = ["#!/bin/sh", f'ENTRYPOINT_VERSION="{version}"', says]
        body = [f"# line {number}" for number in range(lines - len(head) - 2)]
        text = "\n".join([*head, *body, *STAY.split("; ")[:1], STAY.split("; ", 1)[1]]) + "\n"
        path = self.folder / "entrypoint.sh"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        assert text.count("\n") == lines

    def begin(self, lines: int = 114, *more: str, **keys: Any) -> None:
        self.entrypoint(lines)
        self.dockerfile("COPY entrypoint.sh /entrypoint.sh", *more, 'ENTRYPOINT ["/entrypoint.sh"]')
        self.write({"web": {"build": ".", **keys}})
        self.deploy()

    def image(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """One call of the module; whatever it says has to be true, and nothing of its reading may be left."""
        before = self.everything()
        call = self.call("image", check=check, **options)
        try:
            result = call.wait(120)
        finally:
            call.process.kill()
        self.printed += [call.stdout, call.stderr]
        assert not call.stderr, call.stderr
        contract(result)
        after = self.everything()
        if check or options.get("state", "verified") == "verified":
            assert before == after, moved(before, after)
        else:
            assert result["changed"] == (before != after), moved(before, after) or "nothing did"
        assert not self.reading()
        return result

    def everything(self) -> dict[str, Any]:
        """The project, and every image and volume of the engine that is the project's: reading leaves nothing."""
        label = {"label": [f"com.docker.compose.project={self.name}"]}
        images = {f"image {entry['Id']}": sorted(entry["RepoTags"] or []) for entry in self.api.images(filters=label)}
        return {**self.snapshot(), **images}

    def reading(self) -> list[dict[str, Any]]:
        """Containers made to read this project's images."""
        listed = self.api.containers(all=True, filters={"label": READING})
        own = {entry["Id"] for entry in self.api.images(filters={"label": [f"com.docker.compose.project={self.name}"]})}
        return [entry for entry in listed if entry["ImageID"] in own]

    def image_id(self) -> str:
        return str(self.api.inspect_image(f"{self.name}-web")["Id"])

    def fine(self, **options: Any) -> dict[str, Any]:
        result = self.image(**options)
        assert not result.get("failed"), result["msg"]
        return result

    def stale(self, **options: Any) -> dict[str, list[str]]:
        """Path to stale layers, of a call that has to fail."""
        result = self.image(**options)
        assert result.get("failed"), result
        entries = [entry for at in result["services"].values() for entry in at["stale"]]
        return {entry["path"]: entry["layers"] for entry in entries}


@contextmanager
def opened(project: Project) -> Iterator[Shop]:
    """The shop, and none of its images and containers afterwards."""
    shop = Shop(project, options={"stability": 0.2, "wait_timeout": 30})
    try:
        yield shop
    finally:
        label = {"label": [f"com.docker.compose.project={shop.name}"]}
        for entry in shop.api.containers(all=True, filters=label):
            shop.api.remove_container(entry["Id"], force=True, v=True)
        for entry in shop.api.images(filters=label):
            shop.api.remove_image(entry["Id"], force=True)
