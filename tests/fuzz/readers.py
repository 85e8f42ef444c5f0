"""Every reader of a document that somebody else may have written, with documents to damage."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from lyra_tasks.bundle.compared import COMPARED_DOCUMENTS
from lyra_tasks.bundle.contradictions import find_bundle_contradictions
from lyra_tasks.bundle.diff import compare_bundles
from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import read_checksums
from lyra_tasks.bundle.format.documents import read_bundle_documents
from lyra_tasks.bundle.format.index import BundleEntry, build_index, read_index
from lyra_tasks.bundle.format.manifest import encode_document, open_bundle, write_document
from lyra_tasks.checks.commands import _read_failures
from lyra_tasks.checks.kinds import check_service, evaluate_check
from lyra_tasks.cleanup.journal_limits import select_needed_entries
from lyra_tasks.compose.cache import describe_settings
from lyra_tasks.compose.model import ComposeSettings
from lyra_tasks.compose.sources import SourceFiles
from lyra_tasks.compose.variables import list_required
from lyra_tasks.config.load import load_config
from lyra_tasks.config.models import Scan, Test
from lyra_tasks.digests import sha256_hex
from lyra_tasks.dockerfile.file_hashes import _read_cache
from lyra_tasks.dockerfile.input_hashes import read_ignore_patterns
from lyra_tasks.dockerfile.lock_file import LockedRootfs, read_lock_file
from lyra_tasks.dockerfile.parse import read_dockerfile
from lyra_tasks.dockerfile.stages import resolve_declared_image
from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.bases.archive import read_archived_image, write_archive_as
from lyra_tasks.engine.bases.rootfs import _parse_release_date
from lyra_tasks.engine.client.contexts import read_context_endpoint
from lyra_tasks.engine.client.monitoring import _read_sample
from lyra_tasks.engine.objects.containers import read_container_state, read_health_probe
from lyra_tasks.engine.objects.ownership import build_ownership_index
from lyra_tasks.engine.objects.volumes import parse_user_ids
from lyra_tasks.errors import LyraError, PreconditionError, UsageError
from lyra_tasks.files import format_json
from lyra_tasks.images.archive.verify import verify_archive
from lyra_tasks.images.scan.layers import scan_layer
from lyra_tasks.images.scan.secrets import SecretMatcher
from lyra_tasks.images.stream.pack import ImageRequest, pack_saved_images
from lyra_tasks.images.stream.packages import (
    parse_apk_installed,
    parse_dpkg_status,
    parse_npm_package,
    parse_os_release,
    parse_python_metadata,
)
from lyra_tasks.lab.http_client import open_http_response
from lyra_tasks.overview.history import entries_about, summarize_runs
from lyra_tasks.paths import Paths
from lyra_tasks.records.dev import UploadedFiles
from lyra_tasks.records.documents import read_run_documents
from lyra_tasks.records.evidence import Evidence, SetKey
from lyra_tasks.records.evidence_store import EvidenceStore
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.record import dump_record, has_other_schema, read_record
from lyra_tasks.registry.client import open_repository
from lyra_tasks.scaffold.plan import plan_init
from lyra_tasks.scaffold.project_files import inspect_project
from lyra_tasks.versions.changelog import commit_url_prefix, parse_commit
from lyra_tasks.versions.git import clean_remote_url, parse_status, parse_tag
from lyra_tasks.vulnerabilities.document import ImageVulnerabilities
from lyra_tasks.vulnerabilities.programs import parse_grype, parse_trivy
from lyra_tasks.vulnerabilities.scan import scan_packages
from tests.bundle.evidence import write_evidence
from tests.bundle.test_diff import SERVICE, described
from tests.bundle.test_receive_script import MANIFEST
from tests.fuzz.mutations import (
    compressed,
    damaged_bytes,
    damaged_values,
    json_documents,
    json_lines,
    tars,
    toml_documents,
    yaml_documents,
)
from tests.fuzz.records import PACK, RECORDS, SANDBOX, read_image_user, read_pack, read_sandbox, record_reader
from tests.images.saves import SampleImage, layer, legacy, stream
from tests.images.saves import layout as save_layout
from tests.vulnerabilities import samples as scan_samples


@dataclass(frozen=True)
class Reader:
    """A reader: `read` gets damaged content and an empty directory; its errors name `place`."""

    name: str
    contents: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    place: str = ""


def write(path: Path, data: bytes) -> Path:
    """Write a file and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


