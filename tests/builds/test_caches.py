"""Caches of builds: the image's name, folders below the project, and none that is not there yet."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.builds.facts import resolve_caches
from lyra_tasks.config.models import Builder
from lyra_tasks.config.platforms import Variant

AMD64 = "linux/amd64"


def test_each_image_has_caches_of_its_own_below_the_project(tmp_path: Path) -> None:
    builder = Builder(
        cache_from=["type=registry,ref=registry.example/cache:{image}", "type=local,src=.lyra/{image}"],
        cache_to=["type=local,dest=.lyra/{image},mode=max", "type=local,dest=/elsewhere/{image}"],
    )
    (tmp_path / ".lyra" / "web").mkdir(parents=True)
    (tmp_path / ".lyra" / "web" / "index.json").touch()
    several = Variant("db", "linux/arm64", "db@linux/arm64")
    found = resolve_caches(builder, [Variant("web", AMD64, "web"), Variant("db", AMD64, "db"), several], tmp_path)
    assert found["web"]["cache-from"] == [
        "type=registry,ref=registry.example/cache:web",
        f"type=local,src={tmp_path}/.lyra/web",
    ]
    assert found["db"]["cache-from"] == ["type=registry,ref=registry.example/cache:db"], "it is not there yet"
    assert found["db"]["cache-to"] == [f"type=local,dest={tmp_path}/.lyra/db,mode=max", "type=local,dest=/elsewhere/db"]
    assert found[several.key]["cache-to"][1] == "type=local,dest=/elsewhere/db-linux-arm64"
