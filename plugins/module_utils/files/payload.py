# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the contents of many scripts travel from the controller: one after the other, in one piece."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from ..report.finding import failure


def pack(contents: Iterable[bytes]) -> str:
    """All contents as text, for a module argument."""
    return base64.b64encode(zlib.compress(b"".join(contents), 6)).decode("ascii")


def unpack(packed: str) -> BinaryIO:
    """What `pack` packed, as a stream to cut slices from."""
    try:
        return io.BytesIO(zlib.decompress(base64.b64decode(packed, validate=True)))
    except (ValueError, zlib.error):
        raise failure(
            "transfer", "content-corrupt", "the scripts that arrived are not what was sent", "Run again"
        ) from None


class Slice:
    """A part of a stream, read like a stream of its own."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream = stream
        self._position = offset
        self._left = size

    def read(self, size: int = -1) -> bytes:
        self._stream.seek(self._position)
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._position += len(data)
        self._left -= len(data)
        return data
