"""Resolve the users of services to ids, as the engine does: by the files of their image."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.containers import UserIds, parse_user_numbers
from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_foreign_json, read_document, translate_failures
from lyra_tasks.engine.objects.containers import create_containers
from lyra_tasks.engine.objects.inventory import CONTAINER
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner
from lyra_tasks.engine.objects.removal import remove_objects
from lyra_tasks.engine.objects.volumes import UnknownUserError, resolve_user_ids
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import mark_used, write_json

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine


def resolve_image_user(engine: Engine, owner: Owner, image_id: str, user: str, cache: Path) -> UserIds | None:
    """Return the ids of `USER[:GROUP]` in an image, or None if the image does not know the name.

    Names are looked up once per image, in a container that is created but not started; the result is kept in `cache`.
    """
    numbers = parse_user_numbers(user)
    if numbers is not None:
        return numbers
    digest = sha256_hex(f"{image_id} {user}".encode())
    file = cache / "users" / f"{digest}.json"
    with suppress(OSError, PreconditionError), translate_failures(PreconditionError):
        uid, gid = parse_foreign_json(read_document(file))
        mark_used(file)
        return int(uid), int(gid)
    try:
        ids = _look_up(engine, owner, image_id, user, f"lyra-{owner.run}-user-{digest[:12]}")
    except UnknownUserError:
        return None  # the engine names the missing user when it starts the container
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, ids)
    return ids


def _look_up(engine: Engine, owner: Owner, image_id: str, user: str, name: str) -> UserIds:
    payload = {"Image": image_id, "Entrypoint": ["/never-started"], "HostConfig": {"NetworkMode": "none"}}
    container_id, _ = create_containers(engine, owner, {name: payload})[name]
    try:
        return resolve_user_ids(engine, container_id, user)
    finally:
        remove_objects(engine, owner, [OwnedObject(CONTAINER, name, container_id, owner.run)])
