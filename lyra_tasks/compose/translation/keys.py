"""Every key of the published Compose schema, and what becomes of it.

A key is carried into the tables of `.lyra.toml`, noted (said to have no effect), asked of the host (rule
`container.host-access`), or refused. Paths are those of the schema: `*` stands for a name, `[]` for an item.
"""

from __future__ import annotations

from collections.abc import Mapping

_RESOURCES = "limits are cpus, memory and pids; see `limits`"
_BUILD = "not passed to the build"
_SWARM = "an option of Swarm, which Compose itself does not use"
_NETWORK = "all services of an environment share one network, and reach nothing outside of it"
_VOLUME = "volumes are in the engine's usual place, with the files of the image"
_FILE = "a file belongs to the service's user, who alone can read it"
_LOG = "logs are kept by the engine, at most 30 MiB a container"
_LABELS = "containers have the labels of Lyra"

CARRIED = frozenset(
    {
        "name",
        "services", "networks", "volumes", "secrets", "configs", "volumes.*.name", "networks.*.name", "secrets.*.name",
        "configs.*.name", "secrets.*.file", "configs.*.file", "secrets.*.environment",
        "configs.*.content", "configs.*.environment",
        *(f"services.*.{key}" for key in (
            "build", "build.args", "build.context", "build.dockerfile", "build.platforms", "build.secrets",
            "build.secrets.[].source", "build.secrets.[].target", "build.target", "cap_add", "command", "configs",
            "configs.[].source", "configs.[].target", "container_name", "cpu_count", "cpu_period", "cpu_quota",
            "cpus", "depends_on", "depends_on.*.condition", "depends_on.*.required", "deploy", "deploy.resources",
            "deploy.resources.limits", "deploy.resources.limits.cpus", "deploy.resources.limits.memory",
            "deploy.resources.limits.pids", "deploy.resources.reservations", "develop", "develop.watch",
            "develop.watch.[].action", "develop.watch.[].exec", "develop.watch.[].exec.command",
            "develop.watch.[].ignore", "develop.watch.[].path", "develop.watch.[].target", "domainname", "entrypoint",
            "environment", "expose", "extra_hosts", "group_add", "healthcheck", "healthcheck.disable",
            "healthcheck.interval", "healthcheck.retries", "healthcheck.start_period", "healthcheck.test",
            "healthcheck.timeout", "hostname", "image", "init", "links", "mem_limit", "networks",
            "networks.*.aliases", "pids_limit", "platform", "ports", "ports.[].host_ip", "ports.[].name",
            "ports.[].protocol", "ports.[].published", "ports.[].target", "read_only", "secrets", "secrets.[].source",
            "secrets.[].target", "shm_size", "stop_grace_period", "stop_signal", "sysctls", "tmpfs", "ulimits",
            "ulimits.*.hard", "ulimits.*.soft", "user", "volumes", "volumes.[].bind", "volumes.[].read_only",
            "volumes.[].source", "volumes.[].target", "volumes.[].tmpfs", "volumes.[].tmpfs.size", "volumes.[].type",
            "volumes.[].volume", "volumes_from", "working_dir",
        )),
    }
)  # fmt: skip
"""Keys whose value is in the tables, or settles what is."""

RESOLVED: Mapping[str, str] = {
    **dict.fromkeys(("include", "include.[].path", "include.[].env_file", "include.[].project_directory"), "merged"),
    **dict.fromkeys(("services.*.extends", "services.*.extends.service", "services.*.extends.file"), "merged"),
    **dict.fromkeys((f"services.*.env_file{key}" for key in ("", ".[].path", ".[].format", ".[].required")), "read"),
    "services.*.label_file": "read",
    "services.*.profiles": "selected by profile",
    "version": "without meaning",
}
"""Keys that `docker compose config` has resolved: its answer does not hold them, or only repeats them."""

