# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of the traffic test: some upload a script without pause, others execute it without pause.

    writer_traffic.py upload DEST atomic|in-place     until it is terminated
    writer_traffic.py execute DEST COUNT              prints what it saw as JSON

Every version checks itself while it runs, from its first to its last line, so a torn or mixed one cannot pass.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import sys
from collections import Counter
from contextlib import suppress

from ansible_collections.shipshape.deploy.plugins.module_utils.files.atomic import Attributes, write


def text(version: str) -> bytes:
    """A version of the script; its length differs from its neighbours', so that a longer one's rest would show."""
    digest = hashlib.sha256(version.encode()).hexdigest()
    checks = int(digest[:2], 16) % 40 + 5
    lines = [
        "#!/bin/sh",
        f"v={version}",
        *[f"test $v = {version} || exit 9  # {digest} {number}" for number in range(checks)],
        f"echo $v {digest}",
        f"exit 0 # {version}",
    ]
    return "\n".join(lines).encode() + b"\n"


def upload(dest: str, how: str) -> None:
    for number in itertools.count():
        content = text(f"{os.getpid()}.{number}")
        if how == "atomic":
            write(dest, content, Attributes(mode=0o755))
        else:
            with suppress(OSError), open(dest, "wb") as stream:  # ETXTBSY: it is being executed
                stream.write(content)


def verdict(status: int, output: bytes) -> str:
    """`whole` for one complete version; anything else says what was wrong."""
    if os.waitstatus_to_exitcode(status) != 0:
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    words = output.decode().split()
    if len(words) != 2 or hashlib.sha256(words[0].encode()).hexdigest() != words[1]:
        return "torn output"
    return "whole"


def one_execution(dest: str, seen: Counter[str]) -> bytes:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream:
        try:
            # posix_spawn is vfork inside: the cheapest way to execute, and it returns the kernel's ETXTBSY.
            pid = os.posix_spawn(dest, [dest], {}, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
        except OSError as error:
            seen[errno.errorcode.get(error.errno or 0, "?")] += 1
            return b""
        finally:
            os.close(writing)
        output = stream.read()
    seen[verdict(os.waitpid(pid, 0)[1], output)] += 1
    return output


def execute(dest: str, count: int) -> None:
    seen: Counter[str] = Counter()
    versions = set()
    for _ in range(count):
        output = one_execution(dest, seen)
        versions.add(output)
    print(json.dumps({"seen": seen, "versions": len(versions)}))


if __name__ == "__main__":
    if sys.argv[1] == "upload":
        upload(sys.argv[2], sys.argv[3])
    else:
        execute(sys.argv[2], int(sys.argv[3]))
