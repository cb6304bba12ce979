# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the images that examples/studio/compose.yaml names by default.

When a registry answers, they are the official images; when none does, the base comes from Debian packages
(mmdebstrap, then `docker import`), and PostgreSQL and Caddy are installed on top of it. An image is made again only
when its recipe changed: the recipe's hash is a label of the image. Two runs at once wait for each other, and what a
killed run left behind is swept by the next one.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import debian
from common import TRUST, BuildError, build, docker, inspect, recipe_of, say, workspace, write_certificates

HERE = Path(__file__).resolve().parent
PROBE_SECONDS = 3.0
# What a corporate machine commonly names its own CA bundle by; the first that is set wins.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Image:
    """One image that we provide: its local tag, its official name, and the directory of its Debian recipe."""

    key: str
    tag: str
    official: str
    context: Path | None = None


BASE = Image("base", "shipshape-base:bookworm", "python:3.11-slim-bookworm")
POSTGRES = Image("postgres", "shipshape-postgres:15", "postgres:15-bookworm", HERE / "postgres")
CADDY = Image("caddy", "shipshape-caddy:2", "caddy:2", HERE / "caddy")
IMAGES = {image.key: image for image in (BASE, POSTGRES, CADDY)}

Recipes = Mapping[str, Mapping[str, str]]


# ---------------------------------------------------------------- recipes: what an image is made of, as a hash


def digest(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()[:20]


def directory_digest(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return digest(*(f"{path.name}\0{path.stat().st_mode & 0o111}\0{path.read_text()}" for path in files))


def all_recipes(certificates: Sequence[str]) -> dict[str, dict[str, str]]:
    """The recipe of every image, for either source. What stands on the base inherits the base's recipe."""
    trusted = digest(*certificates)
    base = digest(debian.CODENAME, *debian.OPTIONS, *debian.CHANGES, trusted)
    contexts = {image.key: image.context for image in IMAGES.values()}
    return {
        "debian": {key: digest(base, directory_digest(path)) if path else base for key, path in contexts.items()},
        "official": {image.key: digest(image.official, trusted) for image in IMAGES.values()},
    }


# ---------------------------------------------------------------- certificates


def ca_bundle(given: str | None) -> Path | None:
    """The CA bundle to bring along: the one given, or else the one that the environment names."""
    if given and not Path(given).is_file():
        raise BuildError(f"--ca-bundle {given}: there is no such file")
    named = [given, *(os.environ.get(name) for name in CA_VARIABLES)]
    return next((Path(path) for path in named if path and Path(path).is_file()), None)


def pem_blocks(path: Path) -> set[str]:
    text = path.read_text(errors="replace")
    return set(re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL))


def own_certificates(bundle: Path | None, public: Path = Path("/usr/share/ca-certificates")) -> list[str]:
    """What a bundle adds to the public CAs that every distribution ships, in a stable order.

    Only those: a refresh of the machine's public CAs must not make every image anew.
    """
    if bundle is None:
        return []
    blocks = pem_blocks(bundle)
    if not blocks:
        raise BuildError(f"{bundle}: there is no PEM certificate in this file")
    return sorted(blocks.difference(*(pem_blocks(path) for path in public.rglob("*.crt"))))


# ---------------------------------------------------------------- which source


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PROBE_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PROBE_SECONDS)
        self.sock.connect(self.path)