NOTED: Mapping[str, str] = {
    "services.*.annotations": _LABELS,
    "services.*.attach": "logs of all services are kept",
    **dict.fromkeys(
        (f"services.*.build.{key}" for key in (
            "entitlements", "extra_hosts", "isolation", "network", "privileged", "shm_size", "ssh", "ulimits",
            "secrets.[].uid", "secrets.[].gid", "secrets.[].mode", "ulimits.*.hard", "ulimits.*.soft",
        )), _BUILD),
    **dict.fromkeys(
        (f"services.*.build.{key}" for key in ("cache_from", "cache_to")), "caches are named in [builder]"),
    **dict.fromkeys((f"services.*.build.{key}" for key in ("no_cache", "pull")), "`build` has an option for it"),
    **dict.fromkeys((f"services.*.build.{key}" for key in ("provenance", "sbom")), "bundles have both"),
    "services.*.build.labels": "images have the labels of the OCI specification",
    "services.*.build.tags": "images are named PROJECT/IMAGE",
    **dict.fromkeys(
        (f"services.*.{key}" for key in (
            "blkio_config", "cgroup_parent", "cpu_percent", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpuset",
            "mem_reservation", "mem_swappiness", "memswap_limit", "oom_kill_disable", "oom_score_adj", "storage_opt",
            "deploy.resources.reservations.cpus", "deploy.resources.reservations.memory",
            "deploy.resources.reservations.generic_resources",
        )), _RESOURCES),
    "services.*.cap_drop": "all capabilities are dropped; `cap_add` adds one",
    **dict.fromkeys(
        (f"services.*.configs.[].{key}" for key in ("uid", "gid", "mode")), "configs are read-only for everyone"),
    "services.*.depends_on.*.restart": "a service is started once",
    **dict.fromkeys(
        (f"services.*.deploy.{key}" for key in (
            "endpoint_mode", "labels", "mode", "placement", "restart_policy", "rollback_config", "update_config",
        )), _SWARM),
    **dict.fromkeys(
        ("services.*.deploy.replicas", "services.*.scale"), "one container runs of each service"),
    **dict.fromkeys(
        (f"services.*.develop.watch.[].{key}" for key in ("include", "initial_sync")),
        "every file below the path counts"),
    **dict.fromkeys(
        (f"services.*.develop.watch.[].exec.{key}" for key in ("user", "privileged", "working_dir", "environment")),
        "the command runs as the service does"),
    **dict.fromkeys(
        (f"services.*.{key}" for key in ("dns", "dns_opt", "dns_search")), "only the names of services resolve"),
    "services.*.healthcheck.start_interval": "environments probe more often until the service is ready",
    "services.*.labels": _LABELS,
    **dict.fromkeys((f"services.*.{key}" for key in ("logging", "logging.driver", "logging.options")), _LOG),
    **dict.fromkeys(
        (f"services.*.{key}" for key in ("mac_address", *(f"networks.*.{key}" for key in (
            "driver_opts", "gw_priority", "interface_name", "ipv4_address", "ipv6_address", "link_local_ips",
            "mac_address", "priority",
        )))), _NETWORK),
    **dict.fromkeys(
        (f"services.*.ports.[].{key}" for key in ("app_protocol", "mode")), "a port is published on the node alone"),
    **dict.fromkeys((f"services.*.{key}" for key in ("pull_policy", "pull_refresh_after")), "the lock file decides"),
    "services.*.restart": "tests never restart a service, the bundle always does (unless-stopped)",
    **dict.fromkeys((f"services.*.secrets.[].{key}" for key in ("uid", "gid", "mode")), _FILE),
    **dict.fromkeys((f"services.*.{key}" for key in ("stdin_open", "tty")), "containers have no terminal"),
    **dict.fromkeys(
        (f"services.*.volumes.[].{key}" for key in (
            "bind.create_host_path", "bind.propagation", "bind.recursive", "bind.selinux", "consistency",
            "tmpfs.mode", "volume.labels", "volume.nocopy", "volume.subpath",
        )), _VOLUME),
    **dict.fromkeys(
        (f"networks.*{key}" for key in (
            ".attachable", ".driver", ".driver_opts", ".enable_ipv4", ".enable_ipv6", ".external", ".external.name",
            ".internal", ".ipam", ".labels",
        )), _NETWORK),
    **dict.fromkeys((f"volumes.*.{key}" for key in ("driver", "driver_opts", "labels")), _VOLUME),
    **dict.fromkeys(
        (f"volumes.*.{key}" for key in ("external", "external.name")),
        "a new volume takes its place; Proxima's operator copies the data into it"),
    **dict.fromkeys(
        (f"secrets.*.{key}" for key in (
            "driver", "driver_opts", "external", "external.name", "labels", "template_driver")),
        "tests make the content, Proxima's operator names the file"),
    **dict.fromkeys((f"configs.*.{key}" for key in ("labels", "template_driver")), "a config is its file"),
}  # fmt: skip
"""Keys without an effect here, with the reason. They are listed by `init` and `config.show`."""

HOST_ACCESS: Mapping[str, str] = {
    "services.*.cgroup": "the host's control groups",
    "services.*.device_cgroup_rules": "devices of the host",
    "services.*.devices": "devices of the host",
    "services.*.deploy.resources.reservations.devices": "devices of the host",
    "services.*.gpus": "GPUs of the host",
    "services.*.ipc": "the host's shared memory",
    "services.*.network_mode": "the host's network",
    "services.*.pid": "the host's processes",
    "services.*.privileged": "all privileges on the host",
    "services.*.runtime": "another runtime of the host",
    "services.*.security_opt": "less protection of the host",
    "services.*.use_api_socket": "the engine itself",
    "services.*.userns_mode": "the host's user ids",
    "services.*.uts": "the host's name",
}
"""Keys that ask for something of the host, which no container gets."""

REFUSED: Mapping[str, str] = {
    "services.*.build.additional_contexts": "set `context` to a directory above all; COPY --from=IMAGE reads images",
    "services.*.build.dockerfile_inline": "write it to a file, and set `dockerfile` to its name",
    "services.*.credential_spec": "only Windows has it; delete the key",
    "services.*.external_links": "add the container as a service, and name that in `depends_on`",
    "services.*.isolation": "only Windows has it; delete the key",
    "services.*.models": "add the model as a service, and its address to `environment`",
    "services.*.post_start": "do it in `command`, or in a service that is waited for: service_completed_successfully",
    "services.*.pre_stop": "do it in `command`, which gets the signal of `stop_signal`",
    "services.*.provider": "replace it by `image`",
    "services.*.volumes.[].image": "copy its files with COPY --from=IMAGE in a Dockerfile",
    "models": "add the model as a service, and its address to `environment`",
    "configs.*.external": "write it to a file, and name that as `file`",
    "configs.*.external.name": "write it to a file, and name that as `file`",
}
"""Keys that cannot be done without, with what to do instead."""


def treatment_of(path: str) -> str:
    """Return what becomes of a key of the schema: by its own row, or by that of the table that it is in."""
    rows = {"carried": CARRIED, "resolved": RESOLVED, "noted": NOTED, "host access": HOST_ACCESS, "refused": REFUSED}
    for treatment, table in rows.items():
        if path in table:
            return treatment
    parents = [path.rsplit(".", count)[0] for count in range(1, path.count(".") + 1)]
    for parent in parents:
        for treatment in ("noted", "host access", "refused"):
            if parent in rows[treatment]:
                return treatment
    return ""


def parent_of(path: str) -> str:
    """Return the key of the table that a key is in."""
    return path.removesuffix(".[]").rpartition(".")[0].removesuffix(".[]")
