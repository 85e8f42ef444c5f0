"""What is known of common third-party images: whom they run as, where they write and listen, how their health is told.

Each entry names its sources below https://github.com/; `tests/engine/test_known_images.py` tries those that Debian has
the program of. It is a start for a draft: whatever the project declares takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lyra_tasks.ports import ContainerPort

_MIRROR_NAMES = frozenset(
    {"cache", "docker", "docker-hub", "docker-library", "docker.io", "dockerhub", "hub", "mirror", "mirrors", "proxy"}
)
"""Names of namespaces in a registry that mirrors Docker Hub."""
_NEWEST = 10**6
_ANY = _NEWEST + 1


@dataclass(frozen=True)
class KnownImage:
    """Facts about the images of some repositories, or about their versions before a major one.

    `user` is the one that the server runs as, `alpine_user` that of Alpine variants, which may also need another health
    check; `sets_user` says that the image sets the user itself. `volumes` hold data, `tmpfs` anything else that is
    written with a read-only root file system; an entry of `tmpfs_for` is needed if something is mounted below its key.
    The server does not start with a mount at one of `misplaced`. `version` finds the major version in a tag.
    """

    repositories: tuple[str, ...]
    ports: tuple[ContainerPort, ...] = ()
    user: str = ""
    alpine_user: str = ""
    sets_user: bool = False
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    tmpfs_for: Mapping[str, str] = field(default_factory=dict)
    misplaced: tuple[str, ...] = ()
    healthcheck: str | tuple[str, ...] = ()
    alpine_healthcheck: str | tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    memory: str = "256m"
    size: str = "64m"
    version: str = r"^v?(\d+)"
    before: int = _ANY

    @property
    def is_versioned(self) -> bool:
        """Return whether these are facts about older versions only."""
        return self.before != _ANY


def find_known_image(reference: str) -> KnownImage | None:
    """Return what is known of the image with a reference, or None.

    References of mirrors count, as in `mirror.gcr.io/library/redis:7`, images of others with the same last name do not.
    """
    name, _, tag = reference.partition("@")[0].rpartition("/")[2].partition(":")
    directories = reference.partition("@")[0].split("/")[:-1]
    if directories and (re.search(r"[.:]", directories[0]) or directories[0] == "localhost"):
        directories = directories[1:]
    repository = "/".join([*_without_mirrors(directories), name])
    for image in KNOWN_IMAGES:
        if repository in image.repositories:
            major = re.search(image.version, tag)
            if min(int(major[1]) if major else _NEWEST, _NEWEST) < image.before:
                is_alpine = "alpine" in tag and image.alpine_healthcheck
                return replace(image, healthcheck=image.alpine_healthcheck) if is_alpine else image
    return None


def _without_mirrors(directories: list[str]) -> list[str]:
    """Return the directories of a repository on Docker Hub, without those that a mirror puts before them."""
    for start, directory in enumerate(directories):
        if directory == "library":
            return directories[start + 1 :]
        if directory not in _MIRROR_NAMES:
            return directories[start:]
    return []


def is_covered(path: str, mounts: Iterable[str]) -> bool:
    """Return whether one of the mounts is at the path or above it. `/var/run` is `/run` in all images."""
    parents = {_resolve_run(mount) for mount in mounts}
    resolved = _resolve_run(path)
    return any(resolved == parent or resolved.startswith(f"{parent}/") for parent in parents)


def _resolve_run(path: str) -> str:
    return re.sub(r"^/var/run(?=/|$)", "/run", path.rstrip("/"))


_UNTIL_POSTGRES_17 = KnownImage(
    # docker-library/postgres: 17/bookworm/Dockerfile, 17/alpine3.22/Dockerfile. The images of postgis/docker-postgis
    # (17-3.5/Dockerfile) and pgvector/pgvector (Dockerfile) are made from it.
    repositories=("postgres", "postgis/postgis"),
    ports=(5432,),
    user="999:999",
    alpine_user="70:70",
    volumes=("/var/lib/postgresql/data",),
    tmpfs=("/var/run/postgresql",),
    # Over TCP, since the server that sets up the database listens on a socket only
    healthcheck='pg_isready --quiet --host=127.0.0.1 --username="${POSTGRES_USER:-postgres}"',
    size="256m",
    before=18,
)
_POSTGRES = replace(
    # docker-library/postgres: 18/trixie/Dockerfile, 18/alpine3.22/Dockerfile. PGDATA is /var/lib/postgresql/18/docker,
    # and docker-entrypoint.sh refuses a mount at the path of earlier versions.
    _UNTIL_POSTGRES_17,
    volumes=("/var/lib/postgresql",),
    misplaced=("/var/lib/postgresql/data",),
    before=_ANY,
)
_MONGO = KnownImage(
    # docker-library/mongo: 8.0/Dockerfile
    repositories=("mongo",),
    ports=(27017,),
    user="999:999",
    volumes=("/data/db",),
    tmpfs=("/data/configdb",),
    healthcheck=("mongosh", "--quiet", "--eval", "db.adminCommand('ping')"),
    memory="512m",
    size="512m",
)

KNOWN_IMAGES: tuple[KnownImage, ...] = (
    _UNTIL_POSTGRES_17,
    _POSTGRES,
    # The major version of a tag is that after `pg`, as in `0.8.0-pg17`
    replace(_UNTIL_POSTGRES_17, repositories=("pgvector/pgvector",), version=r"pg(\d+)"),
    replace(_POSTGRES, repositories=("pgvector/pgvector",), version=r"pg(\d+)"),
    # timescale/timescaledb-docker: Dockerfile, made from postgres:VERSION-alpine
    replace(_UNTIL_POSTGRES_17, repositories=("timescale/timescaledb",), user="70:70", version=r"pg(\d+)"),
    replace(_POSTGRES, repositories=("timescale/timescaledb",), user="70:70", version=r"pg(\d+)"),
    KnownImage(
        # MariaDB/mariadb-docker: 11.4/Dockerfile, 11.4/docker-entrypoint.sh, 11.4/healthcheck.sh
        repositories=("mariadb",),
        ports=(3306,),
        user="999:999",
        volumes=("/var/lib/mysql",),
        tmpfs=("/run/mysqld",),
        healthcheck=("healthcheck.sh", "--connect", "--innodb_initialized"),
        memory="512m",
        size="256m",
    ),
    KnownImage(
        # docker-library/mysql: 8.4/Dockerfile.oracle
        repositories=("mysql",),
        ports=(3306,),
        user="999:999",
        volumes=("/var/lib/mysql",),
        tmpfs=("/var/run/mysqld",),
        # It ends with 0 even if the server answers that access is denied
        healthcheck=("mysqladmin", "ping", "--host=127.0.0.1", "--silent"),
        memory="768m",
        size="512m",
    ),
    KnownImage(
        # redis/docker-library-redis: debian/Dockerfile, alpine/Dockerfile. Newer ones declare no VOLUME.
        repositories=("redis",),
        ports=(6379,),
        user="999:999",
        alpine_user="999:1000",
        volumes=("/data",),
        healthcheck=("redis-cli", "ping"),
    ),
    KnownImage(
        # valkey-io/valkey-container: 9.0/debian/Dockerfile, 9.0/alpine/Dockerfile
        repositories=("valkey/valkey", "valkey"),
        ports=(6379,),
        user="999:999",
        alpine_user="999:1000",
        volumes=("/data",),
        healthcheck=("valkey-cli", "ping"),
    ),
    KnownImage(
        # docker-library/memcached: Dockerfile-debian.template, Dockerfile-alpine.template
        repositories=("memcached",),
        ports=(11211,),
        user="11211:11211",
        sets_user=True,
        # The images have no client
        healthcheck=("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11211"),
        alpine_healthcheck=("nc", "-z", "127.0.0.1", "11211"),
    ),
    replace(_MONGO, healthcheck=("mongo", "--quiet", "--eval", "db.adminCommand('ping')"), before=6),
    _MONGO,
    KnownImage(
        # docker-library/rabbitmq: 4.1/ubuntu/Dockerfile, 4.1/alpine/Dockerfile, 4.1/ubuntu/management/Dockerfile
        repositories=("rabbitmq",),
        ports=(5672,),
        user="999:999",
        alpine_user="100:101",
        volumes=("/var/lib/rabbitmq",),
        healthcheck=("rabbitmq-diagnostics", "-q", "ping"),
        memory="512m",
    ),
    KnownImage(
        # nginxinc/docker-nginx: Dockerfile-debian.template, entrypoint/20-envsubst-on-templates.sh
        repositories=("nginx",),
        ports=(80,),
        user="101:101",
        tmpfs=("/var/cache/nginx", "/run"),
        tmpfs_for={"/etc/nginx/templates": "/etc/nginx/conf.d"},
    ),
    KnownImage(
        # nginxinc/docker-nginx-unprivileged: stable/debian/Dockerfile, which writes below /tmp only
        repositories=("nginxinc/nginx-unprivileged", "nginx/nginx-unprivileged"),
        ports=(8080,),
        user="101:101",
        sets_user=True,
        tmpfs_for={"/etc/nginx/templates": "/etc/nginx/conf.d"},
    ),
    KnownImage(
        # docker-library/haproxy: 3.2/Dockerfile
        repositories=("haproxy",),
        user="99:99",
        sets_user=True,
    ),
    KnownImage(
        # traefik/traefik-library-image: v3.6/alpine/Dockerfile, which sets no user and writes nothing of its own
        repositories=("traefik",),
        ports=(80,),
        user="65532:65532",
    ),
    KnownImage(
        # caddyserver/caddy-docker: 2.11/alpine/Dockerfile. Its program has a file capability.
        repositories=("caddy",),
        ports=(80,),
        user="65532:65532",
        volumes=("/data",),
        tmpfs=("/config",),
        capabilities=("NET_BIND_SERVICE",),
    ),
    KnownImage(
        # minio/minio: Dockerfile.release, which sets no user
        repositories=("minio/minio",),
        ports=(9000,),
        user="1000:1000",
        volumes=("/data",),
        size="256m",
    ),
    KnownImage(
        # elastic/elasticsearch: distribution/docker; docker-library/repo-info: repos/elasticsearch
        repositories=("elasticsearch", "elasticsearch/elasticsearch"),
        ports=(9200,),
        user="1000:1000",
        volumes=("/usr/share/elasticsearch/data",),
        tmpfs=("/usr/share/elasticsearch/logs",),
        memory="2g",
        size="512m",
    ),
    KnownImage(
        # TimWolla/docker-adminer: 5/Dockerfile
        repositories=("adminer",),
        ports=(8080,),
        sets_user=True,
    ),
    KnownImage(
        # axllent/mailpit: Dockerfile, which sets no user
        repositories=("axllent/mailpit",),
        ports=(1025, 8025),
        user="65532:65532",
        healthcheck=("/mailpit", "readyz"),
    ),
    KnownImage(
        # mailhog/MailHog: Dockerfile
        repositories=("mailhog/mailhog",),
        ports=(1025, 8025),
        user="1000:1000",
        sets_user=True,
    ),
    KnownImage(
        # prometheus/prometheus: Dockerfile
        repositories=("prom/prometheus",),
        ports=(9090,),
        user="65534:65534",
        sets_user=True,
        volumes=("/prometheus",),
        size="256m",
    ),
    KnownImage(
        # grafana/grafana: Dockerfile
        repositories=("grafana/grafana", "grafana/grafana-oss"),
        ports=(3000,),
        user="472:0",
        sets_user=True,
        volumes=("/var/lib/grafana",),
    ),
    KnownImage(
        # eclipse-mosquitto/mosquitto: docker/2.0-openssl/Dockerfile
        repositories=("eclipse-mosquitto",),
        ports=(1883,),
        user="1883:1883",
        volumes=("/mosquitto/data",),
        tmpfs=("/mosquitto/log",),
    ),
    KnownImage(
        # nats-io/nats-docker: 2.12.x/alpine3.22/Dockerfile, which sets no user
        repositories=("nats",),
        ports=(4222,),
        user="65532:65532",
    ),
    KnownImage(
        # influxdata/influxdata-docker: influxdb/2.7/Dockerfile
        repositories=("influxdb",),
        ports=(8086,),
        user="1000:1000",
        volumes=("/var/lib/influxdb2", "/etc/influxdb2"),
    ),
    KnownImage(
        # meilisearch/meilisearch: Dockerfile, which sets no user
        repositories=("getmeili/meilisearch",),
        ports=(7700,),
        user="65532:65532",
        volumes=("/meili_data",),
        size="256m",
    ),
    KnownImage(
        # apache/couchdb-docker: 3.3.3/Dockerfile
        repositories=("couchdb",),
        ports=(5984,),
        user="5984:5984",
        volumes=("/opt/couchdb/data",),
        tmpfs=("/opt/couchdb/etc/local.d",),
    ),
    KnownImage(
        # docker-library/ghost: 6/bookworm/Dockerfile, made from node
        repositories=("ghost",),
        ports=(2368,),
        user="1000:1000",
        volumes=("/var/lib/ghost/content",),
        memory="512m",
    ),
)
"""All entries; of those of one repository, the first whose version fits is used."""
