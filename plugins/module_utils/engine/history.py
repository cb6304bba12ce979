# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of a project's images: what each was built from, and which ones ran well.

In a small file on the target, because nothing in the engine can bear it. A label would have to be in the image, and so
change it; the label of a container cannot be changed when a build brings the same image again; a tag for each build
would fill `docker images`, and keep images alive that somebody wants to remove. When the file is lost nothing is wrong:
an image is built out of the cache once more, and pruning keeps the youngest images instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report.finding import INFO, Finding
from . import memory

_VERSION = 1
# What more images than these were built from is forgotten: only the one that a name means now is ever asked for.
_BUILDS = 20


@dataclass(frozen=True)
class History:
    """By service: the digest of what an image was built from; the images that ran well, the latest last; and of files
    that the build itself alters, the digests of the source and of what becomes of it."""

    built: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ran: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    altered: Mapping[str, Mapping[str, tuple[str, str]]] = field(default_factory=dict)

    def built_from(self, service: str, image_id: str | None) -> str:
        """The digest of what an image of `service` was built from; '' where that is not known."""
        return self.built.get(service, {}).get(image_id or "", "")

    def altered_to(self, service: str, path: str) -> tuple[str, str] | None:
        return self.altered.get(service, {}).get(path)

    def with_built(self, service: str, image_id: str, digest: str) -> History:
        builds = {known: was for known, was in self.built.get(service, {}).items() if known != image_id}
        kept = [*builds.items(), (image_id, digest)][-_BUILDS:]
        return History({**self.built, service: dict(kept)}, self.ran, self.altered)

    def with_ran(self, service: str, image_ids: Iterable[str]) -> History:
        now = tuple(sorted(set(image_ids)))
        before = self.ran.get(service, ())
        if not now or sorted(before[-len(now) :]) == list(now):
            return self
        order = (*(known for known in before if known not in now), *now)
        return History(self.built, {**self.ran, service: order}, self.altered)

    def with_altered(self, service: str, files: Mapping[str, tuple[str, str]]) -> History:
        return History(self.built, self.ran, {**self.altered, service: dict(files)})

    def without_images(self, gone: Iterable[str]) -> History:
        lost = set(gone)
        return History(
            {name: {key: was for key, was in builds.items() if key not in lost} for name, builds in self.built.items()},
            {name: tuple(key for key in order if key not in lost) for name, order in self.ran.items()},
            self.altered,
        )


def read(host: str, project: str) -> History:
    """What is known of `project` on the engine at `host`; nothing where that cannot be read."""
    try:
        return _decoded(memory.read(memory.place("", host, project)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return History()


def write(host: str, project: str, known: History) -> bool:
    """Puts `known` in place of what was known; whether that went well. The caller holds the project's lock."""
    document = {"v": _VERSION, "built": known.built, "ran": known.ran, "altered": known.altered}
    return memory.write(memory.place("", host, project), document)


def not_kept(project: str) -> Finding:
    what = f"what its images were built from and which ran well cannot be written to {memory.state_directory()}"
    how = "Make room there, or let this user write there: until then images are built out of the cache again"
    return Finding(INFO, project, "history-not-kept", what, how)


def _decoded(document: Any) -> History:
    if document["v"] != _VERSION:
        return History()
    return History(
        {str(name): {str(key): str(was) for key, was in entry.items()} for name, entry in document["built"].items()},
        {str(name): tuple(map(str, order)) for name, order in document["ran"].items()},
        {
            str(name): {str(path): (str(pair[0]), str(pair[1])) for path, pair in entry.items()}
            for name, entry in document["altered"].items()
        },
    )
