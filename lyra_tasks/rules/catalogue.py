"""The rules, in one table: what each asks, why, how to keep it, when it is looked at, and who else asks for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from lyra_tasks.errors import UsageError

Severity = Literal["error", "warning"]

CONTEXT = "context.leaves-out"
DOCKERFILE = "dockerfile.lint"
BASE_LOCKED = "image.base-locked"
HEALTHCHECK = "image.healthcheck"
LABELS = "image.labels"
IMAGE_PLATFORM = "image.platform"
SECRETS = "image.secrets"
SECRET_NAMES = "image.secret-names"  # noqa: S105
SETUID = "image.setuid"
IMAGE_SIZE = "image.size"
TOKENS = "image.tokens"
VOLUME_OWNER = "image.volume-owner"
CAPABILITIES = "container.capabilities"
EGRESS = "container.egress"
HOST_MOUNTS = "container.host-mounts"
LIMITS = "container.limits"
NON_ROOT = "container.non-root"
NO_NEW_PRIVILEGES = "container.no-new-privileges"
PRIVILEGED = "container.privileged"
READ_ONLY = "container.read-only-root"
DOCS = "docs.complete"
DESCRIBED = "docs.described"
CAPACITY = "proxima.capacity"
COMMITTED = "source.committed"
FRESH = "tests.fresh"
PASSED = "tests.passed"
TEST_PLATFORM = "test.platform"


@dataclass(frozen=True)
class Rule:
    """One rule; `checked` are the words that look at it, `refers` are the ids under which others ask for the same.

    An error ends the word with an exit code, unless a deviation gives a reason; a warning is told and recorded.
    `deviable` is False for what no reason can replace. `later` is an error of `promote` and `release` alone, of which
    `test` warns.
    """

    id: str
    asks: str
    why: str
    keep: str
    severity: Severity
    runbook: str
    checked: tuple[str, ...]
    refers: tuple[str, ...] = ()
    deviable: bool = True
    later: bool = False


REVISION = 2
"""Raised whenever a check begins to judge otherwise, so that what was tested before is tested again."""

RULES: tuple[Rule, ...] = (
    Rule(
        CONTEXT,
        asks="A build context takes in neither `.lyra/` nor the folder of the bundles.",
        why="What Lyra writes would change what is built: no image would ever be current.",
        keep="Leave both out in `.dockerignore`.",
        severity="error", runbook="R8", checked=("every word",), deviable=False,
    ),
    Rule(
        DOCKERFILE,
        asks="The Dockerfile keeps hadolint's rules; looked at only where hadolint is installed.",
        why="It knows what goes wrong later: packages without versions, `cd` in RUN, shells that swallow errors.",
        keep="Follow the message, or ignore the id in `.hadolint.yaml`. `pip install lyra-tasks[lint]` installs it.",
        severity="warning", runbook="R8", checked=("test",), refers=("hadolint DL*, SC*",),
    ),
    Rule(
        BASE_LOCKED,
        asks="Every FROM was built from a digest that `.lyra.lock.toml` pins.",
        why="A tag may be another image tomorrow: what was tested could not be built again.",
        keep="Build again; `bases.update` moves the pins.",
        severity="error", runbook="R8", checked=("test",), refers=("hadolint DL3006, DL3007, DL3026", "CIS-DI-0002"),
    ),
    Rule(
        HEALTHCHECK,
        asks="The service has a health check that travels: the image's HEALTHCHECK, or `healthcheck.exec`.",
        why="On Proxima nobody polls from outside as a test does; without one, a hung service looks well.",
        keep="Write a HEALTHCHECK into the Dockerfile, or `healthcheck = { exec = … }`.",
        severity="warning", runbook="R7", checked=("test",), refers=("CIS Docker 4.6, 5.27", "Dockle CIS-DI-0006"),
    ),
    Rule(
        LABELS,
        asks="The image carries the OCI labels title, description, source and revision.",
        why="Whoever finds the image on Proxima must be able to tell what it is and where it comes from.",
        keep="Set `project.description`, and a git remote or `project.source`; Lyra writes the labels.",
        severity="warning", runbook="R11", checked=("test",), refers=("OCI image-spec annotations",),
    ),
    Rule(
        IMAGE_PLATFORM,
        asks="The image is for a platform that Proxima runs, and so are the programs in it.",
        why="Another architecture does not start there; the label of an image says what was asked for, not what is in.",
        keep="Name the platform in `proxima.platforms`, or take a base and programs that are for it, and build again.",
        severity="error", runbook="R3", checked=("build", "test"),
    ),
    Rule(
        SECRETS,
        asks="No declared secret is in a layer, the configuration, the history or a label of the image.",
        why="An image is read by everybody who can pull or copy it; a later layer that deletes a file hides nothing.",
        keep="Mount it while building (`images.NAME.secrets`), give it to the container as a file, and change it now.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 4.10", "Dockle CIS-DI-0010"),
    ),
    Rule(
        SECRET_NAMES,
        asks="No ENV of the image and no ARG in its history gives a value to what is named like a secret.",
        why="Both stay in the image for everybody to read.",
        keep="Use `images.NAME.secrets` while building, and a secret variable or file at run time.",
        severity="error", runbook="R4", checked=("test",),
        refers=("Dockle CIS-DI-0010", "BuildKit SecretsUsedInArgOrEnv", "CIS Docker 4.10"),
    ),
    Rule(
        SETUID,
        asks="The project adds no setuid or setgid program to what its base has.",
        why="Such a program runs with another's rights, whoever starts it.",
        keep="Take the bit away in the layer that brings the file: `RUN chmod a-s FILE`.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 4.8", "Dockle CIS-DI-0008"),
    ),
    Rule(
        IMAGE_SIZE,
        asks="The image is not larger than `proxima.max_image_size`.",
        why="It has to be carried, and has to fit.",
        keep="Leave out what is not run, or raise the budget.",
        severity="error", runbook="R3", checked=("build", "test"),
    ),
    Rule(
        TOKENS,
        asks="Nothing in the project's own layers, or in the configuration, has the shape of a known token or key.",
        why="A secret that nobody declared is a secret too.",
        keep="Take it out, or say in a deviation what it is. `pip install lyra-tasks[secrets]` looks for them.",
        severity="warning", runbook="R4", checked=("test",), refers=("Dockle CIS-DI-0010", "detect-secrets"),
    ),
    Rule(
        VOLUME_OWNER,
        asks="The image holds the folder of each volume, with the declared owner.",
        why="A new volume on Proxima takes its owner from there; without it, the service cannot write.",
        keep="`RUN install -d -o UID -g GID PATH` in the Dockerfile, and the same `owner` in the volume's table.",
        severity="error", runbook="R6", checked=("test",),
    ),
    Rule(
        CAPABILITIES,
        asks="The container has no capabilities.",
        why="Each is a part of what root may do.",
        keep="Leave out `cap_add`: listen above port 1024, set owners while building.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 5.4", "OWASP Docker rule 3"),
    ),
    Rule(
        EGRESS,
        asks="The container has no way out of its network.",
        why="What cannot call out can neither leak nor fetch.",
        keep="Leave out `egress`.",
        severity="error", runbook="R4", checked=("test",),
    ),
    Rule(
        HOST_MOUNTS,
        asks="Nothing of the host is mounted into the container, its engine's socket least of all.",
        why="Whoever can write there is on the host.",
        keep="Use volumes, configs and secrets.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 5.6, 5.20, 5.32", "OWASP Docker rule 1"),
        deviable=False,
    ),
    Rule(
        LIMITS,
        asks="CPU, memory and processes of the container are limited, and the limits are in force.",
        why="One container must not take the host from the others; swap would make memory a wish.",
        keep="Set `limits`; use an engine whose kernel has the memory, cpu and pids controllers.",
        severity="error", runbook="R10", checked=("test",),
        refers=("CIS Docker 5.11, 5.12, 5.29", "OWASP Docker rule 7"),
        deviable=False,
    ),
    Rule(
        NON_ROOT,
        asks="The container does not run as root: USER of the image, or `user` of the service.",
        why="Root inside is one kernel fault away from root outside.",
        keep="Write `USER 10001:10001` into the Dockerfile.",
        severity="error", runbook="R4", checked=("test",),
        refers=("CIS Docker 4.1", "Dockle CIS-DI-0001", "hadolint DL3002", "OWASP Docker rule 2"),
    ),
    Rule(
        NO_NEW_PRIVILEGES,
        asks="No program in the container can gain rights that it was not started with.",
        why="It takes the effect from every setuid file.",
        keep="Nothing to do: Lyra sets it, and reads it back from the engine.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 5.26", "OWASP Docker rule 4"),
        deviable=False,
    ),
    Rule(
        PRIVILEGED,
        asks="The container has no devices and no namespace of the host, and keeps its seccomp and AppArmor profiles.",
        why="Each of them is the host itself.",
        keep="Nothing to do: there is no key for it, and what the engine made is read back.",
        severity="error", runbook="R4", checked=("test",),
        refers=("CIS Docker 5.2, 5.5, 5.10, 5.16, 5.17, 5.18, 5.21, 5.22, 5.31", "OWASP Docker rule 3, 6"),
        deviable=False,
    ),
    Rule(
        READ_ONLY,
        asks="The root file system of the container is read-only.",
        why="What cannot be written cannot be changed by an intruder, and fills no disk.",
        keep="Write into volumes, `tmpfs` or /tmp.",
        severity="error", runbook="R4", checked=("test",), refers=("CIS Docker 5.13", "OWASP Docker rule 8"),
    ),
    Rule(
        DOCS,
        asks="Every variable, volume and port that the image declares is in the service's tables.",
        why="The operator on Proxima has the bundle, and nobody to ask.",
        keep="Write its table; a service that only neighbours reach may leave its ports out.",
        severity="error", runbook="R8", checked=("test",),
    ),
    Rule(
        DESCRIBED,
        asks="Every variable, secret, volume and config of a promoted service has a `description`.",
        why="A name alone does not tell an operator what to write there.",
        keep="Write a `description` in its table: one line, for somebody who does not know the program.",
        severity="warning", runbook="R8", checked=("test",),
    ),
    Rule(
        CAPACITY,
        asks="The limits of all promoted services together fit into `proxima.cpus` and `proxima.memory`.",
        why="What does not fit there must not be tested as if it did.",
        keep="Lower the limits, or correct `[proxima]`.",
        severity="error", runbook="R3, R10", checked=("build", "test"),
    ),
    Rule(
        COMMITTED,
        asks="Everything that a bundle is made from is committed.",
        why="A commit can be read again; a working tree is gone tomorrow. Its bundle is a snapshot, never a release.",
        keep="Commit, then run `build test promote` again.",
        severity="warning", runbook="R11", checked=("promote",),
    ),
    Rule(
        FRESH,
        asks="The images are what the files say, and what was tested is what is promoted; if not, exit code 3.",
        why="Tested bytes are shipped bytes.",
        keep="`explain` says what changed, and which word to run.",
        severity="error", runbook="R7", checked=("promote", "release"), deviable=False,
    ),
    Rule(
        PASSED,
        asks="The last test of the set passed; if not, exit code 3.",
        why="Nothing else says that it works.",
        keep="Mend it, then run `build test`.",
        severity="error", runbook="R7", checked=("promote", "release"), deviable=False,
    ),
    Rule(
        TEST_PLATFORM,
        asks="The image was run in a test for each of its platforms; `test` warns, `promote` and `release` refuse.",
        why="What was compiled for another machine may fail there in ways that no check here can see.",
        keep="Test on an engine that runs it: one of that platform, or one with emulation (binfmt_misc). Or write a "
        "deviation whose scope is `images.NAME@OS/ARCHITECTURE`, and run `test promote`.",
        severity="error", runbook="R3, R7", checked=("test", "promote", "release"), later=True,
    ),
)  # fmt: skip

BY_ID = {rule.id: rule for rule in RULES}


def rule_set() -> str:
    """The version of the rules: another one as soon as a rule comes, goes, asks something else or weighs otherwise."""
    table = "\n".join(f"{rule.id} {rule.severity} {rule.asks}" for rule in RULES)
    return f"{REVISION}-{hashlib.sha256(table.encode()).hexdigest()[:12]}"


def deviable() -> dict[str, bool]:
    """By id, whether a deviation may go around the rule."""
    return {rule.id: rule.deviable for rule in RULES}


def rule(name: str) -> Rule:
    """The rule of this id; UsageError with the nearest one for an unknown id."""
    from difflib import get_close_matches

    found = BY_ID.get(name)
    if found is None:
        near = get_close_matches(name, BY_ID, 1)
        hint = f"did you mean {near[0]}?" if near else "`rules.list` shows all of them"
        raise UsageError(f"there is no rule {name!r}", hint=hint)
    return found
