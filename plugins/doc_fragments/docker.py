# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say how to reach the engine, with the names and fall-backs that Docker users know."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  docker_host:
    description:
      - Where the engine listens, C(unix:///path), C(tcp://host:port), C(https://host:port) or C(ssh://user@host).
      - If not set, the environment variable E(DOCKER_HOST) is used, then the default, which is where every
        distribution puts the socket.
    type: str
    default: unix:///var/run/docker.sock
    aliases: [docker_url]
  tls:
    description:
      - Encrypt the connection, without checking whose certificate answers.
      - If not set, the environment variable E(DOCKER_TLS) is used. Off by default, because a socket needs no TLS.
    type: bool
    default: false
  validate_certs:
    description:
      - Encrypt the connection and check the engine's certificate.
      - If not set, the environment variable E(DOCKER_TLS_VERIFY) is used.
      - Off by default, because a socket needs no TLS.
    type: bool
    default: false
    aliases: [tls_verify]
  ca_path:
    description:
      - Certificate authority that signed the engine's certificate.
      - If not set and E(DOCKER_CERT_PATH) is, C(ca.pem) in that directory.
    type: path
    aliases: [tls_ca_cert, cacert_path]
  client_cert:
    description:
      - The client's certificate.
      - If not set and E(DOCKER_CERT_PATH) is, C(cert.pem) in that directory.
    type: path
    aliases: [tls_client_cert, cert_path]
  client_key:
    description:
      - The client's key.
      - If not set and E(DOCKER_CERT_PATH) is, C(key.pem) in that directory.
    type: path
    aliases: [tls_client_key, key_path]
  tls_hostname:
    description:
      - Name that the engine's certificate bears, when it is not the one in O(docker_host).
      - If not set, the environment variable E(DOCKER_TLS_HOSTNAME) is used.
    type: str
  api_version:
    description:
      - Version of the engine's interface to speak.
      - If not set, the environment variable E(DOCKER_API_VERSION) is used. The default takes the engine's own newest,
        which is right unless something between here and the engine understands less.
    type: str
    default: auto
    aliases: [docker_api_version]
  timeout:
    description:
      - Seconds without a single byte from the engine after which a request is given up.
      - If not set, the environment variable E(DOCKER_TIMEOUT) is used. The default is that of the Docker SDK.
    type: int
    default: 60
requirements:
  - Docker Engine 20.10 or newer with the Compose plugin 2.26 or newer on the target
  - "docker (Docker SDK for Python) >= 7.0.0 on the target, for whatever changes something"
"""
