"""`PROMOTION.md`: what an operator on Proxima needs to know, in the order in which it is needed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from lyra_tasks import console
from lyra_tasks.bundle.content.environment import list_variables
from lyra_tasks.bundle.content.services import PromotedService
from lyra_tasks.bundle.diff import BundleDiff, Change, shorten_digests
from lyra_tasks.bundle.format.layout import CHANGES_FILE, CHECKSUMS_FILE, RECEIVE_SCRIPT, RULES_FILE, SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.bundle.format.signature import SIGNATURE_NAMESPACE
from lyra_tasks.config.deployment import config_path
from lyra_tasks.config.models import Deviation
from lyra_tasks.records.evidence import Evidence, RuleResult
from lyra_tasks.rules.catalogue import TEST_PLATFORM
from lyra_tasks.units import format_size

_MAX_PACKAGE_CHANGES = 30


def render_promotion_page(
    manifest: Manifest,
    services: Sequence[PromotedService],
    evidence: Evidence,
    rules: Sequence[RuleResult],
    deviations: Sequence[Deviation],
    signer: str,
    diff: BundleDiff | None,
) -> str:
    """The page as Markdown; `signer` signs the bundle, or is empty; `changes` are those since the version before."""
    parts = [
        _head(manifest),
        _changes(diff),
        _load_steps(signer, manifest),
        _images(manifest),
        *(_service(service) for service in services),
        _tests(evidence, rules),
        _rules(rules),
        _deviations(deviations),
    ]
    return "\n".join(parts)


def _head(manifest: Manifest) -> str:
    dirty = ", from a tree with uncommitted changes: not for production" if manifest.source.dirty else ""
    return (
        f"# {manifest.project} {manifest.version}\n\n{manifest.description}\n\n"
        f"Made from commit `{manifest.source.commit}`{_of_url(manifest.source.url)} of {manifest.created}{dirty}. "
        f"Needs Docker Engine {manifest.proxima.min_engine} or newer on "
        f"{', '.join(manifest.platforms)}.\n"
    )


def _of_url(url: str | None) -> str:
    return f" of {url}" if url else ""


def _changes(diff: BundleDiff | None) -> str:
    if diff is None:
        return f"## What changed\n\nNo earlier bundle was there to compare with. The commits are in `{CHANGES_FILE}`.\n"
    head = f"## What changed since {diff.before}\n\n"
    if not diff.changes:
        return f"{head}Nothing that an operator sees. The commits are in `{CHANGES_FILE}`.\n"
    rows = [
        (change.section, shorten_digests(change.name), shorten_digests(change.before), shorten_digests(change.after))
        for change in _limit_package_changes(diff.changes)
    ]
    omitted_count = len(diff.changes) - len(rows)
    more = f"\n{omitted_count} more changes, of packages and layers, are left out here.\n" if omitted_count else ""
    return (
        f"{head}{_table(('what', 'which', 'before', 'after'), rows)}{more}\n"
        f"The commits are in `{CHANGES_FILE}`. To go back, load the older bundle with `--allow-older`.\n"
    )


def _limit_package_changes(changes: Sequence[Change]) -> Iterable[Change]:
    """All changes but, where there are many, those of packages and layers: they are in the machine's documents."""
    remaining = _MAX_PACKAGE_CHANGES
    for change in changes:
        if change.section in {"packages", "layers"}:
            remaining -= 1
            if remaining < 0:
                continue
        yield change


def _load_steps(signer: str, manifest: Manifest) -> str:
    platform_note = (
        " for the engine's own platform"
        if len(manifest.images_by_build) > len({image.name for image in manifest.images})
        else ""
    )
    return f"""## Check, load, start

    sha256sum --check --quiet {CHECKSUMS_FILE}
    sh {RECEIVE_SCRIPT}
    cd deploy && cp .env.example .env    # fill in what is open
    docker compose up --detach --wait

`{RECEIVE_SCRIPT}` checks every file, the engine and the free space, loads the images{platform_note}, compares what was
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
ssh-keygen -Y verify -f ALLOWED_SIGNERS -I {name} -n {SIGNATURE_NAMESPACE} -s {SIGNATURE_FILE} < {CHECKSUMS_FILE}
sha256sum --check --quiet {CHECKSUMS_FILE}
```

by hand; from then on `sh {RECEIVE_SCRIPT} --allowed-signers ALLOWED_SIGNERS --signer {name}` checks it too.
"""


def _images(manifest: Manifest) -> str:
    rows = [
        (image.references[0], image.platform, console.format_bytes(image.size), f"`{image.config_digest}`",
         f"`{image.manifest_digest}`")
        for image in manifest.images
    ]  # fmt: skip
    return (
        "## Images\n\n"
        + _table(("image", "platform", "archive", "config digest", "manifest digest"), rows)
        + "\n`docker image inspect --format '{{.Id}}' IMAGE` gives the config digest on a classic image store, and the "
        "manifest digest on a containerd image store.\n"
    )


