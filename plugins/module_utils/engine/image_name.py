# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image's name says: its registry, repository, tag and digest; and for which machines an image is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HUB = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")

# The engine names the machine as uname does, images name it as Go does.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}
# Which other machines' programs a machine runs as they are.
_ALSO = {"amd64": "386", "arm64": "arm"}


@dataclass(frozen=True)
class ImageName:
    """An image's full name. `tag` is '' when only a digest was given."""

    host: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def reference(self) -> str:
        """What a registry is asked for: where there is a digest it counts, and not the tag beside it."""
        return self.digest or self.tag


def image_name(text: str) -> ImageName | None:
    """`text` as Docker reads it; None for what is no name of an image."""
    rest, _at, digest = text.partition("@")
    first, slash, after = rest.partition("/")
    if slash and (first == "localhost" or re.search(r"[.:\[]|[A-Z]", first)):
        host, rest = first, after
    else:
        host = HUB
    path, colon, tag = rest.rpartition(":")
    if not colon:
        path, tag = rest, ""
    if host == "index.docker.io":
        host = HUB
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    if colon and not tag:
        return None
    tag = tag or ("" if digest else "latest")
    if not _REPOSITORY.fullmatch(path) or (tag and not _TAG.fullmatch(tag)):
        return None
    if _at and not _DIGEST.fullmatch(digest):
        return None
    return ImageName(host, path, tag, digest)


@dataclass(frozen=True)
class Platform:
    """A kind of machine, in the words of images: linux/arm64, linux/arm/v7."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Platform:
        """Out of an image's configuration, an index' entry, or the engine's account of itself."""
        found = {key.lower(): str(value or "") for key, value in document.items() if isinstance(value, str)}
        machine = found.get("architecture") or found.get("arch") or ""
        return cls(found.get("os") or "linux", _ARCHITECTURES.get(machine, machine), found.get("variant", ""))

    @classmethod
    def named(cls, text: str) -> Platform:
        """Out of a service's `platform`: linux/amd64, or amd64."""
        parts = text.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        machine = _ARCHITECTURES.get(parts[1], parts[1])
        return cls(parts[0], machine, parts[2] if len(parts) > 2 else "")

    def runs(self, other: Platform) -> bool:
        """Whether a machine of this kind runs an image for `other`."""
        if self.os != other.os:
            return False
        if self.architecture != other.architecture:
            return _ALSO.get(self.architecture) == other.architecture
        return not self.variant or not other.variant or other.variant <= self.variant


def suits(wanted: Platform, offered: Iterable[Platform]) -> bool:
    return any(wanted.runs(platform) for platform in offered)
