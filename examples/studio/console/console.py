# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators' page: asks each watched target anew whenever somebody looks, and shows what it answered."""

from __future__ import annotations

import html
import json
import re
import signal
import socket
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

USAGE = "flags: --listen=ADDRESS:PORT --watch=NAME=URL[;LABEL=VALUE]... --hide-label=NAME=VALUE... --check=URL"
NAME_VALUE = re.compile(r"([A-Za-z0-9_.-]+)=(.+)")
SECONDS = 4.0
STYLE = """
:root { color-scheme: light dark; --line: #8884 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1.25rem }
table { width: 100%; border-collapse: collapse }
td, th { text-align: left; padding: .5rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td:last-child { overflow-wrap: anywhere }
.ok { color: #15803d } .bad { color: #dc2626; font-weight: 600 }
"""


class UsageError(Exception):
    pass


@dataclass(frozen=True)
class Target:
    name: str
    url: str
    labels: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Settings:
    listen: tuple[str, int]
    targets: tuple[Target, ...]


def pair(text: str) -> tuple[str, str]:
    match = NAME_VALUE.fullmatch(text)
    if match is None:
        raise UsageError(f"expected NAME=VALUE got '{text}'")
    return match[1], match[2]


def target(text: str) -> Target:
    watched, *labels = text.split(";")
    name, url = pair(watched)
    if urlsplit(url).scheme not in ("http", "tcp"):
        raise UsageError(f"expected an http:// or tcp:// URL got '{url}'")
    return Target(name, url, frozenset(pair(label) for label in labels))


def parse(arguments: list[str]) -> Settings:
    listen, targets, hidden = ("127.0.0.1", 9000), [], set()
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag == "--listen":
            host, _, port = value.rpartition(":")
            if not (host and port.isdigit()):
                raise UsageError(f"expected ADDRESS:PORT got '{value}'")
            listen = (host, int(port))
        elif flag == "--watch":
            targets.append(target(value))
        elif flag == "--hide-label":
            hidden.add(pair(value))
        else:
            raise UsageError(f"unknown flag '{flag}', {USAGE}")
    return Settings(listen, tuple(found for found in targets if not found.labels & hidden))


def ask(watched: Target) -> tuple[bool, str]:
    began = time.perf_counter()
    parts = urlsplit(watched.url)
    try:
        if parts.scheme == "tcp":
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=SECONDS).close()
            seen = "accepts connections"
        else:
            # Targets of our own then answer in a line or two instead of a whole page or report.
            request = urllib.request.Request(watched.url, headers={"Accept": "text/plain"})
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                seen = f"{answer.status} {answer.read(300).decode(errors='replace').strip()}"
    except OSError as error:
        return False, str(error)
    return True, f"{seen} ({(time.perf_counter() - began) * 1000:.0f} ms)"


def look(targets: tuple[Target, ...]) -> list[tuple[Target, bool, str]]:
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        return [(found, *answer) for found, answer in zip(targets, pool.map(ask, targets), strict=True)]


def page(seen: list[tuple[Target, bool, str]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(found.name)}</td><td class={'ok' if ok else 'bad'}>{'answers' if ok else 'fails'}</td>"
        f"<td>{html.escape(text)}</td></tr>"
        for found, ok, text in seen
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Console · Studio</title><style>{STYLE}</style>"
        f"<h1>Console</h1><table><tr><th>Target</th><th>State</th><th>Seen just now</th></tr>{rows}</table></html>"
    )


def handler(settings: Settings) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen = look(settings.targets)
            if self.path == "/status.json":
                body = json.dumps([{"name": found.name, "ok": ok, "seen": text} for found, ok, text in seen])
                kind = "application/json"
            else:
                body, kind = page(seen), "text/html; charset=utf-8"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, template: str, *values: object) -> None:
            print(template % values, flush=True)

    return Handler


def main(arguments: list[str]) -> int:
    try:
        if len(arguments) == 1 and arguments[0].startswith("--check="):
            ok, seen = ask(Target("self", arguments[0].removeprefix("--check="), frozenset()))
            print(seen)
            return 0 if ok else 1
        settings = parse(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    server = ThreadingHTTPServer(settings.listen, handler(settings))
    print(
        f"console: {len(settings.targets)} targets, listening on {settings.listen[0]}:{settings.listen[1]}", flush=True
    )
    # As PID 1 a process has no default reaction to SIGTERM; without this, every stop would take the whole grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