CONFIG = """
schema = 1
[project]
name = "shop"
description = "a shop"
[proxima]
platforms = ["linux/amd64"]
memory = "8g"
[bases.python]
image = "python:3.12"
rootfs = { suite = "bookworm", packages = ["python3"] }
[images.web]
context = "web"
args = { A = "b" }
[services.web]
image = "web"
command = ["serve", "--port", "8000"]
ports = { http = 8000, dns = "53/udp" }
limits = { cpus = 0.5, memory = "128m", pids = 64 }
ulimits = { nofile = { soft = 1, hard = 2 } }
[services.web.environment]
GREETING = { default = "hello", description = "first line", pattern = "[a-z]+" }
[services.web.volumes.data]
path = "/data"
size = "64m"
owner = "1:1"
[services.web.healthcheck]
http = "GET /health"
interval = "1s"
[[tests]]
name = "greets"
service = "web"
http = "GET /"
headers = { Accept = "text/html" }
json = { a = [1, { b = "c" }] }
timeout = "5s"
[[deviations]]
rule = "container.read-only-root"
scope = "services.web"
reason = "vendor"
owner = "ada"
expires = 2027-03-31
"""
COMPOSE = """
x-shared: &shared
  restart: always
services:
  web:
    <<: *shared
    build: { context: ., target: run, args: [A=1] }
    image: shop/web:1
    command: serve --port 8000
    ports: ["127.0.0.1:8000:80", 53/udp, { target: 90, published: "91" }]
    environment:
      GREETING: ${GREETING:-hello} # the first line
      TOKEN: ${TOKEN:?missing}
    env_file: [.env.example]
    depends_on: { db: { condition: service_healthy } }
    volumes: [data:/data, "./site.conf:/etc/site.conf:ro", { type: tmpfs, target: /x }]
    configs: [site, { source: site, target: /y }]
    secrets: [key]
    healthcheck: { test: [CMD, curl, "-f", http://localhost/], interval: 1m30s, timeout: 5s, retries: 3 }
    deploy: { resources: { limits: { cpus: "0.5", memory: 128M, pids: 10 } } }
  db:
    image: postgres:16
    environment: [POSTGRES_PASSWORD=secret, PGDATA=/data]
    tmpfs: /run:size=1m
    profiles: [debug]
volumes: { data: {} }
configs: { site: { file: ./site.conf } }
secrets: { key: { file: ./key } }
"""
COMPOSE_CACHE = {
    "schema": "lyra.compose-cache/2", "key": {}, "listings": {},
    "files": {"/nonexistent/compose.yaml": ""}, "kinds": {"/nonexistent": "missing"},
    "name": "shop", "document": {"services": {"web": {"image": "redis:7", "ports": {"http": 80}}}},
    "places": [[["services", "web"], "/nonexistent/compose.yaml", 2]],
    "findings": [[["services", "web", "tty"], "no terminal", [], False, "web"]], "inputs": [],
}  # fmt: skip
DOCKERFILE = b"""# syntax=docker/dockerfile:1
# escape=\\
ARG VERSION=3.12
FROM --platform=linux/amd64 python:${VERSION} AS build
ENV A=b C="d e"
RUN --mount=type=cache,from=build,target=/x <<EOF
make
EOF
FROM build AS run
COPY --from=build --chown=1:1 ["a", "b", "/c/"]
VOLUME ["/data"]
EXPOSE 80 53/udp
USER 1:1
HEALTHCHECK --interval=1s CMD curl localhost
ENTRYPOINT ["serve"]
"""
LOCK = f"""
schema = 1
[bases."python:3.12"]
source = "image"
reference = "python:3.12"
digest = "sha256:{"0" * 64}"
[bases.own]
source = "archive"
path = "own.tar"
sha256 = "{"0" * 64}"
digest = "sha256:{"0" * 64}"
[bases.built]
source = "rootfs"
suite = "bookworm"
variant = "custom"
packages = ["python3", "tzdata"]
architecture = "amd64"
sha256 = "{"0" * 64}"
source_date_epoch = 1686355200
resolved = ["dash=0.5"]
[bases.built.tools]
mmdebstrap = "1.3"
"""
KEY = SetKey(images={"web": f"sha256:{'0' * 64}"}, test_doubles={}, effective_hash="e" * 64)
EVENTS: list[Any] = [
    ["run", {"user": "ada", "command": ["build", "caf\udce9"]}],
    ["intent", {"kind": "container", "engine": "e", "name": "n", "nonce": "x"}],
    ["created", {"kind": "container", "engine": "e", "name": "n", "id": "i"}],
    ["intent", {"kind": "image", "engine": "e", "name": "a:1", "previous_id": "", "private": True}],
    ["created", {"kind": "image", "engine": "e", "name": "a:1", "id": "sha256:0"}],
    ["removed", {"kind": "image", "engine": "e", "name": "a:1", "id": "sha256:0"}],
    ["engine", {"engine": "e", "version": "28", "context": "", "host": "unix:///x", "private": False, "checkout": "c"}],
    ["tested", {"set": KEY.digest, "passed": True, "checks": {"a": "passed"}, "files": {"tests.json": "sha256:0"},
                "evidence": "sha256:0", "partial": False}],
    ["promoted", {"version": "1.0.0", "set": "0", "images": {"web": "sha256:0"}, "removed_snapshots": []}],
    ["task", {"task": "build", "exit_code": 0, "message": "", "seconds": 0.5}],
]  # fmt: skip
EVIDENCE = Evidence(
    set=KEY, passed=True, run="r", started_at="2026-11-24T12:00:00Z", seconds=1.0,
    engine={"version": "26.1", "store": "containerd", "platform": "linux/amd64"}, checks=[], rules=[], usage={},
).model_dump(mode="json", by_alias=True)  # fmt: skip
IMAGE = SampleImage("shop/web:1.0.0", (layer({"etc/os-release": b"ID=debian", "app": b"x" * 700}),))


