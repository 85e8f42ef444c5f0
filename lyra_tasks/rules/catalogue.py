"""The rules, in one table: what each asks, why, how to keep it, when it is looked at, and who else asks for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from lyra_tasks.errors import UsageError

Severity = Literal["error", "warning"]

CONTEXT_LEAVES_OUT = "context.leaves-out"
DOCKERFILE_LINT = "dockerfile.lint"
BASE_LOCKED = "image.base-locked"
HEALTHCHECK = "image.healthcheck"
IMAGE_LABELS = "image.labels"
IMAGE_PLATFORM = "image.platform"
IMAGE_SECRETS = "image.secrets"
SECRET_NAMES = "image.secret-names"  # noqa: S105
SETUID = "image.setuid"
IMAGE_SIZE = "image.size"
IMAGE_TOKENS = "image.tokens"
VOLUME_OWNER = "image.volume-owner"
CAPABILITIES = "container.capabilities"
EGRESS = "container.egress"
HOST_MOUNTS = "container.host-mounts"
CONTAINER_LIMITS = "container.limits"
NON_ROOT = "container.non-root"
NO_NEW_PRIVILEGES = "container.no-new-privileges"
PRIVILEGED = "container.privileged"
READ_ONLY = "container.read-only-root"
DOCS_COMPLETE = "docs.complete"
DOCS_DESCRIBED = "docs.described"
PROXIMA_CAPACITY = "proxima.capacity"
SOURCE_COMMITTED = "source.committed"
TESTS_FRESH = "tests.fresh"
TESTS_PASSED = "tests.passed"
TEST_PLATFORM = "test.platform"


@dataclass(frozen=True)
class Rule:
    """One rule; `checked` are the words that look at it, `refers` are the ids under which others ask for the same.

    An error ends the word with an exit code, unless a deviation gives a reason; a warning is told and recorded.
    `deviable` is False for what no reason can replace. `later` is an error of `promote` and `release` alone, of which
    `test` warns.
    """

    id: str
    requirement: str
    rationale: str
    fix: str
    severity: Severity
    runbook: str
    checked_by: tuple[str, ...]
    references: tuple[str, ...] = ()
    allows_deviation: bool = True
    enforced_on_promotion: bool = False


RULES_REVISION = 2
"""Raised whenever a check begins to judge otherwise, so that what was tested before is tested again."""

RULES: tuple[Rule, ...] = (
    Rule(
        CONTEXT_LEAVES_OUT,
        requirement="A build context takes in neither `.lyra/` nor the folder of the bundles.",
        rationale="What Lyra writes would change what is built: no image would ever be current.",
        fix="Leave both out in `.dockerignore`.",
        severity="error", runbook="R8", checked_by=("every word",), allows_deviation=False,
    ),
    Rule(
        DOCKERFILE_LINT,
        requirement="The Dockerfile keeps hadolint's rules; looked at only where hadolint is installed.",
        rationale="It knows what goes wrong later: packages without versions, `cd` in RUN, shells that swallow errors.",
        fix="Follow the message, or ignore the id in `.hadolint.yaml`. `pip install lyra-tasks[lint]` installs it.",
        severity="warning", runbook="R8", checked_by=("test",), references=("hadolint DL*, SC*",),
    ),
    Rule(
        BASE_LOCKED,
        requirement="Every FROM was built from a digest that `.lyra.lock.toml` pins.",
        rationale="A tag may be another image tomorrow: what was tested could not be built again.",
        fix="Build again; `bases.update` moves the pins.",
        severity="error", runbook="R8", checked_by=("test",), references=("hadolint DL3006, DL3007, DL3026", "CIS-DI-0002"),
    ),
    Rule(
        HEALTHCHECK,
        requirement="The service has a health check that travels: the image's HEALTHCHECK, or `healthcheck.exec`.",
        rationale="On Proxima nobody polls from outside as a test does; without one, a hung service looks well.",
        fix="Write a HEALTHCHECK into the Dockerfile, or `healthcheck = { exec = … }`.",
        severity="warning", runbook="R7", checked_by=("test",), references=("CIS Docker 4.6, 5.27", "Dockle CIS-DI-0006"),
    ),
    Rule(
        IMAGE_LABELS,
        requirement="The image carries the OCI labels title, description, source and revision.",
        rationale="Whoever finds the image on Proxima must be able to tell what it is and where it comes from.",
        fix="Set `project.description`, and a git remote or `project.source`; Lyra writes the labels.",
        severity="warning", runbook="R11", checked_by=("test",), references=("OCI image-spec annotations",),
    ),
    Rule(
        IMAGE_PLATFORM,
        requirement="The image is for a platform that Proxima runs, and so are the programs in it.",
        rationale="Another architecture does not start there; the label of an image says what was asked for, not what is in.",
        fix="Name the platform in `proxima.platforms`, or take a base and programs that are for it, and build again.",
        severity="error", runbook="R3", checked_by=("build", "test"),
    ),
    Rule(
        IMAGE_SECRETS,
        requirement="No declared secret is in a layer, the configuration, the history or a label of the image.",
        rationale="An image is read by everybody who can pull or copy it; a later layer that deletes a file hides nothing.",
        fix="Mount it while building (`images.NAME.secrets`), give it to the container as a file, and change it now.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 4.10", "Dockle CIS-DI-0010"),
    ),
    Rule(
        SECRET_NAMES,
        requirement="No ENV of the image and no ARG in its history gives a value to what is named like a secret.",
        rationale="Both stay in the image for everybody to read.",
        fix="Use `images.NAME.secrets` while building, and a secret variable or file at run time.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("Dockle CIS-DI-0010", "BuildKit SecretsUsedInArgOrEnv", "CIS Docker 4.10"),
    ),
    Rule(
        SETUID,
        requirement="The project adds no setuid or setgid program to what its base has.",
        rationale="Such a program runs with another's rights, whoever starts it.",
        fix="Take the bit away in the layer that brings the file: `RUN chmod a-s FILE`.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 4.8", "Dockle CIS-DI-0008"),
    ),
    Rule(
        IMAGE_SIZE,
        requirement="The image is not larger than `proxima.max_image_size`.",
        rationale="It has to be carried, and has to fit.",
        fix="Leave out what is not run, or raise the budget.",
        severity="error", runbook="R3", checked_by=("build", "test"),
    ),
    Rule(
        IMAGE_TOKENS,
        requirement="Nothing in the project's own layers, or in the configuration, has the shape of a known token or key.",
        rationale="A secret that nobody declared is a secret too.",
        fix="Take it out, or say in a deviation what it is. `pip install lyra-tasks[secrets]` looks for them.",
        severity="warning", runbook="R4", checked_by=("test",), references=("Dockle CIS-DI-0010", "detect-secrets"),
    ),
    Rule(
        VOLUME_OWNER,
        requirement="The image holds the folder of each volume, with the declared owner.",
        rationale="A new volume on Proxima takes its owner from there; without it, the service cannot write.",
        fix="`RUN install -d -o UID -g GID PATH` in the Dockerfile, and the same `owner` in the volume's table.",
        severity="error", runbook="R6", checked_by=("test",),
    ),
    Rule(
        CAPABILITIES,
        requirement="The container has no capabilities.",
        rationale="Each is a part of what root may do.",
        fix="Leave out `cap_add`: listen above port 1024, set owners while building.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.4", "OWASP Docker rule 3"),
    ),
    Rule(
        EGRESS,
        requirement="The container has no way out of its network.",
        rationale="What cannot call out can neither leak nor fetch.",
        fix="Leave out `egress`.",
        severity="error", runbook="R4", checked_by=("test",),
    ),
    Rule(
        HOST_MOUNTS,
        requirement="Nothing of the host is mounted into the container, its engine's socket least of all.",
        rationale="Whoever can write there is on the host.",
        fix="Use volumes, configs and secrets.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.6, 5.20, 5.32", "OWASP Docker rule 1"),
        allows_deviation=False,
    ),
    Rule(
        CONTAINER_LIMITS,
        requirement="CPU, memory and processes of the container are limited, and the limits are in force.",
        rationale="One container must not take the host from the others; swap would make memory a wish.",
        fix="Set `limits`; use an engine whose kernel has the memory, cpu and pids controllers.",
        severity="error", runbook="R10", checked_by=("test",),
        references=("CIS Docker 5.11, 5.12, 5.29", "OWASP Docker rule 7"),
        allows_deviation=False,
    ),
    Rule(
        NON_ROOT,
        requirement="The container does not run as root: USER of the image, or `user` of the service.",
        rationale="Root inside is one kernel fault away from root outside.",
        fix="Write `USER 10001:10001` into the Dockerfile.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("CIS Docker 4.1", "Dockle CIS-DI-0001", "hadolint DL3002", "OWASP Docker rule 2"),
    ),
    Rule(
        NO_NEW_PRIVILEGES,
        requirement="No program in the container can gain rights that it was not started with.",
        rationale="It takes the effect from every setuid file.",
        fix="Nothing to do: Lyra sets it, and reads it back from the engine.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.26", "OWASP Docker rule 4"),
        allows_deviation=False,
    ),
    Rule(
        PRIVILEGED,
        requirement="The container has no devices and no namespace of the host, and keeps its seccomp and AppArmor profiles.",
        rationale="Each of them is the host itself.",
        fix="Nothing to do: there is no key for it, and what the engine made is read back.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("CIS Docker 5.2, 5.5, 5.10, 5.16, 5.17, 5.18, 5.21, 5.22, 5.31", "OWASP Docker rule 3, 6"),
        allows_deviation=False,
    ),
    Rule(
        READ_ONLY,
        requirement="The root file system of the container is read-only.",
        rationale="What cannot be written cannot be changed by an intruder, and fills no disk.",
        fix="Write into volumes, `tmpfs` or /tmp.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.13", "OWASP Docker rule 8"),
    ),
    Rule(
        DOCS_COMPLETE,
        requirement="Every variable, volume and port that the image declares is in the service's tables.",
        rationale="The operator on Proxima has the bundle, and nobody to ask.",
        fix="Write its table; a service that only neighbours reach may leave its ports out.",
        severity="error", runbook="R8", checked_by=("test",),
    ),
    Rule(
        DOCS_DESCRIBED,
        requirement="Every variable, secret, volume and config of a promoted service has a `description`.",
        rationale="A name alone does not tell an operator what to write there.",
        fix="Write a `description` in its table: one line, for somebody who does not know the program.",
        severity="warning", runbook="R8", checked_by=("test",),
    ),
    Rule(
        PROXIMA_CAPACITY,
        requirement="The limits of all promoted services together fit into `proxima.cpus` and `proxima.memory`.",
        rationale="What does not fit there must not be tested as if it did.",
        fix="Lower the limits, or correct `[proxima]`.",
        severity="error", runbook="R3, R10", checked_by=("build", "test"),
    ),
    Rule(
        SOURCE_COMMITTED,
        requirement="Everything that a bundle is made from is committed.",
        rationale="A commit can be read again; a working tree is gone tomorrow. Its bundle is a snapshot, never a release.",
        fix="Commit, then run `build test promote` again.",
        severity="warning", runbook="R11", checked_by=("promote",),
    ),
    Rule(
        TESTS_FRESH,
        requirement="The images are what the files say, and what was tested is what is promoted; if not, exit code 3.",
        rationale="Tested bytes are shipped bytes.",
        fix="`explain` says what changed, and which word to run.",
        severity="error", runbook="R7", checked_by=("promote", "release"), allows_deviation=False,
    ),
    Rule(
        TESTS_PASSED,
        requirement="The last test of the set passed; if not, exit code 3.",
        rationale="Nothing else says that it works.",
        fix="Mend it, then run `build test`.",
        severity="error", runbook="R7", checked_by=("promote", "release"), allows_deviation=False,
    ),
    Rule(
        TEST_PLATFORM,
        requirement="The image was run in a test for each of its platforms; `test` warns, `promote` and `release` refuse.",
        rationale="What was compiled for another machine may fail there in ways that no check here can see.",
        fix="Test on an engine that runs it: one of that platform, or one with emulation (binfmt_misc). Or write a "
        "deviation whose scope is `images.NAME@OS/ARCHITECTURE`, and run `test promote`.",
        severity="error", runbook="R3, R7", checked_by=("test", "promote", "release"), enforced_on_promotion=True,
    ),
)  # fmt: skip

RULES_BY_ID = {rule.id: rule for rule in RULES}


def rule_set_version() -> str:
    """The version of the rules: another one as soon as a rule comes, goes, asks something else or weighs otherwise."""
    table = "\n".join(f"{rule.id} {rule.severity} {rule.requirement}" for rule in RULES)
    return f"{RULES_REVISION}-{hashlib.sha256(table.encode()).hexdigest()[:12]}"


def deviations_allowed() -> dict[str, bool]:
    """By id, whether a deviation may go around the rule."""
    return {rule.id: rule.allows_deviation for rule in RULES}


def find_rule(name: str) -> Rule:
    """The rule of this id; UsageError with the nearest one for an unknown id."""
    from difflib import get_close_matches

    match = RULES_BY_ID.get(name)
    if match is None:
        matches = get_close_matches(name, RULES_BY_ID, 1)
        hint = f"did you mean {matches[0]}?" if matches else "`rules.list` shows all of them"
        raise UsageError(f"there is no rule {name!r}", hint=hint)
    return match