def registry_answers() -> tuple[bool, str]:
    """Ask the engine, not the network from here: the engine's own mirrors and proxy are what a pull goes through."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not host.startswith("unix://"):
        return False, "a remote engine is not asked; --source official takes it as given"
    connection = UnixConnection(host.removeprefix("unix://"))
    try:
        connection.request("GET", f"/distribution/{CADDY.official}/json")
        answer = connection.getresponse()
        body = answer.read()
    except TimeoutError:
        return False, f"no answer within {PROBE_SECONDS:.0f} s"
    except OSError as error:
        raise BuildError(f"the Docker engine at {host} cannot be reached ({error}): is it running?") from None
    finally:
        connection.close()
    if answer.status == 200:
        return True, "it answered"
    return False, str(json.loads(body).get("message", answer.status))


def choose(asked: str) -> str:
    if asked != "auto":
        say(f"source: {asked} (--source)")
        return asked
    answers, why = registry_answers()
    say(f"source: {'official images' if answers else 'Debian packages'} (registry: {why})")
    return "official" if answers else "debian"


# ---------------------------------------------------------------- making them


def make_official(image: Image, recipe: str, certificates: Sequence[str], work: Path) -> None:
    """The official image under our tag, with our label, and with the CA certificates if there are any."""
    docker("pull", "-q", image.official, doing=f"pulling {image.official}")
    context = work / image.key
    write_certificates(context, certificates)
    text = f"FROM {image.official}\n"
    if certificates and image is BASE:
        text += f"COPY *.crt /usr/local/share/ca-certificates/\nRUN update-ca-certificates\n{TRUST}\n"
    (context / "Dockerfile").write_text(text)
    build(image.tag, context, recipe)


def make(image: Image, source: str, recipe: str, certificates: Sequence[str], work: Path, lock: int) -> None:
    began, before = time.monotonic(), inspect(image.tag, "{{.Id}}")
    if source == "official":
        make_official(image, recipe, certificates, work)
    elif image.context is None:
        debian.make_base(image.tag, recipe, certificates, work, lock)
    else:
        build(image.tag, image.context, recipe, "--build-arg", f"BASE_IMAGE={BASE.tag}")
    if before:  # the image that it replaces goes; the engine refuses when something still uses it
        subprocess.run(["docker", "image", "rm", before], capture_output=True)
    say(f"{image.tag}: made in {time.monotonic() - began:.0f} s")


def make_all(todo: Sequence[Image], source: str, recipes: Recipes, certificates: Sequence[str]) -> None:
    """The base first, then what stands on it side by side."""
    with workspace() as (work, lock):
        # Another run may have made some of them while this one waited.
        todo = [image for image in todo if recipe_of(image.tag) != recipes[source][image.key]]
        if source == "debian" and recipe_of(BASE.tag) != recipes[source]["base"]:
            todo = [BASE, *(image for image in todo if image is not BASE)]
        if BASE in todo:
            make(BASE, source, recipes[source]["base"], certificates, work, lock)
        with ThreadPoolExecutor(max_workers=2) as pool:
            layers = [image for image in todo if image is not BASE]
            jobs = [pool.submit(make, it, source, recipes[source][it.key], certificates, work, lock) for it in layers]
            for job in jobs:
                job.result()


def provide(keys: Sequence[str], asked: str, certificates: Sequence[str]) -> None:
    recipes = all_recipes(certificates)
    # An image of either source stays what it is: a registry that comes and goes must not rebuild a stack.
    accepted = list(recipes.values()) if asked == "auto" else [recipes[asked]]
    current = {key: recipe_of(IMAGES[key].tag) in {recipe[key] for recipe in accepted} for key in keys}
    for key in keys:
        if current[key]:
            say(f"{IMAGES[key].tag}: up to date")
    todo = [IMAGES[key] for key in keys if not current[key]]
    if not todo:
        return
    source = choose(asked)
    try:
        make_all(todo, source, recipes, certificates)
    except BuildError as error:
        if source == "debian" or asked != "auto":
            raise
        say(f"the registry answered, yet {error}")
        say("source: Debian packages")
        make_all(todo, "debian", recipes, certificates)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=(*IMAGES, "web"), help="this image, and what it stands on")
    parser.add_argument(
        "--ca-bundle", metavar="FILE", help=f"PEM file of CAs to trust (default: the file that {CA_VARIABLES[0]} names)"
    )
    parser.add_argument("--source", choices=("auto", "official", "debian"), default="auto", help="default: auto")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        bundle = ca_bundle(args.ca_bundle)
        certificates = own_certificates(bundle)
        if certificates:
            say(f"{len(certificates)} CA certificates of {bundle} go into the images (--ca-bundle names another file)")
        keys = [args.only] if args.only in IMAGES else ["base"] if args.only else list(IMAGES)
        provide(keys, args.source, certificates)
        if args.only == "web":
            docker("compose", "build", "-q", "web", doing="building the web image", cwd=HERE.parent)
    except BuildError as error:
        print(f"images: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("images: interrupted; run it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
