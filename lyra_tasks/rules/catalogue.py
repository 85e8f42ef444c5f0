"""The rule catalogue: requirement, rationale, fix, severity and references of each rule."""

from __future__ import annotations

from lyra_tasks.digests import sha256_hex
from lyra_tasks.errors import UsageError
from lyra_tasks.results.configuration import Rule
from lyra_tasks.suggest import did_you_mean

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
VULNERABILITIES = "image.vulnerabilities"
CAPABILITIES = "container.capabilities"
EGRESS = "container.egress"
HOST_ACCESS = "container.host-access"
HOST_MOUNTS = "container.host-mounts"
CONTAINER_LIMITS = "container.limits"
NON_ROOT = "container.non-root"
NO_NEW_PRIVILEGES = "container.no-new-privileges"
PRIVILEGED = "container.privileged"
READ_ONLY = "container.read-only-root"
DOCS_COMPLETE = "docs.complete"
DOCS_DESCRIBED = "docs.described"
PROXIMA_CAPACITY = "proxima.capacity"
PROXIMA_ENGINE = "proxima.engine"
SOURCE_COMMITTED = "source.committed"
TESTS_FRESH = "tests.fresh"
TESTS_PASSED = "tests.passed"
TEST_PLATFORM = "test.platform"


RULES_REVISION = 6
"""Increased when a check changes its judgement, so that tested sets are tested again."""

