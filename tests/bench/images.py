# SPDX-License-Identifier: Apache-2.0
"""Images: pull, load, push and build, with a registry on loopback.

The image is a web application on Debian with Python: a base layer of 190 MB, a layer of 60 MB and 2,000 files, and the
application's own. docker builds and pushes it once; every engine then pulls the same bytes.
"""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
import threading
import time
from typing import TYPE_CHECKING

from bench.clock import Failed, call, compare, reap_orphans, spawn, wait_for_exit
from bench.engines import answer
from bench.report import Aim, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.engines import Engine
    from bench.sandbox import Sandbox

PORT, INDEX_PORT = 5000, 5080
REGISTRY = f"localhost:{PORT}"
BASE, APP, BIG = f"{REGISTRY}/base:1", f"{REGISTRY}/app:1", f"{REGISTRY}/big:1"
BUILT = "built:1"
BIG_BYTES = 1 << 30
MEMORY_LIMIT_MB = 100.0
WARM_UP = 1

DOCKERFILE = f"""\
FROM {BASE}
WORKDIR /app
COPY requirements.txt requirements.txt
RUN pip install --index-url http://127.0.0.1:{INDEX_PORT}/simple/ -r requirements.txt
COPY . .
CMD ["python", "app.py"]
"""
MORE = f"""\
FROM {BASE}
RUN mkdir /opt/more && cp -a /usr/lib/python3.11 /usr/lib/python3 /opt/more/
WORKDIR /app
COPY . .
CMD ["python", "app.py"]
"""


