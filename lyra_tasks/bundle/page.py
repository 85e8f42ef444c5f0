"""`PROMOTION.md`: what an operator on Proxima needs to know, in the order in which it is needed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from lyra_tasks import console
from lyra_tasks.bundle import layout
from lyra_tasks.bundle.difference import Change, Difference, short
from lyra_tasks.bundle.environment import variables
from lyra_tasks.bundle.manifest import Manifest
from lyra_tasks.bundle.signature import NAMESPACE
from lyra_tasks.bundle.subject import PromotedService
from lyra_tasks.config.deployment import config_path
from lyra_tasks.config.models import Deviation
from lyra_tasks.config.units import format_size
from lyra_tasks.records.evidence import Evidence, RuleResult
from lyra_tasks.rules.catalogue import TEST_PLATFORM

_MANY = 30


def promotion_page(
    manifest: Manifest,
    services: Sequence[PromotedService],
    evidence: Evidence,
    rules: Sequence[RuleResult],
    deviations: Sequence[Deviation],
    signer: str,
    changes: Difference | None,
) -> str:
    """The page as Markdown; `signer` signs the bundle, or is empty; `changes` are those since the version before."""
    parts = [
        _head(manifest),
        _changes(changes),
        _load(signer, manifest),
        _images(manifest),
        *(_service(each) for each in services),
        _tests(evidence, rules),
        _rules(rules),
        _deviations(deviations),
    ]
    return "\n".join(parts)


def _head(manifest: Manifest) -> str:
    dirty = ", from a tree with uncommitted changes: not for production" if manifest.source.dirty else ""
    return (
        f"# {manifest.project} {manifest.version}\n\n{manifest.description}\n\n"
        f"Made from commit `{manifest.source.commit}`{_of(manifest.source.url)} of {manifest.created}{dirty}. "
        f"Needs Docker Engine {manifest.proxima.min_engine} or newer on "
        f"{', '.join(manifest.platforms)}.\n"
    )


def _of(url: str | None) -> str:
    return f" of {url}" if url else ""


def _changes(found: Difference | None) -> str:
    if found is None:
        return (
            f"## What changed\n\nNo earlier bundle was there to compare with. The commits are in `{layout.CHANGES}`.\n"
        )
    head = f"## What changed since {found.before}\n\n"
    if not found.changes:
        return f"{head}Nothing that an operator sees. The commits are in `{layout.CHANGES}`.\n"
    rows = [(each.section, short(each.name), short(each.before), short(each.after)) for each in _few(found.changes)]
    left = len(found.changes) - len(rows)
    more = f"\n{left} more changes, of packages and layers, are left out here.\n" if left else ""
    return (
        f"{head}{_table(('what', 'which', 'before', 'after'), rows)}{more}\n"
        f"The commits are in `{layout.CHANGES}`. To go back, load the older bundle with `--allow-older`.\n"
    )


def _few(changes: Sequence[Change]) -> Iterable[Change]:
    """All changes but, where there are many, those of packages and layers: they are in the machine's documents."""
    left = _MANY
    for each in changes:
        if each.section in {"packages", "layers"}:
            left -= 1
            if left < 0:
                continue
        yield each


def _load(signer: str, manifest: Manifest) -> str:
    own = " for the engine's own platform" if len(manifest.keyed) > len({each.name for each in manifest.images}) else ""
    return f"""## Check, load, start

    sha256sum --check --quiet {layout.CHECKSUMS}
    sh {layout.RECEIVE}
    cd deploy && cp .env.example .env    # fill in what is open
    docker compose up --detach --wait

`{layout.RECEIVE}` checks every file, the engine and the free space, loads the images{own}, compares what was
loaded with the digests below, and says what is to be configured; it starts nothing, and may be run again. It refuses to
go back to an older version without `--allow-older`. It ends with 0 when everything is loaded. 3 (`engine`), 30
(`no-space`) and 31 (`incomplete`: a pack leaves out what is not here) are about this node; 6 (`corrupt`) and 60
(`refused`) are about what was brought; 2 is about the command line. `--help` says more.

{_trust(signer)}"""


def _trust(signer: str) -> str:
    if not signer:
        return "This bundle is not signed: the checksums find damage, and no intent.\n"
    name = shlex.quote(signer)
    return f"""The bundle is signed by `{signer}`. Whom to trust must be known from elsewhere: a file ALLOWED_SIGNERS in
the format of `ssh-keygen`, never one that came with the bundle. The script itself can be trusted only after

```
ssh-keygen -Y verify -f ALLOWED_SIGNERS -I {name} -n {NAMESPACE} -s {layout.SIGNATURE} < {layout.CHECKSUMS}
sha256sum --check --quiet {layout.CHECKSUMS}
```

by hand; from then on `sh {layout.RECEIVE} --allowed-signers ALLOWED_SIGNERS --signer {name}` checks it too.
"""