def read_config_document(data: bytes, directory: Path) -> None:
    """Load a configuration."""
    write(directory / "web" / "Dockerfile", b"FROM python:3.12\n")
    write(directory / ".lyra.toml", data)
    load_config(directory)


def read_compose(data: bytes, directory: Path) -> None:
    """Read a Compose file with all that it names, as it is done before Compose itself sees it."""
    path = directory / "compose.yaml"
    write(path, data)
    sources = SourceFiles((path,), directory, {})
    list_required(sources.scalars(), {})
    for name in sources.service_env_files():
        sources.find_comment(("services", name, "environment", "A"))
        assert sources.find_place(("services", name, "image")).line
        sources.find_texts(("services", name))


def read_compose_cache(data: bytes, directory: Path) -> None:
    """Read what was kept of a Compose project; a damaged file is none."""
    with contextlib.suppress(ValueError, TypeError):
        data = json.dumps({**json.loads(data), "key": describe_settings(directory, ComposeSettings())}).encode()
    write(directory / ".lyra" / "compose.json", data)
    write(directory / ".lyra.toml", b'schema = 1\n[project]\nname = "a"\n')
    load_config(directory)


def read_project_files(data: bytes, directory: Path) -> None:
    """Plan a configuration from the other files of a project."""
    (directory / ".git").mkdir()
    write(directory / "Dockerfile", b"FROM scratch\nENV A=b\n")
    for name in (".env", ".env.example", ".dockerignore", ".gitignore", "Makefile"):
        write(directory / name, data)
    plan_init(inspect_project(directory))


