# SPDX-License-Identifier: GPL-3.0-or-later
"""What one look by `preflight` costs: 50 services, each with an image of its own in a registry with TLS and a login."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import NOOP, playbook, row
from tests.support.modules import run_module
from tests.support.registries import PASSWORD, USER, Registry, running

SERVICES, ROUNDS, SECONDS = 50, 5, 3.0


def write(directory: Path, registry: Registry) -> dict[str, Any]:
    """The project, with an env file, a port, a mount and a dependency for each service; the module's options for it."""
    (directory / ".env").write_text("".join(f"NAME_{number}=value\n" for number in range(SERVICES)))
    services: dict[str, Any] = {}
    for number in range(SERVICES):
        registry.push(f"bench/s{number}", "1", ["linux/amd64", "linux/arm64"])
        services[f"s{number}"] = {
            "image": f"{registry.host}/bench/s{number}:1",
            "env_file": ".env",
            "environment": {"NAME": f"${{NAME_{number}}}"},
            "volumes": ["./.env:/srv/.env:ro"],
            "ports": [f"127.0.0.1:{21000 + number}:80"],
            "healthcheck": {"test": "wget -q -O - http://127.0.0.1/"},
            **({"depends_on": [f"s{number - 1}"]} if number else {}),
        }
    (directory / "compose.yaml").write_text(json.dumps({"services": services}))
    login = {"registry": registry.host, "username": USER, "password": PASSWORD}
    return {"project_src": str(directory), "registry_auth": [login]}


def rows() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        directory = Path(name)
        (directory / "registry").mkdir()
        with running(directory / "registry") as registry:
            options = write(directory, registry)
            result = run_module("preflight", options)
            pulled = [at for at in result["images"].values() if at["source"] == "pull" and at["digest"]]
            if result.get("failed") or len(pulled) != SERVICES or registry.served_layers():
                raise RuntimeError(f"it should have found every image in the registry: {result.get('msg')}")
            task = f"\n    - shipshape.deploy.preflight: {json.dumps(options)}\n"
            empty = statistics.median(playbook(directory, NOOP) for _ in range(ROUNDS))
            ours = statistics.median(playbook(directory, task) for _ in range(ROUNDS)) - empty
    work = f"preflight of {SERVICES} services, images in a registry, the task alone"
    return [row(work, "none", ours, None, f"<= {SECONDS:g} s", ours <= SECONDS, None)]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
