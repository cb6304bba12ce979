# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the images that examples/studio/compose.yaml names by default.

When a registry answers, they are the official images; when none does, the base comes from Debian packages
(mmdebstrap, then `docker import`) and PostgreSQL and Caddy are installed on top of it. An image is made again only
when its recipe changed: the recipe's hash is a label of the image. Two runs at once wait for each other, and what a
killed run left behind is swept by the next one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LABEL = "shipshape.recipe"
CODENAME = "bookworm"
PROBE_SECONDS = 3.0
# What a corporate machine commonly names its own CA bundle by; the first that is set wins.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

# python3-venv: the web image makes its environment with it. wget: the proxy's healthcheck, as in Caddy's own image.
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv", "wget")
BASE_DEBOOTSTRAP = (
    "--variant=minbase",
    "--format=tar",
    f"--include={','.join(BASE_PACKAGES)}",
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    # A killed build throws the whole tree away, so there is nothing that fsync could save.
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
BASE_CHANGES = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    'CMD ["bash"]',
)
TRUST = "ENV SSL_CERT_FILE={0} REQUESTS_CA_BUNDLE={0} PIP_CERT={0}".format("/etc/ssl/certs/ca-certificates.crt")


class BuildError(Exception):
    """Something that the reader has to know and can act on: one line."""


@dataclass(frozen=True)
class Image:
    """One image that we provide: its local tag, where it comes from officially, and its Debian recipe's directory."""

    key: str
    tag: str
    official: str
    context: Path | None

    def debian_recipe(self, base: str) -> str:
        if self.context is None:
            return digest(CODENAME, *BASE_DEBOOTSTRAP, *BASE_CHANGES, base)
        files = sorted(path for path in self.context.rglob("*") if path.is_file())
        return digest(base, *(f"{path.name}\0{path.stat().st_mode:o}\0{path.read_text()}" for path in files))

    def official_recipe(self, bundle: str) -> str:
        return digest("official", self.official, bundle)


BASE = Image("base", "shipshape-base:bookworm", "python:3.11-slim-bookworm", None)
POSTGRES = Image("postgres", "shipshape-postgres:15", "postgres:15-bookworm", HERE / "postgres")
CADDY = Image("caddy", "shipshape-caddy:2", "caddy:2", HERE / "caddy")
IMAGES = {image.key: image for image in (BASE, POSTGRES, CADDY)}


def digest(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()[:20]


def say(text: str) -> None:
    print(f"images: {text}", flush=True)


# ---------------------------------------------------------------- running things


def run(argv: Sequence[str], doing: str, **more: object) -> str:
    """Run one command; its output is shown only when it fails, and then the end of it."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise BuildError(f"{doing}: the command {argv[0]!r} is not installed") from None
    if done.returncode != 0:
        tail = "\n    ".join(done.stdout.strip().splitlines()[-15:])
        raise BuildError(f"{doing} failed ({argv[0]} exited {done.returncode}); its last lines:\n    {tail}")
    return str(done.stdout)


def docker(*args: str, doing: str, **more: object) -> str:
    return run(["docker", *args], doing, **more).strip()


def recipe_of(tag: str) -> str:
    """The recipe that an image was made by, or nothing when there is no such image or it is not ours."""
    asked = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", tag],
        capture_output=True,
        text=True,
        check=False,
    )
    return str((json.loads(asked.stdout) or {}).get(LABEL, "")) if asked.returncode == 0 else ""


def image_id(tag: str) -> str:
    asked = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", tag], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


# ---------------------------------------------------------------- the work directory: one run at a time, nothing left


@contextmanager
def workspace() -> Iterator[tuple[Path, int]]:
    """A temporary directory that is ours alone, under a lock that also our children hold.

    A child of a killed run keeps the lock until it ends, so nothing is swept from under it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipshape-images"
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work; waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        for left in home.glob("work-*"):
            say(f"sweeping what a killed run left: {left.name}")
            sweep(left)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=home))
        try:
            yield work, handle
        finally:
            sweep(work)
    finally:
        os.close(handle)