def read_docker_file(data: bytes, directory: Path) -> None:
    """Read a Dockerfile and all that is derived from it."""
    dockerfile = read_dockerfile(write(directory / "Dockerfile", data))
    resolve_declared_image(dockerfile, "", {})


def read_ignore_file(data: bytes, directory: Path) -> None:
    """Read an ignore file and match a path."""
    write(directory / ".dockerignore", data)
    read_ignore_patterns(directory, None).matches("a/b.txt")


def read_lock(data: bytes, directory: Path) -> None:
    """Read a lock file and what a build takes from it."""
    for base in read_lock_file(write(directory / ".lyra.lock.toml", data)).bases.values():
        if isinstance(base, LockedRootfs):
            base.spec  # noqa: B018


ARCHIVE = gzip.compress(b'{"at":"","data":{},"event":"begun"}\n', mtime=0)


def read_journal(data: bytes, directory: Path) -> None:
    """Read a damaged journal in every way, and append to it."""
    journal = Journal(directory / "journal.jsonl")
    journal.append("r", "begun")
    with journal.path.open("ab") as file:
        file.write(data)
    use_journal(journal, directory)


def read_journal_events(events: Any, directory: Path) -> None:
    """Read a journal whose entries are sealed and have damaged data."""
    journal = Journal(directory / "journal.jsonl")
    pairs = [item for item in (events if isinstance(events, list) else ()) if isinstance(item, list) and len(item) == 2]
    journal.extend("r", [("begun", {}), *((str(event), data) for event, data in pairs if isinstance(data, dict))])
    use_journal(journal, directory)


def use_journal(journal: Journal, directory: Path) -> None:
    """Read a journal as the commands do."""
    journal.append("r", "ended")
    journal.find_problems()
    journal.read_recent()
    list(journal.find_backwards("created"))
    entries = list(journal.entries())
    build_ownership_index(entries, "e")
    write(directory / "evidence" / "sets" / f"{KEY.digest}.json", b'{"schema": "lyra.tested-set/1", "directory": "r"}')
    write(directory / "evidence" / "r" / "evidence.json", format_json(EVIDENCE).encode())
    with contextlib.suppress(LyraError):
        EvidenceStore(directory, journal).find_recorded_test(KEY)
    with contextlib.suppress(UsageError):
        entries_about(entries, "sha256:0")
    summarize_runs(entries)
    paths = Paths(directory, directory / ".lyra", directory, directory / "cache", "web-123456")
    with contextlib.suppress(LyraError):
        journal.archive(select_needed_entries(paths, {"r"}, directory), 1)
    list(journal.all_entries({"r"}))
    journal.find_problems(archived=True)


def read_journal_archive(data: bytes, directory: Path) -> None:
    """Read a damaged archive of a journal."""
    journal = Journal(directory / "journal.jsonl")
    for _ in range(3):
        journal.append("r", "begun")
    archive = journal.archive(lambda entry: False, 1)
    assert archive is not None
    archive.path.write_bytes(data)
    journal.find_problems(archived=True)
    list(journal.all_entries())


def read_head(data: bytes, directory: Path) -> None:
    """Append to a journal with a damaged head."""
    journal = Journal(directory / "journal.jsonl")
    journal.append("r", "begun")
    journal.head_file.write_bytes(data)
    journal.find_problems()
    journal.append("r", "ended")


def read_evidence_record(data: bytes, directory: Path) -> None:
    """Read the evidence of a test run."""
    path = write(directory / "evidence.json", data)
    has_other_schema(path, Evidence)
    read_record(path, Evidence)


def read_upload_record(data: bytes, directory: Path) -> None:
    """Read the record of uploaded files."""
    read_record(write(directory / "uploads.json", data), UploadedFiles)


def read_run(data: bytes, directory: Path) -> None:
    """Read the documents of a run whose measurements are damaged."""
    write_evidence(directory, MANIFEST.model_copy(update={"images": [], "archives": []}))
    write(directory / layout.METRICS_FILE, data)
    read_run_documents(directory / layout.EVIDENCE_DIRECTORY)