class Lab:
    """A registry, an index of wheels, and what is pulled from or built with them."""

    def __init__(self, sandbox: Sandbox, materials: str, engines: Mapping[str, Engine]) -> None:
        self.sandbox = sandbox
        self.base_tar = f"{materials}/base.tar"
        self.wheels = f"{materials}/wheels"
        self.engines = engines
        self.context = f"{sandbox.directory}/context"
        self.archive = f"{sandbox.directory}/app.tar"
        self._registry_pid = self._index_pid = 0
        self._storage = 0
        self._log = os.open(f"{sandbox.directory}/registry.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def prepare(self, application: str) -> None:
        """The registry with the images, the archive, the contexts."""
        self.start_registry()
        self.start_index()
        shutil.copytree(application, self.context)
        with open(f"{self.context}/Dockerfile", "w", encoding="utf-8") as file:
            file.write(DOCKERFILE)
        for engine in self.engines.values():
            path = ("-c", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            engine("import", *path, self.base_tar, BASE)
        docker = self.engines["docker"]
        more = f"{self.sandbox.directory}/Dockerfile.more"
        with open(more, "w", encoding="utf-8") as file:
            file.write(MORE)
        docker("build", "-q", "-t", APP, "-f", more, self.context)
        docker("save", "-o", self.archive, APP)
        for name in (BASE, APP):
            docker("push", "-q", name)
        docker("rmi", "-f", APP)

    def start_registry(self) -> None:
        """A registry whose storage is empty."""
        self._storage += 1
        path = f"{self.sandbox.directory}/registry-{self._storage}"
        config = f"{path}.yml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}}}}}\n"
                f"http: {{addr: '127.0.0.1:{PORT}'}}\n"
            )
        self._registry_pid = spawn(("docker-registry", "serve", config), self.sandbox.env, self._log)
        answer(PORT, b"GET /v2/ HTTP/1.0\r\n\r\n")

    def new_registry(self) -> None:
        """Another one in its place, empty again."""
        self.stop_registry()
        shutil.rmtree(f"{self.sandbox.directory}/registry-{self._storage}", ignore_errors=True)
        self.start_registry()

    def start_index(self) -> None:
        """http.server with the wheels, in the form of a simple index (PEP 503)."""
        simple = f"{self.sandbox.directory}/index/simple"
        for name in os.listdir(self.wheels):
            project = f"{simple}/{name.partition('-')[0].lower().replace('_', '-')}"
            os.makedirs(project, exist_ok=True)
            shutil.copy(f"{self.wheels}/{name}", project)
        argv = ("/usr/bin/python3", "-I", "-m", "http.server", "-b", "127.0.0.1", "-d", os.path.dirname(simple))
        self._index_pid = spawn((*argv, str(INDEX_PORT)), self.sandbox.env, self._log)
        answer(INDEX_PORT, b"GET /simple/ HTTP/1.0\r\n\r\n")

    def stop_registry(self) -> None:
        """Ends it by its pid."""
        os.kill(self._registry_pid, signal.SIGTERM)
        wait_for_exit(self._registry_pid)
        self._registry_pid = 0

    def stop(self) -> None:
        """Ends the registry and the index."""
        for pid in (self._registry_pid, self._index_pid):
            if pid and os.path.exists(f"/proc/{pid}"):  # a signal to everybody may have ended it already
                os.kill(pid, signal.SIGTERM)
                wait_for_exit(pid)

    def make_big(self) -> None:
        """The image with one layer of a gigabyte, in the registry: noise, so that it stays a gigabyte compressed."""
        path = f"{self.sandbox.directory}/big.tar"
        with tarfile.open(path, "w") as tar, open("/dev/urandom", "rb") as noise:
            for number in range(8):
                entry = tarfile.TarInfo(f"noise/{number}")
                entry.size = BIG_BYTES // 8
                tar.addfile(entry, noise)
        docker = self.engines["docker"]
        docker("import", path, BIG)
        os.unlink(path)
        docker("push", "-q", BIG)
        docker("rmi", "-f", BIG)

    # ---- one command of each engine

    def pull(self, engine: Engine, name: str) -> tuple[str, ...]:
        """The words that pull quietly."""
        return ("pull", "-q", *(("--tls-verify=false",) if engine.name == "podman" else ()), name)

    def push(self, engine: Engine, name: str) -> tuple[str, ...]:
        """The words that push quietly."""
        return ("push", "-q", *(("--tls-verify=false",) if engine.name == "podman" else ()), name)

    def build(self, engine: Engine, *flags: str) -> tuple[str, ...]:
        """The words that build the application. The network is the host's, which is where the index listens."""
        if engine.name == "podman":  # its cache is off unless asked for; limits as for run
            limits = [word for word in engine.run_flags if not word.startswith("--cgroup-parent")]
            flags = (*flags, "--layers", *(w for w in limits if not w.startswith(f"/{self.sandbox.tag}")))
        return ("build", "-q", "--network", "host", "-t", BUILT, *flags, self.context)

    def environ(self, engine: Engine) -> dict[str, str]:
        """docker's builder is BuildKit, which Debian's docker has built in."""
        return {**self.sandbox.env, **({"DOCKER_BUILDKIT": "1"} if engine.name == "docker" else {})}

    def forget(self, engine: Engine, name: str) -> None:
        """Removes an image if it is there."""
        call(engine.argv("rmi", "-f", name), env=self.sandbox.env)

    def settle(self, *files: str) -> None:
        """Writes everything out and empties the kernel's caches, but for these files.

        ext4 does not reuse an inode that was freed less than a minute ago as long as it has the freed one in its cache,
        and looks at each of those for every new file: without this, whoever is measured after a removal of ten thousand
        files takes up to ten times as long, whoever removed them.
        """
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
        for path in files:
            with open(path, "rb") as content:
                while content.read(1 << 20):
                    pass

    def timed(self, engine: Engine, words: tuple[str, ...]) -> float:
        """Seconds of one command that must succeed."""
        return call(engine.argv(*words), env=self.environ(engine)).ok().seconds


def rows(lab: Lab, rounds: int) -> Iterator[Row]:
    """One after the other, each measured when it is asked for."""
    everyone = lab.engines
    both = {"docker": Aim(0.8), "podman": Aim(0.8)}

    def pull(engine: Engine) -> float:
        lab.forget(engine, APP)
        lab.forget(engine, BASE)
        lab.settle()
        seconds = lab.timed(engine, lab.pull(engine, APP))
        proof = engine("run", "--rm", "--network", "none", APP, "python", "-c", "print(6 * 7)").output
        if proof.strip() != "42":
            raise Failed(f"{engine.name} pulled an image that prints {proof!r}")
        return seconds

    yield row("pull and unpack, cold", everyone, pull, rounds, both)

    def load(engine: Engine) -> float:
        lab.forget(engine, APP)
        lab.settle(lab.archive)
        return lab.timed(engine, ("load", "-q", "-i", lab.archive))

    yield row("`load` of an archive (docker save)", everyone, load, rounds, both)

    def push(engine: Engine) -> float:
        lab.new_registry()
        lab.settle()
        return lab.timed(engine, lab.push(engine, APP))

    yield row("push to an empty registry", everyone, push, rounds, {"docker": Aim(1.0), "podman": Aim(1.0)})
    for engine in everyone.values():
        engine("import", "-c", "ENV PATH=/usr/local/bin:/usr/bin:/bin", lab.base_tar, BASE)
    yield from builds(lab, rounds)
    yield peak_memory(lab)


def builds(lab: Lab, rounds: int) -> Iterator[Row]:
    """The rows about `build`."""
    everyone = lab.engines

    def full(engine: Engine) -> float:
        lab.settle()
        return lab.timed(engine, lab.build(engine, "--no-cache"))

    aims = {"docker": Aim(0.9), "podman": Aim(0.9)}
    yield row("full build of flask-app, wheels from a local index", everyone, full, rounds, aims)
    for engine in everyone.values():
        engine("run", "--rm", "--network", "none", BUILT, "python", "-c", "import flask")
    aims = {"docker": Aim(0.3), "podman": Aim(0.3)}

    def cached(engine: Engine) -> float:
        return lab.timed(engine, lab.build(engine))

    yield row("rebuild, everything cached", everyone, cached, 3 * rounds, aims)
    number = 0

    def changed(engine: Engine) -> float:
        nonlocal number
        number += 1
        with open(f"{lab.context}/app.py", "a", encoding="utf-8") as file:
            file.write(f"# {number}\n")
        os.sync()
        return lab.timed(engine, lab.build(engine))

    yield row("rebuild, one source file changed (last COPY)", everyone, changed, 3 * rounds, aims)


def row(
    title: str, engines: Mapping[str, Engine], job: Callable[[Engine], float], rounds: int, aims: dict[str, Aim]
) -> Row:
    """The same job for every engine."""
    jobs = {name: lambda engine=engine: job(engine) for name, engine in engines.items()}
    return Row(title, "s", compare(jobs, rounds, WARM_UP), aims)


def peak_memory(lab: Lab) -> Row:
    """Of `pull` of a layer of a gigabyte: the highest PSS of the client and all its children, sampled."""
    lab.make_big()
    samples: dict[str, list[float]] = {}
    for name in ("pyrun", "podman"):  # docker's client does nothing: its daemon pulls
        engine = lab.engines[name]
        samples[name] = [peak_mb(engine.argv(*lab.pull(engine, BIG)), lab.environ(engine))]
        lab.forget(engine, BIG)
    samples["the aim"] = [MEMORY_LIMIT_MB]
    return Row("peak memory while a layer of 1 GB is pulled", "MB", samples, {"the aim": Aim(1.0)})


def peak_mb(argv: tuple[str, ...], env: dict[str, str]) -> float:
    """The highest sum of the PSS of a program and its descendants, in MB, looked at every 20 ms while it runs."""
    output = os.memfd_create("output")
    pid = spawn(argv, env, output)
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, sum(pss_mb(one) for one in family(pid)))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status = os.waitpid(pid, 0)
    done.set()
    watcher.join()
    text = os.pread(output, 1 << 20, 0).decode("utf-8", "replace")
    os.close(output)
    if status:
        raise Failed(f"{' '.join(argv)} failed:\n{text}")
    reap_orphans()
    return peak


def family(pid: int) -> list[int]:
    """A process and all that descend from it, proc(5)."""
    found = [pid]
    for one in found:
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children", encoding="ascii") as file:
                    found += [int(word) for word in file.read().split()]
        except FileNotFoundError:
            continue
    return found


def pss_mb(pid: int) -> float:
    """Proportional set size of a process in MB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024 / 1e6
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0.0
