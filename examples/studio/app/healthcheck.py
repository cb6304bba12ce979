# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's own healthcheck: `healthcheck.py web|worker`. Prints what it saw, which `docker inspect` shows."""

from __future__ import annotations

import http.client
import os
import sys
import time


def web() -> tuple[bool, str]:
    connection = http.client.HTTPConnection("localhost", 8000, timeout=4)
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    return response.status == 200, f"{response.status} {response.read(2000).decode()}"


def worker() -> tuple[bool, str]:
    """The worker touches this file each time it got round its loop through the database."""
    age = time.time() - os.stat(os.environ.get("STUDIO_HEARTBEAT", "/tmp/worker-heartbeat")).st_mtime
    return age < 15, f"heartbeat {age:.0f} s old"


if __name__ == "__main__":
    try:
        healthy, seen = {"web": web, "worker": worker}[sys.argv[1]]()
    except OSError as error:
        healthy, seen = False, str(error)
    print(seen)
    sys.exit(0 if healthy else 1)
