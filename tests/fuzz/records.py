"""Readers of what Lyra itself keeps in its state and its caches, which a crash or another program may have damaged."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_tasks.bundle.format.documents import read_vulnerabilities
from lyra_tasks.bundle.format.layout import PACK_FILE
from lyra_tasks.bundle.format.pack import read_pack_manifest
from lyra_tasks.digests import canonical_json, sha256_digest, sha256_hex
from lyra_tasks.engine.objects import users
from lyra_tasks.engine.sandbox.layout import SandboxPaths, find_sandbox, read_boot_id, read_sandbox_record
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.scan import layer_cache as scanned
from lyra_tasks.images.scan.layer_cache import LayerScan
from lyra_tasks.images.stream.cache import CachedLayer, LayerCache
from lyra_tasks.images.stream.packages import LayerPackages, load_layer_packages
from lyra_tasks.records.checkouts import CheckoutRecord, list_other_checkouts
from lyra_tasks.records.cleanup import CLEANUP_FILE_NAME, CleanupReport
from lyra_tasks.records.contexts import SentContexts, SentContextStore
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.records.evidence import SetKey
from lyra_tasks.records.evidence_store import EvidenceStore, SetPointer
from lyra_tasks.records.images import ContextFiles, ImageRecord, ImageScan, ImageStore, ScanStore
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.record import Record, read_valid_record
from lyra_tasks.records.tested_parts import PartPointers, TestedParts
from lyra_tasks.vulnerabilities.document import VulnerabilityScan

_HEX = "0" * 64
_DIGEST = f"sha256:{_HEX}"
_KEY = SetKey(images={"web": _DIGEST}, test_doubles={}, effective_hash="e" * 64)
_PACKAGES = {
    "schema": "lyra.layer-packages/4", "removed": ["a"], "opaque": ["b"],
    "packages": {"var/lib/dpkg/status": [{"kind": "deb", "name": "dash", "version": "1", "arch": "a", "license": ""}]},
    "os_releases": {"etc/os-release": {"id": "debian", "version": "12", "name": "Debian"}},
}  # fmt: skip
_LAYER = {"media_type": "x", "digest": _DIGEST, "size": 1, "diff_id": _DIGEST, "unpacked_size": 2, "start_digest": ""}
_SNAPSHOT = {"containers": {"i": "n"}, "volumes": ["v"], "processes": {"1": "init"}, "layers_size": 5}
_OBJECT = {"kind": "image", "name": "a:1", "id": "i", "run": "r"}

RECORDS: dict[type[Record], dict[str, Any]] = {
    ImageRecord: {
        "schema": "lyra.image/2", "image": "web", "reference": "shop/web:1", "engine": "e", "image_id": _DIGEST,
        "config_digest": _DIGEST, "manifest_digest": None, "diff_ids": [_DIGEST], "platform": "linux/amd64", "size": 1,
        "commit": "c", "dirty": False, "version": "1.0.0", "run": "r", "built_at": "x", "inputs": {"context": _HEX},
        "bases": {"python:3.12": _DIGEST}, "definition": "d",
        "origin": {"reference": "redis:7", "digest": _DIGEST, "source": "image", "local": True},
    },
    ContextFiles: {"schema": "lyra.context-files/1", "files": {"a": _HEX, "b/": ""}},
    ImageScan: {
        "schema": "lyra.image-scan/1", "config_digest": _DIGEST, "query_digest": "q",
        "setuid_programs": {"bin/su": "4755"}, "volume_owners": {"/data": "1:1"},
        "programs_by_architecture": {"x86-64": 1}, "secret_like_names": ["A"],
        "secrets": [{"secret": "key", "encoding": "plain", "location": "a"}], "tokens": None,
    },
    LayerScan: {
        "schema": "lyra.layer-scan/2", "query_digest": "q", "blob_digest": _DIGEST, "diff_id": _DIGEST, "size": 1,
        "packages": _PACKAGES, "setuid_files": {"bin/su": 2541}, "directory_owners": {"data": "1:1"},
        "links": {"srv": "data"}, "programs_by_architecture": {"x86-64": 1},
        "file_hashes": base64.b64encode(bytes(16)).decode(),
    },
    CachedLayer: {
        "schema": "lyra.layer/1", **_LAYER, "checksum": sha256_digest(canonical_json(_LAYER).encode()),
    },
    LayerPackages: _PACKAGES,
    SentContexts: {
        "schema": "lyra.sent-contexts/1",
        "contexts": {"web": {"generation": "g", "pending": {"b": "1"}, "files": {"a": {"1 2": _HEX}}}},
    },
    CheckoutRecord: {"schema": "lyra.checkout/1", "root": "/home/ada/shop"},
    DevLab: {
        "schema": "lyra.dev/1", "run": "r", "engine": "e", "config": "c", "holder": "h",
        "services": {"web": {
            "id": "i", "ports": {"http": 8000}, "is_developed": True, "secret_variables": ["A"],
            "source": {"volume": "v", "path": "/src", "context": "web", "uid": 1, "gid": 1},
        }},
    },
    PartPointers: {"schema": "lyra.tested-parts/1", "directories": {"k": "r"}},
    VulnerabilityScan: {
        "schema": "lyra.vulnerabilities/1", "problem": "old", "fail_on": "high",
        "source": {"tool": "grype", "version": "1", "database_date": "2026-11-01T00:00:00Z"},
        "images": {"web": {"packages": 2, "unknown_packages": 1, "vulnerabilities": [
            {"id": "CVE-1", "severity": "high", "package": "dash", "version": "1", "fixed_in": "2"},
        ]}},
    },
    SetPointer: {"schema": "lyra.tested-set/1", "directory": "r"},
    CleanupReport: {
        "schema": "lyra.cleanup/1", "run": "r", "level": "all", "started_at": "x", "seconds": 0.5,
        "engine": {"id": "e"}, "before": _SNAPSHOT, "after": {}, "removed": [_OBJECT], "removed_by_others": ["x"],
        "kept": [_OBJECT | {"reason": "y"}], "leftovers": [{"kind": "image", "name": "n", "reason": "r", "fix": "f"}],
        "not_asked": [{"engine": "e", "endpoint": "x", "reason": "r", "objects": 1, "fix": "f"}],
        "sandbox_stopped": False, "deleted_states": [{"root": "/a", "state": "/b"}], "clean": True,
    },
}  # fmt: skip
"""A valid document of each kind, to be damaged."""


@dataclass(frozen=True)
class RecordFile:
    """Where a record lies below a state or cache directory, and how that directory's records are read."""

    path: str
    read: Callable[[Path], object]