def read_hashes(data: bytes, directory: Path) -> None:
    """Read the cache of file hashes."""
    _read_cache(write(directory / "hashes.json", data))


def bundle_reader(name: str) -> Callable[[bytes, Path], None]:
    """Return a reader of a bundle in which the document `name` is damaged."""

    def read(data: bytes, directory: Path) -> None:
        write_evidence(directory, MANIFEST.model_copy(update={"images": [], "archives": []}))
        # without the fsync of the product's own functions
        write(
            directory / layout.MANIFEST_FILE,
            encode_document(MANIFEST.model_copy(update={"images": [], "archives": []})),
        )
        for file, document in described(SERVICE | {"configs": []}).items():
            write(directory / file, format_json(document).encode())
        write(directory / name, data)
        documents = read_bundle_documents(open_bundle(directory))
        with contextlib.suppress(UsageError):
            compare_bundles(documents, documents)

    return read


def contradiction_reader(name: str) -> Callable[[bytes, Path], None]:
    """Return a reader that compares the documents of a bundle, of which `name` is damaged."""

    def read(data: bytes, directory: Path) -> None:
        manifest = MANIFEST.model_copy(update={"images": [], "archives": []})
        write_evidence(directory, manifest)
        write(directory / name, data)
        find_bundle_contradictions(directory, manifest, {})

    return read


def read_sums(data: bytes, directory: Path) -> None:
    """Read the checksums of a bundle."""
    write(directory / layout.CHECKSUMS_FILE, data)
    read_checksums(directory)


def read_bundle_index(data: bytes, directory: Path) -> None:
    """Read the index of all bundles."""
    write(directory / "index.json", data)
    read_index(directory, "shop")


def verify_image_archive(data: bytes, directory: Path) -> None:
    """Verify an image archive of a bundle."""
    verify_archive(write(directory / "image.tar", data))


def pack_save(data: bytes, directory: Path) -> None:
    """Pack an image from the engine's save."""
    pack_saved_images(stream(data), {0: ImageRequest(IMAGE.reference)}, directory, "gzip")


def read_base_archive(data: bytes, directory: Path) -> None:
    """Read an archive as a base, and copy it."""
    image = read_archived_image(write(directory / "base.tar", data), "linux/amd64")
    write_archive_as(image, "own:1", io.BytesIO())


def scan_image_layer(data: bytes, directory: Path) -> None:
    """Scan a layer for packages, secrets and owners."""
    matcher = SecretMatcher({"key": "known-to-nobody"})
    scan_layer(iter([data]), "layer.tar", matcher=matcher, directories=frozenset({"data"}))


def read_package_database(data: bytes, directory: Path) -> None:
    """Read the databases of packages."""
    for parse in (parse_dpkg_status, parse_apk_installed, parse_python_metadata, parse_npm_package, parse_os_release):
        parse(data)


def read_structure_report(data: bytes, directory: Path) -> None:
    """Read the report of a structure test."""
    _read_failures(write(directory / "report.xml", data))


def read_grype(data: bytes, directory: Path) -> None:
    """Read what grype found, as a scan does."""
    with translate_failures(lambda problem: PreconditionError(problem, hint="")):
        dump_record(ImageVulnerabilities(vulnerabilities=parse_grype(data).vulnerabilities, packages=1))


def read_trivy(data: bytes, directory: Path) -> None:
    """Read what trivy found, as a scan does."""
    with translate_failures(lambda problem: PreconditionError(problem, hint="")):
        dump_record(ImageVulnerabilities(vulnerabilities=parse_trivy(data), packages=1))


def read_tracker(data: bytes, directory: Path) -> None:
    """Look packages up in the data of Debian's security tracker; what prevents that is a part of the result."""
    write(directory / "tracker.json", data)
    names = ("openssl", "prototypejs", "bash", "zlib")
    images = {"web": scan_samples.image(*(scan_samples.deb(name, "1.0-1") for name in names))}
    table = Scan(tool="debian-tracker", database="tracker.json")
    dump_record(scan_packages(images, table, directory, date(2026, 11, 29)))