RULES: tuple[Rule, ...] = (
    Rule(
        CONTEXT_LEAVES_OUT,
        requirement="No build context contains `.lyra/` or the bundle directory.",
        rationale="Lyra's own output would change the build input: no image would ever be current.",
        fix="Exclude both in `.dockerignore`.",
        severity="error", runbook="R8", checked_by=("every command",), allows_deviation=False,
    ),
    Rule(
        DOCKERFILE_LINT,
        requirement="The Dockerfile follows hadolint's rules; checked only if hadolint is installed.",
        rationale="hadolint finds what breaks later: unpinned packages, `cd` in RUN, shells that ignore errors.",
        fix="Follow the message, or ignore the id in `.hadolint.yaml`. `pip install lyra-tasks[lint]` installs it.",
        severity="warning", runbook="R8", checked_by=("test",), references=("hadolint DL*, SC*",),
    ),
    Rule(
        BASE_LOCKED,
        requirement="Every FROM and every third-party image is the one whose digest `.lyra.lock.toml` pins.",
        rationale="A tag can point to another image tomorrow: the tested image could not be rebuilt.",
        fix="Build again; `lock.update` moves the pins.",
        severity="error", runbook="R8", checked_by=("test",),
        references=("hadolint DL3006, DL3007, DL3026", "CIS-DI-0002"),
    ),
    Rule(
        HEALTHCHECK,
        requirement="The service ships a health check: the image's HEALTHCHECK, or `healthcheck.exec`.",
        rationale="Without a health check, Proxima cannot tell that a service hangs.",
        fix="Add a HEALTHCHECK to the Dockerfile, or `healthcheck = { exec = … }`.",
        severity="warning", runbook="R7", checked_by=("test",),
        references=("CIS Docker 4.6, 5.27", "Dockle CIS-DI-0006"),
    ),
    Rule(
        IMAGE_LABELS,
        requirement="The image has the OCI labels title, description, source and revision.",
        rationale="On Proxima, the labels say what an image is and where it comes from.",
        fix="Set `project.description`, and a git remote or `project.source`; Lyra writes the labels.",
        severity="warning", runbook="R11", checked_by=("test",), references=("OCI image-spec annotations",),
    ),
    Rule(
        IMAGE_PLATFORM,
        requirement="The image and the programs in it are for a platform that Proxima runs.",
        rationale="Programs of another architecture do not start; an image's platform only says what was requested.",
        fix="Add the platform to `proxima.platforms`, or use a base and programs that are for it, and build again.",
        severity="error", runbook="R3", checked_by=("build", "test"),
    ),
    Rule(
        IMAGE_SECRETS,
        requirement="No declared secret is in a layer, the configuration, the history or a label of the image.",
        rationale="Whoever can pull an image can read it, including files that a later layer deletes.",
        fix="Mount it during the build (`images.NAME.secrets`), pass it to the container as a file, and rotate it.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 4.10", "Dockle CIS-DI-0010"),
    ),
    Rule(
        SECRET_NAMES,
        requirement="No ENV of the image and no ARG in its history sets a variable that is named like a secret.",
        rationale="Both stay in the image, readable by everyone.",
        fix="Use `images.NAME.secrets` during the build, and a secret variable or file at run time.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("Dockle CIS-DI-0010", "BuildKit SecretsUsedInArgOrEnv", "CIS Docker 4.10"),
    ),
    Rule(
        SETUID,
        requirement="The project adds no setuid or setgid program to those of its base; a vendor's are noted.",
        rationale="Such a program runs with its owner's privileges, whoever starts it.",
        fix="Clear the bit in the layer that adds the file: `RUN chmod a-s FILE`.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 4.8", "Dockle CIS-DI-0008"),
    ),
    Rule(
        IMAGE_SIZE,
        requirement="The image is not larger than `proxima.max_image_size`.",
        rationale="It must be transferred to Proxima, and fit there.",
        fix="Remove what is not needed at run time, or raise the limit.",
        severity="error", runbook="R3", checked_by=("build", "test"),
    ),
    Rule(
        IMAGE_TOKENS,
        requirement="Nothing in the project's own layers or in the configuration looks like a known token or key.",
        rationale="Undeclared secrets are still secrets.",
        fix="Remove it, or explain it in a deviation. `pip install lyra-tasks[secrets]` installs the scanner.",
        severity="warning", runbook="R4", checked_by=("test",), references=("Dockle CIS-DI-0010", "detect-secrets"),
    ),
    Rule(
        VOLUME_OWNER,
        requirement="The image, or that of a service that shares it, contains the directory of each volume, and the "
        "user can write there.",
        rationale="While a volume is empty, each container that is created with it gives it content, owner and mode "
        "of that directory. Without one, it belongs to root.",
        fix="`RUN install -d -o UID -g GID PATH` in the Dockerfile; for a third-party image, a path that it has, or an "
        "own image that begins with `FROM` it. A shared volume needs the same owner in all images that have its path; "
        "`read_only` leaves out a service that only reads. An `owner` in the volume's table is only compared with the "
        "image: it is for a service that need not write there.",
        severity="error", runbook="R6", checked_by=("test",),
    ),
    Rule(
        VULNERABILITIES,
        requirement="No package of an image has a known vulnerability of the severity `scan.fail_on` or above, and the "
        "scan was possible, with recent data; without `[scan]`, none is made.",
        rationale="What is known is known to attackers, too.",
        fix="Build with newer packages, after `lock.update` with a newer base. Or write a deviation for a while, with "
        'the scope `images.NAME:ID`, for example `"images.web:CVE-2026-12345"`.',
        severity="error", runbook="R4", checked_by=("promote",), references=("CIS Docker 4.4", "OWASP Docker rule 9"),
    ),
    Rule(
        CAPABILITIES,
        requirement="The container has no capabilities.",
        rationale="Each capability is a part of root's privileges.",
        fix="Remove `cap_add`: listen above port 1024, set owners during the build.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.4", "OWASP Docker rule 3"),
    ),
    Rule(
        EGRESS,
        requirement="The container cannot reach anything outside its network.",
        rationale="A container without egress can neither leak data nor download code.",
        fix="Remove `egress`.",
        severity="error", runbook="R4", checked_by=("test",),
    ),
    Rule(
        HOST_ACCESS,
        requirement="The Compose file asks for nothing of the host: no privileges, devices, namespaces or paths.",
        rationale="No container gets them here, so that the service must do without what its Compose file gives it.",
        fix="Remove the keys, or write `host_access = []` in its table if it does without. A deviation says why not.",
        severity="error", runbook="R4", checked_by=("test",), references=("OWASP Docker rule 1, 3",),
    ),
    Rule(
        HOST_MOUNTS,
        requirement="No path of the host is mounted into the container, least of all the engine's socket.",
        rationale="Write access to a host path can become access to the host.",
        fix="Use volumes, configs and secrets.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("CIS Docker 5.6, 5.20, 5.32", "OWASP Docker rule 1"), allows_deviation=False,
    ),
    Rule(
        CONTAINER_LIMITS,
        requirement="CPU, memory and processes of the container are limited, and the engine enforces the limits.",
        rationale="One container must not starve the others; swap would undermine the memory limit.",
        fix="Set `limits`; use an engine whose kernel has the memory, cpu and pids controllers.",
        severity="error", runbook="R10", checked_by=("test",),
        references=("CIS Docker 5.11, 5.12, 5.29", "OWASP Docker rule 7"), allows_deviation=False,
    ),
    Rule(
        NON_ROOT,
        requirement="The container does not run as root: USER of the image, or `user` of the service.",
        rationale="A kernel bug is all that separates root in the container from root on the host.",
        fix="Add `USER 10001:10001` to the Dockerfile.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("CIS Docker 4.1", "Dockle CIS-DI-0001", "hadolint DL3002", "OWASP Docker rule 2"),
    ),
    Rule(
        NO_NEW_PRIVILEGES,
        requirement="No program in the container can gain privileges that it was not started with.",
        rationale="This disarms every setuid program.",
        fix="Nothing to do: Lyra sets the option and verifies it in the engine.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.26", "OWASP Docker rule 4"),
        allows_deviation=False,
    ),
    Rule(
        PRIVILEGED,
        requirement="The container has no host devices or namespaces, and keeps its seccomp and AppArmor profiles.",
        rationale="Each of them gives access to the host itself.",
        fix="Nothing to do: no configuration key allows it, and Lyra verifies the container in the engine.",
        severity="error", runbook="R4", checked_by=("test",),
        references=("CIS Docker 5.2, 5.5, 5.10, 5.16, 5.17, 5.18, 5.21, 5.22, 5.31", "OWASP Docker rule 3, 6"),
        allows_deviation=False,
    ),
    Rule(
        READ_ONLY,
        requirement="The root file system of the container is read-only.",
        rationale="An intruder cannot change it, and it cannot fill the disk.",
        fix="Write to volumes, `tmpfs` or /tmp.",
        severity="error", runbook="R4", checked_by=("test",), references=("CIS Docker 5.13", "OWASP Docker rule 8"),
    ),
    Rule(
        DOCS_COMPLETE,
        requirement="Every variable, volume and port that the image declares is in the service's tables; "
        "of a third-party image, every volume.",
        rationale="The operator on Proxima has only the bundle to go by.",
        fix="Add its table; a service that only other services use may leave out its ports.",
        severity="error", runbook="R8", checked_by=("test",),
    ),
    Rule(
        DOCS_DESCRIBED,
        requirement="Every variable, secret, volume and config of a promoted service has a `description`.",
        rationale="A name alone does not tell an operator which value to set.",
        fix="Add a `description` to its table: one line, for a reader who does not know the program.",
        severity="warning", runbook="R8", checked_by=("test",),
    ),
    Rule(
        PROXIMA_CAPACITY,
        requirement="The limits of all promoted services together fit into `proxima.cpus` and `proxima.memory`.",
        rationale="A test must not promise resources that Proxima does not have.",
        fix="Lower the limits, or correct `[proxima]`.",
        severity="error", runbook="R3, R10", checked_by=("build", "test"),
    ),
    Rule(
        PROXIMA_ENGINE,
        requirement="The oldest engine of Proxima, `proxima.min_engine`, can load and run the bundle.",
        rationale="What an older engine cannot load, or silently leaves out, would show only on Proxima: zstd layers "
        "(23.0), platforms in a compose file (20.10), `HEALTHCHECK --start-interval` (25.0), more than 125 layers.",
        fix="Raise `proxima.min_engine` if Proxima has a newer one. Or leave `promotion.compression` out, merge RUN "
        "and COPY instructions, drop `--start-interval`.",
        severity="error", runbook="R3", checked_by=("build", "test"),
    ),
    Rule(
        SOURCE_COMMITTED,
        requirement="Everything that a bundle is made from is in HEAD, byte by byte.",
        rationale="A commit can be checked out again, a working tree cannot: its bundle is a snapshot, not a release.",
        fix="Commit, or exclude ignored files in `.dockerignore`; or add a deviation with the scope `source` for them.",
        severity="warning", runbook="R11", checked_by=("promote",),
    ),
    Rule(
        TESTS_FRESH,
        requirement="The images match the files, and the tested images are the promoted ones; otherwise exit code 3.",
        rationale="Tested bytes are shipped bytes.",
        fix="`explain` names the change and the command to run.",
        severity="error", runbook="R7", checked_by=("promote", "release"), allows_deviation=False,
    ),
    Rule(
        TESTS_PASSED,
        requirement="The last test run of these images passed; otherwise exit code 3.",
        rationale="Only a passed test shows that they work.",
        fix="Fix the failing checks, then run `build test`.",
        severity="error", runbook="R7", checked_by=("promote", "release"), allows_deviation=False,
    ),
    Rule(
        TEST_PLATFORM,
        requirement="A test ran the image for each of its platforms; `test` warns, `promote` and `release` refuse.",
        rationale="Programs compiled for another platform can fail in ways that no check here detects.",
        fix="Test on an engine that runs the platform, natively or by emulation (binfmt_misc). Or add a deviation with "
        "the scope `images.NAME@OS/ARCHITECTURE`, and run `test promote`.",
        severity="error", runbook="R3, R7", checked_by=("test", "promote", "release"), enforced_on_promotion=True,
    ),
)  # fmt: skip

RULES_BY_ID = {rule.id: rule for rule in RULES}


def rule_set_version() -> str:
    """Return the version of the rules; it changes with every added, removed, reworded or reweighted rule."""
    table = "\n".join(f"{rule.id} {rule.severity} {rule.requirement}" for rule in RULES)
    return f"{RULES_REVISION}-{sha256_hex(table.encode())[:12]}"


def deviations_allowed() -> dict[str, bool]:
    """Return by rule id whether a deviation is allowed."""
    return {rule.id: rule.allows_deviation for rule in RULES}


def find_rule(name: str) -> Rule:
    """Return the rule with this id; raise UsageError if no rule has it."""
    if name not in RULES_BY_ID:
        hint = did_you_mean(name, RULES_BY_ID, "Run `rules.list` to list all rules")
        raise UsageError(f"Unknown rule {name!r}", hint=hint)
    return RULES_BY_ID[name]