def read_image_record(state: Path) -> None:
    """Read the record of an image in every way."""
    store = ImageStore(state)
    store.list_records()
    store.remove_unused_files()
    store.read("web", "linux/amd64")


def edit_sent_contexts(state: Path) -> None:
    """Change the record of what a builder has."""
    with SentContextStore(state, "default").edit() as contexts:
        contexts.pop("web", None)


def read_checkouts(states: Path) -> None:
    """List the other checkouts, with the reasons why they may be missing."""
    (states / "shop-0" / "journal.jsonl").touch()
    paths: Any = SimpleNamespace(state=states / "own-1", project_id="own-1")
    for checkout in (state for other in list_other_checkouts(paths) for state in other):
        assert not (checkout.unmounted_reason and checkout.root is None)


def find_evidence(state: Path) -> None:
    """Look for the test run of a set."""
    EvidenceStore(state, Journal(state / "journal.jsonl")).find_recorded_test(_KEY)


def find_parts(runs: Path) -> None:
    """Look for the test run of a part of a set."""
    TestedParts(runs, Journal(runs / "journal.jsonl")).find_runs(["k"])


RECORD_FILES: dict[type[Record], RecordFile] = {
    ImageRecord: RecordFile("images/web@linux-amd64.json", read_image_record),
    ContextFiles: RecordFile(f"images/contexts/{_HEX}.json", lambda state: ImageStore(state).read_files(_HEX)),
    ImageScan: RecordFile("scans/web.json", lambda state: ScanStore(state).read("web", _DIGEST, "q")),
    LayerScan: RecordFile(f"{_HEX}.json", lambda cache: scanned.LayerCache(cache, "q").load(_DIGEST)),
    CachedLayer: RecordFile(f"unpacked/{_HEX}.json", lambda cache: LayerCache(cache, 1 << 20).find_unpacked(_DIGEST)),
    LayerPackages: RecordFile(f"packages/{_HEX}.json", lambda cache: load_layer_packages(cache, _DIGEST)),
    SentContexts: RecordFile(f"contexts/{sha256_hex(b'default')[:16]}.json", edit_sent_contexts),
    CheckoutRecord: RecordFile("shop-0/checkout.json", read_checkouts),
    DevLab: RecordFile("dev/dev.json", lambda state: DevStore(state).read()),
    PartPointers: RecordFile(
        "parts.json", lambda runs: TestedParts(runs, Journal(runs / "journal.jsonl")).find_runs("k")
    ),
    VulnerabilityScan: RecordFile("scan.json", lambda path: read_vulnerabilities(path / "scan.json")),
    SetPointer: RecordFile(f"evidence/sets/{_KEY.digest}.json", find_evidence),
    CleanupReport: RecordFile("cleanup.json", lambda run: read_valid_record(run / CLEANUP_FILE_NAME, CleanupReport)),
}