def read_docker_contexts(data: bytes, directory: Path) -> None:
    """Read the configuration of the docker command, and a context."""
    write(directory / "config.json", data)
    write(directory / "contexts" / "meta" / sha256_hex(b"x") / "meta.json", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", str(directory))
        patch.delenv("DOCKER_CONTEXT", raising=False)
        with contextlib.suppress(LyraError):
            read_context_endpoint("x")
        read_context_endpoint("")


def read_git_output(data: bytes, directory: Path) -> None:
    """Read what git prints."""
    text = data.decode(errors="surrogateescape")
    parse_tag(text)
    parse_tag(f"v{text}")
    parse_commit("0" * 40, text)
    commit_url_prefix(clean_remote_url(text))
    parse_status(text)


def read_release_index(data: bytes, directory: Path) -> None:
    """Read the date of the index of a Debian mirror."""
    _parse_release_date(data)


def read_users(data: bytes, directory: Path) -> None:
    """Look up users of an image."""
    for user in ("web", "web:web", "5", "", "x:y", "²", "9" * 5000):
        with contextlib.suppress(LyraError):
            parse_user_ids(user, lambda _: data.decode(errors="replace"))


def read_stats(document: Any, directory: Path) -> None:
    """Read a sample of the stats of a container."""
    _read_sample(document)


def read_container(document: Any, directory: Path) -> None:
    """Read what the engine says about a container."""
    engine: Any = SimpleNamespace(api=SimpleNamespace(inspect_container=lambda _: document))
    with contextlib.suppress(PreconditionError):
        read_container_state(engine, "x")
    read_health_probe(engine, "x")


class AnsweringServer:
    """A server on this machine that gives every client the same answer and then hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with contextlib.suppress(OSError), client:
                client.settimeout(2)
                client.recv(1 << 16)
                client.sendall(self.answer)


@cache
def answering_server() -> AnsweringServer:
    """Return the one server of this process."""
    return AnsweringServer()


def serve(answer: bytes) -> tuple[str, int]:
    """Return the address of a server with this answer."""
    answering_server().answer = answer
    return answering_server().address


def read_service_answer(data: bytes, directory: Path) -> None:
    """Check what a service answers, and whether it is healthy; no answer is an exception of the checks."""
    address = serve(data)
    target: Any = SimpleNamespace(http_address=lambda: address, secret_values=(), environment={})
    test = Test.model_validate(
        {"name": "x", "service": "web", "http": "GET /é", "headers": {"A": "☃"}, "json": {"a": [1]}, "timeout": 2}
    )
    evaluate_check(test, lambda: check_service(target, test), ())
    with contextlib.suppress(OSError, HTTPException), open_http_response(address, "GET", "/", 2) as response:
        response.read(1000)


def read_registry_answer(data: bytes, directory: Path) -> None:
    """Open a repository of a registry and ask for a tag."""
    host, port = serve(data)
    repository = open_repository(f"{host}:{port}", "team/web")
    with repository.session:
        repository.manifest_digest("1")
        repository.has_blob(f"sha256:{'0' * 64}")


HTTP = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{"a": [1, 2]}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n3\r\n 1}\r\n0\r\nX: y\r\n\r\n'
CHALLENGE = (
    b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="http://127.0.0.1:9/t",service="s"\r\nContent-Length: 0\r\n\r\n'
)
STATS = {
    "memory_stats": {"usage": 1, "limit": 2}, "pids_stats": {"current": 1, "limit": 5},
    "cpu_stats": {"cpu_usage": {"total_usage": 5}, "system_cpu_usage": 9, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 1}, "system_cpu_usage": 2},
}  # fmt: skip
CONTAINER = {
    "State": {"Running": True, "ExitCode": 0, "OOMKilled": False, "Error": "", "StartedAt": "x", "FinishedAt": "y",
              "Health": {"Status": "healthy", "Log": [{"Output": "ok"}]}},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8000"}], "53/udp": None}},
    "Config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1, "Timeout": 2, "Retries": 3, "StartPeriod": 4}},
}  # fmt: skip
CONTEXT = {"currentContext": "x", "Endpoints": {"docker": {"Host": "unix:///x"}}, "auths": {"r": {"auth": "YTpi"}}}
STATUS = b"# branch.oid abc\x00# branch.head main\x001 .M N... 100644 100644 100644 a b file name\x00? caf\xe9\x00"
DPKG = b"Package: dash\nVersion: 0.5\nStatus: install ok installed\nArchitecture: amd64\n more\n\nPackage: x\n"
NPM = {"name": "b", "version": "1", "license": "MIT"}
JUNIT = b'<testsuites><testsuite name="s"><testcase name="a"><failure>no</failure></testcase></testsuite></testsuites>'
METRICS = {"schema": "lyra.metrics/1", "run": "r", "services": {}, "events": []}
LINE = {"schema": "lyra.journal/1", "seq": 1, "at": "x", "run": "r", "event": "created", "data": {"kind": "image"},
        "prev": "0", "hash": "0"}  # fmt: skip
UPLOADS = {"files": {"a": {"kind": "file", "size": 1, "mtime_ns": 2, "mode": 3, "digest": "0" * 64}}}
HASHES = {"schema": "lyra.file-hashes/2", "files": {"a": ["1 2 3 4 5", ["0" * 64, "0" * 40]]}}
LAYER = {
    "etc/os-release": b"ID=debian\n", "var/lib/dpkg/status": DPKG, "data/.wh.x": b"", "bin/x": b"\x7fELF" * 20,
    "a/node_modules/b/package.json": NPM,
}  # fmt: skip


def list_readers() -> list[Reader]:
    """Return all readers."""
    saved, oci = (
        dict(map(_decode_member, members)) for members in (legacy(IMAGE), save_layout(IMAGE, compressed=False))
    )
    answers = damaged_bytes(HTTP) | damaged_bytes(CHUNKED) | json_documents({"a": [1]}).map(_respond)
    environment = described(SERVICE | {"configs": [{"name": "s", "path": "/s", "file": "configs/web/s"}]})
    documents = _write_bundle_documents()
    entry = BundleEntry(
        version="1.0.0", created=MANIFEST.created, commit=MANIFEST.source.commit, set_digest=MANIFEST.set_digest,
        is_snapshot=False,
    )  # fmt: skip
    index = build_index("shop", [entry]).model_dump(mode="json", by_alias=True)
    git_output = (STATUS, b"https://a:b@[::1]:80/x?y#z", b"1.2.3-rc.1+g0", b"feat(x)!: y\n\nBREAKING CHANGE: z\n")
    ignore_file = b"*\n!src/**\n# x\n[a-c]?/\n\\#y\n"
    return [
        Reader("config", toml_documents(CONFIG), read_config_document, ".lyra.toml"),
        Reader("compose file", yaml_documents(COMPOSE), read_compose),
        Reader("compose cache", json_documents(COMPOSE_CACHE), read_compose_cache),
        Reader("project files", damaged_bytes(b"A=b\n# c\nexport D='e f' # g\n!x/**\n[a-z]*\n"), read_project_files),
        Reader("Dockerfile", damaged_bytes(DOCKERFILE), read_docker_file, "Dockerfile"),
        Reader("ignore file", damaged_bytes(ignore_file), read_ignore_file, ".dockerignore"),
        Reader("lock file", toml_documents(LOCK), read_lock, ".lyra.lock.toml"),
        Reader("journal", json_lines([LINE] * 2), read_journal),
        Reader("journal entries", damaged_values(EVENTS), read_journal_events),
        Reader("journal archive", damaged_bytes(ARCHIVE), read_journal_archive),
        Reader("journal head", damaged_bytes(b"%020d %s\n" % (1, b"0" * 64)), read_head),
        Reader("evidence", json_documents(EVIDENCE), read_evidence_record, "evidence.json"),
        Reader("uploads", json_documents(UPLOADS), read_upload_record, "uploads.json"),
        Reader("metrics", json_documents(METRICS), read_run, "metrics.json"),
        Reader("file hashes", json_documents(HASHES), read_hashes),
        Reader("checksums", damaged_bytes(b"%s  a\n%s  b/c\n" % (b"0" * 64, b"1" * 64)), read_sums, "SHA256SUMS"),
        Reader("bundle index", json_documents(index), read_bundle_index, "index.json"),
        Reader("image archive", tars(oci), verify_image_archive, "image.tar"),
        Reader("save of the classic store", tars(saved), pack_save),
        Reader("save of the containerd store", tars(oci), pack_save),
        Reader("base archive", compressed(tars(saved)) | tars(oci), read_base_archive, "base.tar"),
        Reader("layer", compressed(tars(LAYER)), scan_image_layer, "layer.tar"),
        Reader("package database", damaged_bytes(DPKG) | json_documents(NPM), read_package_database),
        Reader("answer of grype", json_documents(scan_samples.GRYPE), read_grype),
        Reader("answer of trivy", json_documents(scan_samples.TRIVY), read_trivy),
        Reader("Debian's security tracker", json_documents(scan_samples.TRACKER), read_tracker),
        Reader("structure report", damaged_bytes(JUNIT), read_structure_report, "report.xml"),
        Reader("Docker contexts", json_documents(CONTEXT), read_docker_contexts),
        Reader("output of git", st.one_of([damaged_bytes(text) for text in git_output]), read_git_output),
        Reader("Debian index", damaged_bytes(b"Date: Sat, 10 Jun 2023 08:53:33 UTC\nA: b\n"), read_release_index),
        Reader("pack", json_documents(PACK), read_pack, "pack.json"),
        Reader("private engine", json_documents(SANDBOX), read_sandbox, "sandbox.json"),
        Reader("kept ids of a user", json_documents([1, 2]), read_image_user),
        Reader("users", damaged_bytes(b"root:x:0:0::/:/bin/sh\nweb:x:5:6::/:/bin/sh\n"), read_users),
        Reader("stats", damaged_values(STATS), read_stats),
        Reader("container", damaged_values(CONTAINER), read_container),
        Reader("answer of a service", answers, read_service_answer),
        Reader("answer of a registry", answers | damaged_bytes(CHALLENGE), read_registry_answer),
        *(
            Reader(f"bundle, {name}", json_documents(document), bundle_reader(name), str(Path(name).parent))
            for name, document in (
                (layout.ENVIRONMENT_FILE, environment[layout.ENVIRONMENT_FILE]),
                *((name, json.loads(documents[name])) for name in _DESCRIBING_FILES),
            )
        ),
        *(
            Reader(f"contradiction, {name}", _damaged_document(documents[name]), contradiction_reader(name))
            for name in COMPARED_DOCUMENTS
        ),
        *(
            Reader(f"record, {kind.__name__}", json_documents(document), record_reader(kind))
            for kind, document in RECORDS.items()
        ),
    ]


_DESCRIBING_FILES = (layout.TESTS_JSON_FILE, layout.DEVIATIONS_FILE, layout.MANIFEST_FILE)


def _damaged_document(data: bytes) -> st.SearchStrategy[bytes]:
    return json_documents(json.loads(data)) if data.endswith(b"}") else damaged_bytes(data)


def _write_bundle_documents() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_evidence(directory, MANIFEST.model_copy(update={"images": [], "archives": []}))
        write_document(directory / layout.MANIFEST_FILE, MANIFEST)
        return {file: (directory / file).read_bytes() for file in (*COMPARED_DOCUMENTS, layout.MANIFEST_FILE)}


def _decode_member(member: tuple[str, bytes | str]) -> tuple[str, Any]:
    name, content = member
    return name, json.loads(content) if name.endswith(".json") else content


def _respond(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