def sweep(directory: Path) -> None:
    """Remove a work directory, but never through a mount: a chroot's /dev may be the machine's own."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [mount for mount in mounts if mount.startswith(f"{directory}/")]
    if inside:
        raise BuildError(f"{directory} still has {inside[0]} mounted in it: umount it, then run this again")
    shutil.rmtree(directory)


# ---------------------------------------------------------------- which source


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PROBE_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def registry_answers() -> tuple[bool, str]:
    """Ask the engine, not the network from here: the engine's own mirrors and proxy are what a pull goes through."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return False, "the engine is remote and is not asked; --source official overrides"
    connection = UnixConnection(host.removeprefix("unix://"))
    try:
        connection.request("GET", f"/distribution/{CADDY.official}/json")
        answer = connection.getresponse()
        body = answer.read()
    except TimeoutError:
        return False, f"no answer within {PROBE_SECONDS:.0f} s"
    except OSError as error:
        raise BuildError(f"the Docker engine at {host} cannot be reached: {error}; is it running?") from None
    finally:
        connection.close()
    if answer.status == 200:
        return True, "it answered"
    return False, str(json.loads(body).get("message", answer.status))


def ca_bundle(given: str | None) -> Path | None:
    """The CA bundle to bring along: the one given, or else the one that the environment names."""
    if given:
        path = Path(given)
        if not path.is_file():
            raise BuildError(f"--ca-bundle {given}: there is no such file")
        return path
    for name in CA_VARIABLES:
        value = os.environ.get(name, "")
        if value and Path(value).is_file():
            return Path(value)
    return None


def pem_blocks(text: str) -> set[str]:
    return set(re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL))


def certificates(bundle: Path | None, public: Path = Path("/usr/share/ca-certificates")) -> list[str]:
    """What a bundle adds to the public CAs that every distribution ships, one PEM block each, in a stable order.

    Only those: a refresh of the machine's public CAs must not make every image anew.
    """
    if bundle is None:
        return []
    blocks = pem_blocks(bundle.read_text(errors="replace"))
    if not blocks:
        raise BuildError(f"{bundle}: there is no PEM certificate in this file")
    known = {block for path in public.rglob("*.crt") for block in pem_blocks(path.read_text(errors="replace"))}
    return sorted(blocks - known)


# ---------------------------------------------------------------- from Debian packages