PACK = {
    "schema": "lyra.pack/2", "project": "shop", "version": "1.1.0", "since": "1.0.0", "set_digest": _DIGEST,
    "archives": [{
        "file": "images/linux-amd64.tar", "sha256": _HEX, "size": 5, "parts": 2, "platform": "linux/amd64",
        "omitted_layers": [_DIGEST],
        "required_images": [{"reference": "shop/web:1.0.0", "config_digest": _DIGEST, "manifest_digest": _DIGEST}],
    }],
    "documents": {"file": "documents.tar.gz", "sha256": _HEX, "size": 5, "parts": 0, "unpacked_size": 9},
}  # fmt: skip
SANDBOX = {
    "schema_version": 1, "suite": "trixie", "store": "containerd", "pid": 5, "start_ticks": 7,
    "boot_id": read_boot_id(), "link": "l", "address": "10.0.0.1", "memory": None, "cpus": 0.5,
}  # fmt: skip


def record_reader(kind: type[Record]) -> Callable[[bytes, Path], None]:
    """Return a reader of a directory in which the record of this kind is damaged."""

    def read(data: bytes, directory: Path) -> None:
        path = directory / RECORD_FILES[kind].path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        RECORD_FILES[kind].read(directory)

    return read


def read_pack(data: bytes, directory: Path) -> None:
    """Read the description of a pack, and the names of its files."""
    (directory / PACK_FILE).write_bytes(data)
    pack = read_pack_manifest(directory)
    assert all(file.part_names for file in (*pack.archives, pack.documents))


def read_sandbox(data: bytes, state: Path) -> None:
    """Look for the private engine of a state directory, running or not."""
    paths = SandboxPaths(state)
    paths.record.parent.mkdir()
    paths.record.write_bytes(data)
    find_sandbox(state)
    read_sandbox_record(paths)


def read_image_user(data: bytes, cache: Path) -> None:
    """Look up a user whose ids are kept; the engine is asked if they are damaged."""
    path = cache / "users" / f"{sha256_hex(b'image web')}.json"
    path.parent.mkdir()
    path.write_bytes(data)
    asked = PreconditionError("The engine was asked")

    def refuse(*_: Any, **__: Any) -> None:
        raise asked

    with contextlib.suppress(PreconditionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_look_up", refuse)
        owner: Any = SimpleNamespace(run="r")
        users.resolve_image_user(owner, owner, "image", "web", cache)
