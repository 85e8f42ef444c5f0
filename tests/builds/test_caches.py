"""Tests of cache options."""

from __future__ import annotations

from pathlib import Path

from lyra_tasks.builds.facts import resolve_caches
from lyra_tasks.config.models import Builder
from lyra_tasks.config.platforms import Variant

AMD64 = "linux/amd64"


def test_each_image_has_its_own_caches(tmp_path: Path) -> None:
    builder = Builder(
        cache_from=["type=registry,ref=registry.example/cache:{image}", "type=local,src=.lyra/{image}"],
        cache_to=["type=local,dest=.lyra/{image},mode=max", "type=local,dest=/elsewhere/{image}"],
    )
    (tmp_path / ".lyra" / "web").mkdir(parents=True)
    (tmp_path / ".lyra" / "web" / "index.json").touch()
    arm64 = Variant("db", "linux/arm64", "db@linux/arm64")
    caches = resolve_caches(builder, [Variant("web", AMD64, "web"), Variant("db", AMD64, "db"), arm64], tmp_path)
    assert caches["web"]["cache-from"] == [
        "type=registry,ref=registry.example/cache:web",
        f"type=local,src={tmp_path}/.lyra/web",
    ]
    assert caches["db"]["cache-from"] == ["type=registry,ref=registry.example/cache:db"], "no local cache yet"
    assert caches["db"]["cache-to"] == [
        f"type=local,dest={tmp_path}/.lyra/db,mode=max",
        "type=local,dest=/elsewhere/db",
    ]
    assert caches[arm64.key]["cache-to"][1] == "type=local,dest=/elsewhere/db-linux-arm64"
