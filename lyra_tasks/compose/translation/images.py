"""Translate `build` into `[images]`, and `image` into a reference of a third-party image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lyra_tasks.compose.sources import relative_name
from lyra_tasks.compose.translation.draft import Draft, ServiceDraft
from lyra_tasks.compose.translation.keys import REFUSED
from lyra_tasks.compose.translation.names import make_image_name
from lyra_tasks.redaction import is_secret_name

_DEVELOPMENT_TARGETS = {"dev", "develop", "development", "local"}
_REFERENCE = re.compile(r"[^\s-]\S*")


class ImageTable:
    """The images of a Compose project; services with the same build share one."""

    def __init__(self, draft: Draft, document: Mapping[str, Any]) -> None:
        self._draft = draft
        self._document = document
        self._names: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        """The own image that a reference names, since a build gives it that name."""

    def add_build(self, service: ServiceDraft) -> str | None:
        """Add the image of a service that Compose builds, and return its build context."""
        build = service.raw_table("build")
        table = self._translate(service, build)
        if table is None:
            return None
        key = repr(sorted(table.items()))
        name = self._names.get(key)
        if name is None:
            name = make_image_name(service.name)
            while name in self._draft.images:
                name += "-2"
            self._names[key] = name
            self._draft.images[name] = table
            for column in ("", *table):
                location = ("images", name, column) if column else ("images", name)
                path = {"": (), "dev_target": ("target",), "secrets": ("secrets",)}.get(column, (column,))
                self._draft.origins[location] = ("services", service.compose_name, "build", *path)
        if service.raw.get("image"):
            self.tags[str(service.raw["image"])] = name
        service.put("image", name, "build")
        return str(table["context"])

    def add_reference(self, service: ServiceDraft) -> None:
        """Add the third-party image of a service, or the own one that has this name."""
        reference = str(service.raw.get("image") or "")
        if reference in self.tags:
            service.put("image", self.tags[reference], "image")
        elif not _REFERENCE.fullmatch(reference):
            service.refuse("is not the reference of an image, such as redis:7", "image", override="image")
        else:
            service.put("image", reference, "image")

    def _translate(self, service: ServiceDraft, build: Mapping[str, Any]) -> dict[str, Any] | None:
        context, root = str(build.get("context") or "."), self._draft.root
        if "://" in context or context.startswith(("git@", "github.com/")) or context.endswith(".git"):
            fix = f"add it with `git submodule add {context} DIRECTORY`, and name that as `context`"
            service.refuse(f"a context elsewhere is not built: {fix}", "build", override="image")
            return None
        for key in ("dockerfile_inline", "additional_contexts"):
            if build.get(key):
                service.refuse(f"is not possible: {REFUSED[f'services.*.build.{key}']}", "build", key, override="image")
                return None
        context = relative_name(context, root)
        if context.startswith(".."):
            message = f"the context {context} is outside of the project: move .lyra.toml to a directory above both"
            service.refuse(message, "build", "context", override="image")
            return None
        table: dict[str, Any] = {"context": context}
        dockerfile = str(build.get("dockerfile") or "Dockerfile")
        if dockerfile.startswith("/"):
            dockerfile = relative_name(dockerfile, root / context)
        if dockerfile != "Dockerfile":
            table["dockerfile"] = dockerfile
        if target := str(build.get("target") or ""):
            is_development = target.lower() in _DEVELOPMENT_TARGETS
            table["dev_target" if is_development else "target"] = target
            if is_development:
                service.note(f"the target {target} is for development: tests and bundles take the last stage", "build")
        args = {}
        for name, value in (build.get("args") or {}).items():
            if is_secret_name(name) and name not in self._draft.plain_names:
                service.note(f"{name} is a secret, and arguments stay in the image: not passed", "build", "args", name)
            elif value is not None:
                args[name] = str(value)
        if args:
            table["args"] = args
        if secrets := self._translate_secrets(service, build):
            table["secrets"] = secrets
        platforms = [str(platform) for platform in build.get("platforms") or [service.raw.get("platform")] if platform]
        if platforms:
            table["platforms"] = platforms
        return table

    def _translate_secrets(self, service: ServiceDraft, build: Mapping[str, Any]) -> dict[str, str]:
        secrets = {}
        for index, entry in enumerate(build.get("secrets") or []):
            name = str(entry.get("source"))
            definition = (self._document.get("secrets") or {}).get(name) or {}
            if definition.get("file"):
                secrets[str(entry.get("target") or name)] = relative_name(definition["file"], self._draft.root)
            else:
                secrets_line = f'secrets = {{ {entry.get("target") or name} = "FILE" }}'
                fix = f"write it to a file, and {secrets_line} to [images.{make_image_name(service.name)}]"
                service.note(f"the build secret {name} is no file, and not passed: {fix}", "build", "secrets", index)
        return secrets