def debian_sources(text: str, codename: str) -> str:
    """The machine's own Debian mirrors as one-line sources of our release; empty when it has none (not a Debian)."""
    lines: list[str] = []
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^\s*#.*\n?", "", text)):
        for uris, suites, components, signed in entries(stanza):
            debian = "debian-archive-keyring" in signed or (not signed and re.search(r"/debian", uris))
            for suite in suites.split():
                name, _, pocket = suite.partition("-")
                if debian and name == codename and pocket in ("", "updates", "security"):
                    renamed = CODENAME + (f"-{pocket}" if pocket else "")
                    lines += [f"deb {uri} {renamed} {components}" for uri in uris.split()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def entries(stanza: str) -> Iterator[tuple[str, str, str, str]]:
    """(URIs, suites, components, signed-by) of a deb822 stanza, or of each one-line entry in it."""
    fields = {key.lower(): value for key, value in re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", stanza)}
    if "uris" in fields:
        if "deb" in fields.get("types", "deb").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            yield fields["uris"], fields.get("suites", ""), fields.get("components", ""), fields.get("signed-by", "")
        return
    for options, uri, suite, components in re.findall(r"(?m)^deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+(.*)$", stanza):
        signed = re.search(r"signed-by=(\S+)", options)
        yield uri, suite, components.strip(), signed.group(1) if signed else ""


def host_sources() -> str:
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    files += sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
    text = "\n\n".join(path.read_text() for path in files if path.is_file())
    release = Path("/etc/os-release").read_text() if Path("/etc/os-release").is_file() else ""
    codename = re.search(r'(?m)^VERSION_CODENAME="?(\w+)', release)
    return debian_sources(text, codename.group(1) if codename else CODENAME)


def host_apt_options() -> list[str]:
    """Settings without which this machine's mirrors may not answer (snapshots, a clock of its own)."""
    asked = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    wanted = re.findall(r"(?m)^(Acquire::Check-\S+ .*);$", asked.stdout)
    return [f"--aptopt={line}" for line in wanted]


def need_mmdebstrap() -> None:
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if shutil.which("mmdebstrap") and keyring.exists():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            "mmdebstrap is missing: run `apt-get install mmdebstrap debian-archive-keyring` as root, then this again"
        )
    say("installing mmdebstrap")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qy", "--no-install-recommends", "mmdebstrap", "debian-archive-keyring"]
    try:
        run(install, "installing mmdebstrap", env=quiet)
    except BuildError:  # the package lists of a fresh machine may be empty or old
        run(["apt-get", "update", "-q"], "apt-get update", env=quiet)
        run(install, "installing mmdebstrap", env=quiet)


def debian_base(work: Path, lock: int, certs: Sequence[str], recipe: str) -> None:
    need_mmdebstrap()
    tar, sources = work / "base.tar", work / "sources.list"
    sources.write_text(host_sources())
    trust = work / "certificates"
    hooks = [
        f"--customize-hook=copy-in {trust}/. /usr/local/share/ca-certificates",
        '--customize-hook=chroot "$1" update-ca-certificates',
    ]
    write_certificates(trust, certs)
    # With a mount namespace of its own, a kill at any moment leaves no mount behind on the machine.
    alone = ["unshare", "--mount", "--propagation", "private"] if os.geteuid() == 0 else []
    mirrors = [str(sources)] if sources.read_text() else []
    argv = [
        *alone,
        "mmdebstrap",
        *BASE_DEBOOTSTRAP,
        *host_apt_options(),
        *(hooks if certs else []),
        CODENAME,
        str(tar),
        *mirrors,
    ]
    run(argv, "making the base from Debian packages", env={**os.environ, "TMPDIR": str(work)}, pass_fds=(lock,))
    changes = [*BASE_CHANGES, *([TRUST] if certs else []), f"LABEL {LABEL}={recipe}"]
    imported = [item for change in changes for item in ("--change", change)]
    docker("import", *imported, str(tar), BASE.tag, doing="importing the base")


def write_certificates(directory: Path, certs: Sequence[str]) -> None:
    directory.mkdir(exist_ok=True)
    for number, certificate in enumerate(certs):
        (directory / f"host-{number:03d}.crt").write_text(certificate + "\n")


def debian_layer(image: Image, recipe: str) -> None:
    arguments = ["--build-arg", f"BASE_IMAGE={BASE.tag}", *build_arguments()]
    docker(
        "build",
        "-q",
        *arguments,
        "--label",
        f"{LABEL}={recipe}",
        "-t",
        image.tag,
        str(image.context),
        doing=f"building {image.tag}",
    )


def build_arguments() -> list[str]:
    """Docker's predefined proxy arguments (never stored in the image), and the network that builds use."""
    found = [item for name in PROXY_VARIABLES if os.environ.get(name) for item in ("--build-arg", name)]
    return [*found, "--network", os.environ.get("STUDIO_BUILD_NETWORK", "default")]


# ---------------------------------------------------------------- from a registry


def official(image: Image, work: Path, certs: Sequence[str], recipe: str) -> None:
    """The official image under our tag, with our label, and with the CA certificates if there are any."""
    docker("pull", "-q", image.official, doing=f"pulling {image.official}")
    context = work / image.key
    write_certificates(context, certs)
    text = f"FROM {image.official}\n"
    if certs:
        target = "/usr/local/share/ca-certificates/"
        # The PostgreSQL image has no CA tools and needs none: it opens no connection of its own.
        text += f"USER root\nCOPY *.crt {target}\nRUN ! command -v update-ca-certificates || update-ca-certificates\n"
        text += f"{TRUST}\n" if image is BASE else ""
    (context / "Dockerfile").write_text(text)
    docker(
        "build",
        "-q",
        *build_arguments(),
        "--label",
        f"{LABEL}={recipe}",
        "-t",
        image.tag,
        str(context),
        doing=f"building {image.tag}",
    )


# ---------------------------------------------------------------- all of it


def wanted_recipes(certs: Sequence[str]) -> dict[str, dict[str, str]]:
    """The recipe of every image for either source. Images on top of the base inherit its recipe."""
    bundle = "\n".join(certs)
    base = BASE.debian_recipe(bundle)
    return {
        "debian": {image.key: base if image is BASE else image.debian_recipe(base) for image in IMAGES.values()},
        "official": {image.key: image.official_recipe(bundle) for image in IMAGES.values()},
    }


def choose(asked: str) -> str:
    if asked != "auto":
        say(f"source: {asked} (--source)")
        return asked
    answers, why = registry_answers()
    source = "official" if answers else "debian"
    say(f"source: {'the official images' if answers else 'Debian packages'} (registry: {why})")
    return source


def make(image: Image, source: str, recipe: str, work: Path, lock: int, certs: Sequence[str]) -> None:
    began, before = time.monotonic(), image_id(image.tag)
    if source == "official":
        official(image, work, certs, recipe)
    elif image is BASE:
        debian_base(work, lock, certs, recipe)
    else:
        debian_layer(image, recipe)
    if before:  # the image it replaces goes, unless something still uses it: then the engine refuses
        subprocess.run(["docker", "image", "rm", before], capture_output=True, check=False)
    say(f"{image.tag}: made in {time.monotonic() - began:.0f} s")


def build_all(keys: Sequence[str], asked: str, certs: Sequence[str]) -> None:
    recipes = wanted_recipes(certs)
    # An image of either source stays what it is: a registry that comes and goes must not rebuild a stack.
    accepted = recipes if asked == "auto" else {asked: recipes[asked]}

    def missing(image: Image, accepted: Mapping[str, Mapping[str, str]]) -> bool:
        return recipe_of(image.tag) not in {recipe[image.key] for recipe in accepted.values()}

    with workspace() as (work, lock):
        todo = [IMAGES[key] for key in keys if missing(IMAGES[key], accepted)]
        for image in (IMAGES[key] for key in keys if IMAGES[key] not in todo):
            say(f"{image.tag}: up to date")
        if not todo:
            return
        source = choose(asked)
        if source == "debian" and BASE not in todo and missing(BASE, {"debian": recipes["debian"]}):
            todo.insert(0, BASE)
        first = [image for image in todo if image is BASE]
        for image in first:
            make(image, source, recipes[source][image.key], work, lock, certs)
        with ThreadPoolExecutor(max_workers=2) as pool:
            layers = [image for image in todo if image not in first]
            jobs = [pool.submit(make, image, source, recipes[source][image.key], work, lock, certs) for image in layers]
            for job in jobs:
                job.result()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=sorted([*IMAGES, "web"]), help="this one image (what it stands on is made too)"
    )
    parser.add_argument(
        "--ca-bundle",
        metavar="FILE",
        help="PEM file whose CAs the images trust (default: what SSL_CERT_FILE or its like names)",
    )
    parser.add_argument(
        "--source",
        choices=("auto", "official", "debian"),
        default="auto",
        help="where images come from (default: auto, asks the registry once)",
    )
    args = parser.parse_args()
    try:
        bundle = ca_bundle(args.ca_bundle)
        certs = certificates(bundle)
        if certs:
            say(
                f"CA certificates: {len(certs)} of {bundle} that are not public go into the images (--ca-bundle FILE names another file)"
            )
        keys = [BASE.key] if args.only == "web" else [args.only] if args.only else list(IMAGES)
        build_all(keys, args.source, certs)
        if args.only == "web":
            docker("compose", "build", "-q", "web", doing="building the web image", cwd=HERE.parent)
            say("studio-web: built by Compose")
    except BuildError as error:
        print(f"images: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("images: interrupted; run it again, it goes on where it can", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
