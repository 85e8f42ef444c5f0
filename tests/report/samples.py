"""Documents of a run and a bundle as large as real ones: minutes of samples, an out-of-memory exit."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from lyra_tasks.records.documents import ReportDocuments

BEGIN = datetime(2026, 11, 23, 21, 15, 4, tzinfo=UTC)
DIGEST = "sha256:" + "1" * 64
MEGABYTE = 1000**2
NOT_JUDGED = {
    "rule": "image.vulnerabilities",
    "scope": "images.web",
    "outcome": "skipped",
    "message": "1 vulnerabilities without a severity not judged",
}


def moment(seconds: float) -> str:
    """Return the timestamp `seconds` after the start of the run."""
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest(number: int) -> str:
    """Return a unique digest."""
    return f"sha256:{number:064x}"


def run(*, passed: bool = True, seconds: int = 240) -> ReportDocuments:
    """Return a run of two services; in a failed one, the worker runs out of memory."""
    samples: dict[str, list[dict[str, Any]]] = {
        name: [
            {
                "at": moment(2.5 + second),
                "memory": int(limit * (0.35 + 0.2 * math.sin(second / 17) + (0.44 * second / seconds) * (not passed))),
                "memory_limit": limit,
                "cpu": round(0.12 + 0.1 * math.sin(second / 5) + (0.3 if second % 60 == 30 else 0), 3),
                "pids": 4,
                "pids_limit": 64,
            }
            for second in range(seconds)
        ]
        for name, limit in (("web", 200 * MEGABYTE), ("worker", 128 * MEGABYTE))
    }
    names = [
        "front page greets",
        "an entry is taken",
        "the queue is emptied",
        "metrics count the entry",
        "logs are kept",
    ]
    checks: list[dict[str, Any]] = [
        {
            "name": name, "kind": "http" if number else "exec", "service": "worker" if number == 2 else "web",
            "outcome": "passed", "message": "", "seconds": 0.02 + number, "details": [], "cached_from": "",
            "asked": 'GET / answers 200, the body contains "hello"', "group": "", "directory": "",
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    events: list[dict[str, Any]] = []
    for name in samples:
        events += [
            {"at": moment(1), "kind": "started", "service": name, "name": "", "outcome": "", "seconds": 0.0},
            {"at": moment(3), "kind": "ready", "service": name, "name": "", "outcome": "", "seconds": 2.0},
        ]
    if not passed:
        checks[2] |= {"outcome": "failed", "message": "status 500, expected 200; the response begins:\n  no room"}
        checks[2]["details"] = [{"title": "worker logged since the check began", "lines": ["no room"], "file": ""}]
        checks[3] |= {"outcome": "error", "message": "connection refused"}
        ended = {"at": moment(seconds), "kind": "ended", "service": "worker", "name": "", "seconds": 0.0}
        events.append(ended | {"outcome": "out of memory"})
    for number, check in enumerate(checks):
        details = {key: check[key] for key in ("name", "service", "outcome", "seconds")}
        events.append({"at": moment(4 + 40 * number), "kind": "check", **details})
    logs = {
        name: tuple(
            f'{moment(second + 1.2)} out {{"level": "info", "event": "request", "path": "/jobs/{second}"}}'
            for second in range(seconds)
        )
        for name in samples
    }
    usage = {
        name: {
            "memory_peak": max(sample["memory"] for sample in service_samples),
            "memory_limit": service_samples[0]["memory_limit"],
            "cpu_peak": max(sample["cpu"] for sample in service_samples), "cpu_limit": 0.5,
            "pids_peak": 4, "pids_limit": 64,
            "oom_killed": not passed and name == "worker", "exit_code": None, "samples": len(service_samples),
        }
        for name, service_samples in samples.items()
    }  # fmt: skip
    tests = {
        "schema": "lyra.evidence/1",
        "set": {
            "images": {"web": DIGEST, "worker": DIGEST},
            "test_doubles": {"cache": DIGEST},
            "effective_hash": "2" * 64,
        },
        "passed": passed,
        "run": "20261123t211504-3f9a1c",
        "started_at": "2026-11-23T21:15:04+00:00",
        "seconds": float(seconds),
        "engine": {"version": "26.1.5", "store": "containerd", "platform": "linux/amd64"},
        "checks": checks,
        "rules": [
            {"rule": "container.non-root", "scope": "services.web", "outcome": "passed", "message": ""},
            {"rule": "image.size", "scope": "images.web", "outcome": "passed", "message": ""},
            {
                "rule": "container.read-only-root",
                "scope": "services.worker",
                "outcome": "deviation",
                "message": "root file system is writable",
            },
            {
                "rule": "image.setuid",
                "scope": "images.worker",
                "outcome": "passed" if passed else "failed",
                "message": "" if passed else "/usr/bin/su has mode 4755",
            },
        ],
        "usage": usage,
    }
    metrics = {
        "schema": "lyra.metrics/1",
        "events": sorted(events, key=lambda event: str(event["at"])),
        "services": samples,
    }
    return ReportDocuments(tests, metrics, logs)


def bundle(*, passed: bool = True) -> ReportDocuments:
    """Return the bundle of such a run: two images that share layers with the previous version."""
    tested = run(passed=passed)
    images = [_image("web", 1, [31, 4, 1]), _image("worker", 1, [31, 58, 2])]
    return ReportDocuments(
        tests=tested.tests,
        metrics=tested.metrics,
        logs=tested.logs,
        manifest={
            "project": "shop",
            "description": "The shop and its worker",
            "version": "1.3.0",
            "is_snapshot": True,
            "created": "2026-11-23T21:00:00Z",
            "source": {"url": "https://git.example.org/shop.git", "commit": "c" * 40, "dirty": True},
            "proxima": {"platforms": ["linux/amd64"], "min_engine": "20.10"},
            "set_digest": DIGEST,
            "archives": [
                {
                    "platform": "linux/amd64",
                    "file": "images/shop-1.3.0-linux-amd64.tar",
                    "sha256": "3" * 64,
                    "size": 97 * MEGABYTE,
                }
            ],
            "images": images,
            "test_doubles": [],
        },
        previous={
            "schema": "lyra.previous/2",
            "version": "1.2.0",
            "images": [_image("web", 1, [31, 9])],
            "changes": [
                {"section": "images", "name": "web", "before": digest(7), "after": DIGEST},
                {"section": "services", "name": "worker", "before": None, "after": "shop/worker"},
                {"section": "environment", "name": "web: GREETING", "before": "default 'hi'", "after": "default ''"},
                {"section": "volumes", "name": "web: old", "before": "/old", "after": None},
                *({"section": "packages", "name": f"web: deb {n}", "before": "1", "after": "2"} for n in range(20)),
            ],
        },
        rules={"results": [*tested.tests["rules"], NOT_JUDGED]},
        vulnerabilities={
            "schema": "lyra.vulnerabilities/1",
            "source": {"tool": "grype", "version": "0.92.2", "database_date": "2026-11-22T06:00:00Z"},
            "problem": "",
            "fail_on": "high",
            "images": {
                name: {"vulnerabilities": _vulnerabilities(), "packages": 90, "unknown_packages": 2}
                for name in ("web", "worker")
            },
        },
        environment={"services": {"web": _service(), "worker": _service()}},
        deviations={
            "deviations": [
                {
                    "rule": "container.read-only-root",
                    "scope": "services.worker",
                    "reason": "the vendor's start script rewrites its own configuration",
                    "owner": "ada",
                    "expires": "2027-03-31",
                }
            ]
        },
        provenance={
            "predicate": {
                "buildDefinition": {
                    "buildType": "urn:lyra:buildx-bake:1",
                    "externalParameters": {"signer": "releases@example.org"},
                    "resolvedDependencies": [{"name": "source", "uri": "git+https://git.example.org/shop.git"}],
                },
                "runDetails": {
                    "builder": {"id": "urn:lyra:local-docker-engine", "version": {"lyra-tasks": "0.1.0"}},
                    "metadata": {"finishedOn": "2026-11-23T21:14:00+00:00"},
                },
            }
        },
        sboms={name: _sbom() for name in ("web", "worker")},
    )


def _vulnerabilities() -> list[dict[str, str]]:
    severities = ("low", "unknown", "critical", *("negligible" for _ in range(50)))
    return [
        {"id": f"CVE-2026-{number:04}", "severity": severity, "package": "libssl3", "version": "3.0.1", "fixed_in": ""}
        for number, severity in enumerate(severities)
    ]


def _image(name: str, first: int, sizes: list[int]) -> dict[str, Any]:
    layers = [
        {"digest": digest(first + number * 100 + size), "size": size * MEGABYTE, "unpacked_size": size * 3 * MEGABYTE}
        for number, size in enumerate(sizes)
    ]
    return {
        "name": name,
        "services": [name],
        "references": [f"shop/{name}:1.3.0"],
        "platform": "linux/amd64",
        "origin": None,
        "config_digest": DIGEST,
        "manifest_digest": DIGEST,
        "layers": layers,
        "bases": {"python:3.12-slim-bookworm": DIGEST},
    }


def _service() -> dict[str, Any]:
    return {
        "user": "10001:10001",
        "limits": {"cpus": 0.5, "memory": 128 * 1024**2, "pids": 64},
        "egress": True,
        "depends_on": ["cache"],
        "environment": [
            {"name": "GREETING", "required": False, "secret": False, "default": "hello", "description": "first line",
             "from": "configuration"},
            {"name": "ADMIN_TOKEN", "required": True, "secret": True, "default": None, "description": "opens /admin",
             "from": "configuration"},
            {"name": "PYTHON_VERSION", "required": False, "secret": False, "default": "3.12", "description": "",
             "from": "image"},
        ],
        "secrets": [
            {"name": "key", "path": "/run/secrets/key", "variable": "WEB_KEY_FILE", "description": "signs the cookie"}
        ],
        "volumes": [
            {"name": "data", "path": "/data", "size": 64 * 1024**2, "owner": "10001:10001", "description": "the file"}
        ],
        "ports": [{"port": 8000, "name": "http", "variable": "WEB_HTTP_PUBLISH"}],
        "configs": [
            {"name": "site", "path": "/etc/shop.toml", "file": "configs/web/site.toml", "description": "the theme"}
        ],
    }  # fmt: skip


def _sbom() -> dict[str, Any]:
    packages = [
        {"type": "library", "name": f"library-{number}", "version": f"1.{number}.0-2+deb12u{number}",
         "purl": f"pkg:{'deb/debian' if number % 3 else 'pypi'}/library-{number}@1.{number}.0",
         "licenses": [{"license": {"name": "BSD-3-Clause"}}]}
        for number in range(90)
    ]  # fmt: skip
    return {"components": [{"type": "operating-system", "name": "Debian GNU/Linux"}, *packages]}
