# SPDX-License-Identifier: Apache-2.0
"""The real docker-registry (Debian's package) on loopback, for tests: plain, with TLS, with a password, as a mirror.

    with DockerRegistry(tmp_path / "registry") as registry:
        skopeo("copy", …, f"docker://{registry.host}/app:1")

Certificates are made by openssl, password files by htpasswd (apache2-utils): the tools that people use.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import tars
from pyrun.rootfs.registry.config import Entry, Mirror, Registries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

TOOLS = ("docker-registry", "skopeo", "openssl", "htpasswd")
USER, PASSWORD = "alice", "correct horse:battery"  # a colon may stand in a password, not in a name


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own, and what it has signed for localhost."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def make_authority(directory: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Authority:
    """Makes a CA, a certificate for these names, and one for a client."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Authority(
        *(directory / name for name in ("ca.crt", "server.crt", "server.key", "client.cert", "client.key"))
    )
    ca_key = directory / "ca.key"
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=pyrun test authority", "-keyout", ca_key, "-out", made.ca,
    )  # fmt: skip
    extensions = directory / "names.cnf"
    extensions.write_text(f"subjectAltName={names}\n")
    for cert, key, subject in (
        (made.cert, made.key, "/CN=localhost"),
        (made.client_cert, made.client_key, "/CN=a client"),
    ):
        request = directory / f"{key.name}.csr"
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject,
            "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
            "-extfile", extensions, "-out", cert,
        )  # fmt: skip
    return made


def _openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60)


class DockerRegistry:
    """One docker-registry, running while the `with` block does; `host` is localhost:<port>.

    authority: speak TLS. want_client: want a client certificate too. password: want USER and PASSWORD. mirror_of: be a
    pull-through cache of that URL.
    """

    def __init__(
        self,
        directory: Path,
        *,
        authority: Authority | None = None,
        want_client: bool = False,
        password: bool = False,
        mirror_of: str = "",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self.log = directory / "log"
        http: dict[str, Any] = {"addr": f"127.0.0.1:{self.port}", "secret": "a secret of the test"}
        if authority is not None:
            http["tls"] = {"certificate": str(authority.cert), "key": str(authority.key)}
            if want_client:
                http["tls"]["clientcas"] = [str(authority.ca)]
        self.config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(directory / "storage")},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
        }
        if password:
            self.config["auth"] = {"htpasswd": {"realm": "test", "path": str(_password_file(directory))}}
        if mirror_of:
            self.config["proxy"] = {"remoteurl": mirror_of}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = self.directory / "config.yml"
        config.write_text(json.dumps(self.config))  # YAML contains JSON
        # every REGISTRY_ variable is a setting to it, podman's REGISTRY_AUTH_FILE as well
        environ = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )
        end = time.monotonic() + 20 * machine.slowness()
        while True:
            assert self._process.poll() is None, self.log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def requests(self, method: str = "", part: str = "") -> list[str]:
        """The request lines of the access log so far that have this method and this in their path."""
        lines = []
        for line in self.log.read_text(errors="replace").splitlines():
            if '" ' in line and "HTTP/" in line and ' "' in line:
                request = line.partition('"')[2].partition('"')[0]
                if request.startswith(method) and part in request:
                    lines.append(request)
        return lines

    def blob(self, digest: str) -> Path:
        """Where the registry keeps a blob."""
        digits = digest.removeprefix("sha256:")
        return self.directory / f"storage/docker/registry/v2/blobs/sha256/{digits[:2]}/{digits}/data"


def _password_file(directory: Path) -> Path:
    path = directory / "htpasswd"
    line = subprocess.run(
        ["htpasswd", "-Bbn", USER, PASSWORD], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    path.write_text(line.strip() + "\n")
    return path


def configured(
    *hosts: str, insecure: bool | None = None, ca: Path | None = None, client: tuple[Path, Path] | None = None,
    mirrors: Sequence[str] = (),
) -> Registries:  # fmt: skip
    """What the files would say about these hosts; nothing of this machine's configuration is read."""
    return Registries(
        [
            Entry(
                host,
                insecure=insecure,
                mirrors=tuple(Mirror(mirror) for mirror in mirrors),
                ca_files=(str(ca),) if ca else (),
                client_certs=((str(client[0]), str(client[1])),) if client else (),
            )
            for host in hosts
        ],
        certs_dirs=(),
    )


def skopeo(*args: str, timeout: float = 120) -> str:
    """Runs skopeo; its standard output."""
    done = subprocess.run(
        ["skopeo", *args], capture_output=True, text=True, timeout=timeout * machine.slowness(), check=False,
        env={**os.environ, "HTTP_PROXY": "", "HTTPS_PROXY": ""},
    )  # fmt: skip
    assert done.returncode == 0, f"skopeo {' '.join(args)}\n{done.stderr}"
    return done.stdout


def put_layout(directory: Path, oci: tars.Oci) -> Path:
    """Writes an OCI layout as a directory."""
    for path, data in oci.files().items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return directory


def publish(directory: Path, oci: tars.Oci, target: str, *options: str) -> None:
    """Lets skopeo push the layout's only image, or index, to docker://target."""
    layout = put_layout(directory, oci)
    options = ("--preserve-digests", "--dest-tls-verify=false", *options)
    skopeo("copy", "--all", *options, f"oci:{layout}", f"docker://{target}")


def upload(registry: DockerRegistry, name: str, oci: tars.Oci, descriptor: dict[str, Any]) -> str:
    """Pushes an image by plain HTTP requests, byte for byte; its digest."""
    import urllib3

    repository, _, tag = name.rpartition(":")
    http = urllib3.PoolManager()
    base = f"http://{registry.host}/v2/{repository}"
    for digest, data in oci.blobs.items():
        if digest != descriptor["digest"]:
            location = http.request("POST", f"{base}/blobs/uploads/").headers["Location"]
            answer = http.request("PUT", f"{location}&digest={digest}", body=data)
            assert answer.status == 201, answer.data
    answer = http.request(
        "PUT", f"{base}/manifests/{tag}", body=oci.blobs[descriptor["digest"]],
        headers={"Content-Type": descriptor["mediaType"]},
    )  # fmt: skip
    assert answer.status == 201, answer.data
    return str(descriptor["digest"])