def _service(service: PromotedService) -> str:
    config, effective = service.config, service.effective
    limits = (
        f"Runs as user `{effective.user or 'root'}`, with {config.limits.cpus:g} CPUs, {format_size(effective.memory)} of "
        f"memory (tmpfs included), {config.limits.pids} processes"
        f"{', a read-only root file system' if config.read_only else ''}"
        f"{', a way out of its network' if config.egress else ''}. {_health(service)}"
    )
    parts = [f"## Service {service.name}\n\n{limits}\n"]
    tables = (
        (
            ("variable", "required", "default", "description"),
            [
                (f"`{variable['name']}`", _yes_no(variable["required"]), "(secret)" if variable["secret"] else _code(variable["default"]),
                 variable["description"] or f"set by the {variable['from']}")
                for variable in list_variables(service)
            ],
        ),
        (
            ("secret file", "given in", "description"),
            [
                (f"`{secret.path}`", f"`{service.secret_variable(key)}`", secret.description)
                for key, secret in config.secrets.items()
            ],
        ),
        (
            ("volume", "size", "owner", "back up", "description"),
            [
                (f"`{volume.path}`", format_size(volume.size), volume.owner,
                 f"`docker compose cp {shlex.quote(f'{service.name}:{volume.path}')} - > {service.name}-{key}.tar`",
                 volume.description)
                for key, volume in config.volumes.items()
            ],
        ),
        (
            ("port", "name", "published by"),
            [(str(port), key, f"`{service.publish_variable(key)}`") for key, port in config.ports.items()],
        ),
        (
            ("config", "file here", "description"),
            [
                (f"`{file.path}`", f"`deploy/{config_path(service.name, key, file.source)}`", file.description)
                for key, file in config.configs.items()
            ],
        ),
    )  # fmt: skip
    parts += [_table(header, rows) for header, rows in tables if rows]
    return "\n".join(parts)


def _health(service: PromotedService) -> str:
    """How one sees that the service is well."""
    check = service.config.healthcheck
    if service.config.oneshot:
        return "It runs once, and has to end with 0."
    if check is not None and check.exec is not None:
        command = check.exec if isinstance(check.exec, str) else " ".join(check.exec)
        return f"Its health is asked by `{command}` every {check.interval:g} s."
    if check is not None:
        target = f"`{check.http}`" if check.http else f"a connection to port {check.tcp}"
        return f"In the tests it was ready when {target} was answered; here nobody asks, unless you do."
    return "Its image has a health check." if service.effective.has_healthcheck else "It has no health check."


def _tests(evidence: Evidence, rules: Sequence[RuleResult]) -> str:
    rows = [(check.outcome, check.title, check.service, f"{check.seconds:.2f} s") for check in evidence.checks]
    peaks = [
        (name, f"{console.format_bytes(usage.memory_peak)} of {console.format_bytes(usage.memory_limit)}",
         f"{usage.cpu_peak:.2f} of {usage.cpu_limit:g}", f"{usage.pids_peak} of {usage.pids_limit}")
        for name, usage in sorted(evidence.usage.items())
    ]  # fmt: skip
    engine = evidence.engine
    return (
        f"## Tests\n\nRun `{evidence.run}` on Docker Engine {engine['version']} ({engine['store']} image store), "
        f"{evidence.started_at}. The images in this bundle are the bytes that were tested{_untested_note(rules)}.\n\n"
        + _table(("result", "check", "service", "time"), rows)
        + "\n"
        + _table(("service", "memory at most", "CPUs at most", "processes at most"), peaks)
    )


def _untested_note(rules: Sequence[RuleResult]) -> str:
    """The images that no test ran."""
    untested_images = [
        result.scope.removeprefix("images.")
        for result in rules
        if result.rule == TEST_PLATFORM and result.outcome != "kept"
    ]
    return (
        f", but for {' and '.join(f'`{each}`' for each in untested_images)}, of which nothing ran"
        if untested_images
        else ""
    )


def _rules(rules: Sequence[RuleResult]) -> str:
    """What was looked at and kept is a number; everything else is a line."""
    kept_count = len({(result.rule, result.scope) for result in rules if result.outcome == "kept"})
    rows = [
        (result.outcome, f"`{result.rule}`", result.scope, result.message)
        for result in rules
        if result.outcome != "kept"
    ]
    table = _table(("outcome", "rule", "scope", "what"), rows) if rows else "None was broken, warned of or left out.\n"
    return (
        f"## Rules\n\n{kept_count} times a rule was looked at and kept; every result is in `{RULES_FILE}`.\n\n{table}"
    )


def _deviations(deviations: Sequence[Deviation]) -> str:
    if not deviations:
        return "## Deviations\n\nNone.\n"
    rows = [
        (deviation.rule, deviation.scope, deviation.reason, deviation.owner, str(deviation.expires))
        for deviation in deviations
    ]
    return "## Deviations\n\n" + _table(("rule", "scope", "reason", "owner", "expires"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _code(value: str | None) -> str:
    return f"`{value}`" if value else ""
