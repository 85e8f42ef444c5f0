"""Render the steps of `PROMOTION.md` on a node with a version: upgrade, roll back, make room, is it the right one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lyra_tasks.bundle.content.environment import PromotedService
from lyra_tasks.bundle.diff import BundleDiff
from lyra_tasks.bundle.format.layout import RECEIVE_SCRIPT
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.config.deployment import compose_project, volume_name
from lyra_tasks.console.markup import escape_markdown, format_code, format_commands, format_table

_SETTINGS = frozenset({"environment", "secrets", "ports"})
"""Sections of a comparison whose changes concern `.env`."""
_PLACE_FUNCTION = (
    'place() { docker inspect --format "{{range .Mounts}}{{if and .RW (eq .Name \\"$1\\")}}{{\\$.Id}}:{{.Destination}}'
    '{{println}}{{end}}{{end}}" $(docker ps --all --quiet --filter "volume=$1") | grep -m 1 :; }'
    "    # place VOLUME: where one has it"
)
"""A shell function that prints container and path: services and paths of a volume differ between versions."""
_SAVE_FUNCTION = (
    'save() { rm -f "$BACKUP/$1.tar"; docker cp "$(place "$1")/." - > "$BACKUP/$1.part" && '
    'mv "$BACKUP/$1.part" "$BACKUP/$1.tar"; }    # save VOLUME: a backup is complete, or is not there'
)


def render_upgrading_steps(manifest: Manifest, services: Sequence[PromotedService], diff: BundleDiff | None) -> str:
    """Return the numbered steps; `diff` is the comparison with the version to upgrade from, if there is one."""
    return "\n".join(
        (_upgrade(manifest, services, diff), _roll_back(manifest, services), _make_room(manifest), _identify())
    )


def _upgrade(manifest: Manifest, services: Sequence[PromotedService], diff: BundleDiff | None) -> str:
    before = f" from {escape_markdown(diff.before)}" if diff else ""
    backups = [
        f"! docker volume inspect {volume} > /dev/null 2>&1 || save {volume}"
        for volume in _list_volumes(manifest.project, services)
    ]
    changes = [change for change in diff.changes if change.section in _SETTINGS] if diff else []
    table = format_table(
        ("section", "name", "before", "after"), [tuple(map(escape_markdown, change.row)) for change in changes]
    )
    note = (
        f"\nNew and changed values since {escape_markdown(diff.before)}:\n\n{table}"
        if diff and changes
        else f"\nNo values have changed since {escape_markdown(diff.before)}.\n"
        if diff
        else ""
    )
    return (
        f"## 6. Upgrade{before}\n\nDo 1 and 2 with this version while the other one runs. OLD and NEW are the "
        "directories `deploy` of the two, BACKUP one outside of both, all of them absolute paths.\n\n"
        + format_commands(
            _directories(manifest),
            'mkdir -p -m 700 "$BACKUP" && cp -p "$OLD"/.env "$BACKUP"/env',
            'cd "$OLD" && docker compose stop',
            *((_PLACE_FUNCTION, _SAVE_FUNCTION, *backups) if backups else ()),
            '[ -e "$NEW"/.env ] || cp -p "$OLD"/.env "$NEW"/.env',
            f'cd "$NEW" && sh ../{RECEIVE_SCRIPT}    # names what is still open, new and changed',
        )
        + "\nSet what is open with the lines of 3 for it, then start, and do 5.\n\n"
        + format_commands('cd "$NEW" && docker compose up --detach --wait --remove-orphans')
        + note
    )


def _directories(manifest: Manifest) -> str:
    backup = shlex.quote(f"/var/backups/{manifest.project}-before-{manifest.version}")
    return f"OLD=/path/to/old/deploy NEW=/path/to/new/deploy BACKUP={backup}"


def _list_volumes(project: str, services: Sequence[PromotedService]) -> list[str]:
    """Return the names in the engine of the volumes that a service writes to."""
    return list(
        dict.fromkeys(
            f"{compose_project(project)}_{volume_name(service.name, key, volume)}"
            for service in services
            for key, volume in service.config.volumes.items()
            if not volume.read_only
        )
    )


def _roll_back(manifest: Manifest, services: Sequence[PromotedService]) -> str:
    volumes = [(volume, f'"$BACKUP"/{volume}.tar') for volume in _list_volumes(manifest.project, services)]
    data_note = (
        " A volume is replaced only if there is a backup of it: what was written since then is lost. If the older "
        "version can read the data as it is, leave out the lines with `volume rm` and `cp`. Volumes that only this "
        "version has stay."
        if volumes
        else ""
    )
    return (
        "## 7. Roll back\n\nAlso from an upgrade that did not come to its end. OLD, NEW and BACKUP are as in 6."
        f"{data_note}\n\n"
        + format_commands(
            _directories(manifest),
            f"cd / && docker compose --project-name {compose_project(manifest.project)} down    # of any version",
            *(f"[ ! -e {backup} ] || docker volume rm --force {volume}" for volume, backup in volumes),
            f'cd "$OLD" && sh ../{RECEIVE_SCRIPT} --allow-older    # loads its images if they are gone',
            *(["docker compose up --no-start", _PLACE_FUNCTION] if volumes else []),
            *(f'[ ! -e {backup} ] || docker cp - "$(place {volume})" < {backup}' for volume, backup in volumes),
            "docker compose up --detach --wait --remove-orphans",
        )
        + _describe_floating_tags(manifest)
    )


def _describe_floating_tags(manifest: Manifest) -> str:
    """Return what becomes of the tags of images that several versions have."""
    tags = sorted({reference.rpartition(":")[2] for image in manifest.images for reference in image.references[1:]})
    if not tags:
        return ""
    return (
        f"\nOf the floating tags of this version ({', '.join(map(format_code, tags))}), those that the older one has, "
        "too, refer to that again; the others stay until 8. No service is started by one of them: 9 tells by digest "
        "what runs.\n"
    )


def _make_room(manifest: Manifest) -> str:
    project = manifest.project
    pattern = project.replace(".", "[.]")
    tags = f"{pattern}/[^: ]+:(latest|[0-9]+([.][0-9]+)?)"
    return (
        "## 8. Make room\n\nVersions that neither run nor are the one to roll back to may go, with their bundles. "
        "Never remove images of those two: a pack since a version needs the images of that version, too; "
        "`docker image prune --all` would remove the one to roll back to. OLDER is the tag of a version in the list. "
        "If it has containers, it is named and stays.\n\n"
        + format_commands(
            f"docker image ls '{project}/*'",
            "OLDER=VERSION",
            f"! docker ps --all --format '{{{{.Image}}}}' | grep \"^{pattern}/.*:$OLDER\\$\" && "
            "docker image rm $(docker image ls --format '{{.Repository}}:{{.Tag}}' "
            f'"{project}/*:$OLDER")',
            f"docker image inspect --format '{{{{join .RepoTags \" \"}}}}' $(docker image ls --quiet '{project}/*') | "
            f"grep -Ex '({tags} ?)+' | sort -u | xargs -r docker image rm    # what has floating tags alone",
        )
    )


def _identify() -> str:
    return (
        "## 9. Is it the right one\n\nAn answer on a port does not say which version answers. In `deploy/`, this "
        "prints the image that each container runs, by digest:\n\n"
        + format_commands(
            "docker inspect --format '{{.Name}} {{.Config.Image}} {{.Image}}' $(docker compose ps --all --quiet)"
        )
        + "\nIt must be the config digest below on a classic image store, and the manifest digest on a containerd "
        f"image store. `sh {RECEIVE_SCRIPT}` compares the loaded images and every file again.\n"
    )