def _images(manifest: Manifest) -> str:
    rows = [
        (image.references[0], image.platform, console.size(image.size), f"`{image.config_digest}`",
         f"`{image.manifest_digest}`")
        for image in manifest.images
    ]  # fmt: skip
    return (
        "## Images\n\n"
        + _table(("image", "platform", "archive", "config digest", "manifest digest"), rows)
        + "\n`docker image inspect --format '{{.Id}}' IMAGE` gives the config digest on a classic image store, and the "
        "manifest digest on a containerd image store.\n"
    )


def _service(each: PromotedService) -> str:
    service, shape = each.service, each.shape
    limits = (
        f"Runs as user `{shape.user or 'root'}`, with {service.limits.cpus:g} CPUs, {format_size(shape.memory)} of "
        f"memory (tmpfs included), {service.limits.pids} processes"
        f"{', a read-only root file system' if service.read_only else ''}"
        f"{', a way out of its network' if service.egress else ''}. {_health(each)}"
    )
    parts = [f"## Service {each.name}\n\n{limits}\n"]
    tables = (
        (
            ("variable", "required", "default", "description"),
            [
                (f"`{one['name']}`", _yes(one["required"]), "(secret)" if one["secret"] else _code(one["default"]),
                 one["description"] or f"set by the {one['from']}")
                for one in variables(each)
            ],
        ),
        (
            ("secret file", "given in", "description"),
            [
                (f"`{secret.path}`", f"`{each.secret_variable(key)}`", secret.description)
                for key, secret in service.secrets.items()
            ],
        ),
        (
            ("volume", "size", "owner", "back up", "description"),
            [
                (f"`{volume.path}`", format_size(volume.size), volume.owner,
                 f"`docker compose cp {shlex.quote(f'{each.name}:{volume.path}')} - > {each.name}-{key}.tar`",
                 volume.description)
                for key, volume in service.volumes.items()
            ],
        ),
        (
            ("port", "name", "published by"),
            [(str(port), key, f"`{each.publish_variable(key)}`") for key, port in service.ports.items()],
        ),
        (
            ("config", "file here", "description"),
            [
                (f"`{file.path}`", f"`deploy/{config_path(each.name, key, file.source)}`", file.description)
                for key, file in service.configs.items()
            ],
        ),
    )  # fmt: skip
    parts += [_table(header, rows) for header, rows in tables if rows]
    return "\n".join(parts)


def _health(each: PromotedService) -> str:
    """How one sees that the service is well."""
    check = each.service.healthcheck
    if each.service.oneshot:
        return "It runs once, and has to end with 0."
    if check is not None and check.exec is not None:
        words = check.exec if isinstance(check.exec, str) else " ".join(check.exec)
        return f"Its health is asked by `{words}` every {check.interval:g} s."
    if check is not None:
        asked = f"`{check.http}`" if check.http else f"a connection to port {check.tcp}"
        return f"In the tests it was ready when {asked} was answered; here nobody asks, unless you do."
    return "Its image has a health check." if each.shape.has_healthcheck else "It has no health check."


def _tests(evidence: Evidence, rules: Sequence[RuleResult]) -> str:
    rows = [(check.outcome, check.title, check.service, f"{check.seconds:.2f} s") for check in evidence.checks]
    peaks = [
        (name, f"{console.size(use.memory_peak)} of {console.size(use.memory_limit)}",
         f"{use.cpu_peak:.2f} of {use.cpu_limit:g}", f"{use.pids_peak} of {use.pids_limit}")
        for name, use in sorted(evidence.use.items())
    ]  # fmt: skip
    engine = evidence.engine
    return (
        f"## Tests\n\nRun `{evidence.run}` on Docker Engine {engine['version']} ({engine['store']} image store), "
        f"{evidence.started_at}. The images in this bundle are the bytes that were tested{_but(rules)}.\n\n"
        + _table(("result", "check", "service", "time"), rows)
        + "\n"
        + _table(("service", "memory at most", "CPUs at most", "processes at most"), peaks)
    )


def _but(rules: Sequence[RuleResult]) -> str:
    """The images that no test ran."""
    found = [
        each.scope.removeprefix("images.") for each in rules if each.rule == TEST_PLATFORM and each.outcome != "kept"
    ]
    return f", but for {' and '.join(f'`{each}`' for each in found)}, of which nothing ran" if found else ""


def _rules(rules: Sequence[RuleResult]) -> str:
    """What was looked at and kept is a number; everything else is a line."""
    kept = len({(each.rule, each.scope) for each in rules if each.outcome == "kept"})
    rows = [(each.outcome, f"`{each.rule}`", each.scope, each.message) for each in rules if each.outcome != "kept"]
    told = _table(("outcome", "rule", "scope", "what"), rows) if rows else "None was broken, warned of or left out.\n"
    return f"## Rules\n\n{kept} times a rule was looked at and kept; every result is in `{layout.RULES}`.\n\n{told}"


def _deviations(deviations: Sequence[Deviation]) -> str:
    if not deviations:
        return "## Deviations\n\nNone.\n"
    rows = [(each.rule, each.scope, each.reason, each.owner, str(each.expires)) for each in deviations]
    return "## Deviations\n\n" + _table(("rule", "scope", "reason", "owner", "expires"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _code(value: str | None) -> str:
    return f"`{value}`" if value else ""
