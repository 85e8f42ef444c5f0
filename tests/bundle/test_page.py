"""`PROMOTION.md` has the operator's steps in the order of work, and its commands can be pasted into a shell."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lyra_tasks.bundle.content.environment import PromotedService, render_env_example
from lyra_tasks.bundle.content.operating import render_operating_steps
from lyra_tasks.bundle.content.page import _head, _images, _rules
from lyra_tasks.bundle.diff import BundleDiff, Change
from lyra_tasks.bundle.format.manifest import Requirements, TestDouble
from lyra_tasks.records.evidence import Evidence, RuleResult, SetKey
from lyra_tasks.records.images import ImageOrigin
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import DIGESTS, MANIFEST, with_images

WEB = {
    "image": "web",
    "environment": {
        "TOKEN": {"secret": True, "required": True, "description": "opens the door"},
        "MOOD": {"required": True, "description": "how it feels"},
        "MODE": {"default": "fast", "description": "how it works"},
    },
    "secrets": {"key": {"path": "/run/key", "description": "turns the lock"}},
    "volumes": {"data": {"path": "/my $data", "description": "what is kept"}},
    "ports": {"http": 8080, "admin": 9000},
    "healthcheck": {"http": "GET /health?a=b&c"},
}
DNS = {"image": "web", "ports": {"dns": "53/udp", "http": 8080}, "environment": {"MOOD": {"required": True}}}


@pytest.fixture(params=["dash", "bash", "busybox sh"])
def shell(request: pytest.FixtureRequest, busybox: Path) -> list[str]:
    """Return the command that runs a script."""
    return [str(busybox / "busybox"), "sh"] if " " in request.param else [str(shutil.which(request.param))]


def steps(
    *promoted: PromotedService, signer: str = "", diff: BundleDiff | None = None
) -> dict[str, tuple[str, list[str]]]:
    """Return text and commands of each step by its title."""
    page = render_operating_steps(MANIFEST, promoted or services({"web": WEB, "dns": DNS}), signer, diff)
    sections = re.split(r"(?m)^## \d\. ", page)[1:]
    return {
        section.partition("\n")[0]: (section, "\n".join(re.findall(r"(?ms)^```\n(.*?)\n```$", section)).splitlines())
        for section in sections
    }


def test_steps_are_in_the_order_of_work() -> None:
    diff = BundleDiff("1.1.0", "1.2.0", (Change("environment", "web: MOOD", None, "required"),))
    found = steps(diff=diff)
    assert list(found) == [
        "Trust", "Load", "Configure", "Start", "Is it up", "Upgrade from 1.1.0", "Roll back", "Make room",
        "Is it the right one",
    ]  # fmt: skip
    assert "| environment | web: MOOD | - | required |" in found["Upgrade from 1.1.0"][0]


def test_commands_are_valid_shell(shell: list[str]) -> None:
    for _, commands in steps(signer="Ada o'Lovelace").values():
        script = "\n".join(commands)
        result = subprocess.run([*shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (0, ""), script


def test_signature_is_checked_by_hand_before_the_script_runs() -> None:
    found = steps(signer="Ada o'Lovelace")
    place, by_hand, by_script = (shlex.split(line) for line in (*found["Trust"][1][:2], *found["Load"][1]))
    assert place == ["SIGNERS=/path/to/allowed_signers"]
    assert by_hand[:3] == ["ssh-keygen", "-Y", "verify"]
    assert by_hand[by_hand.index("-I") + 1] == by_script[by_script.index("--signer") + 1] == "Ada o'Lovelace"
    assert by_script[:4] == ["sh", "receive.sh", "--allowed-signers", "$SIGNERS"]
    unsigned = steps()
    assert "Not signed" in unsigned["Trust"][0]
    assert unsigned["Load"][1] == ["sh receive.sh"]


def test_every_open_value_has_a_command() -> None:
    promoted = services({"web": WEB, "dns": DNS})
    commands = "\n".join(steps(*promoted)["Configure"][1])
    open_names = re.findall(r"(?m)^(\w+)=$", render_env_example(promoted))
    assert sorted(open_names) == ["DNS_HTTP_PUBLISH", "MOOD", "TOKEN", "WEB_KEY_FILE"]
    assert sorted(re.findall(r"(?m)^(?:ask|put) (\w+)", commands)) == sorted(open_names)
    assert commands.count("ask MOOD") == 1, "services share it"
    assert "MODE" not in commands


@pytest.mark.parametrize("value", ["plain", " # $HOME 'it\\'s' \"\\a\\\\\" & ` ", "'", '"', "\\", "", "a  b"])
def test_typed_value_is_quoted_as_compose_reads_it(shell: list[str], value: str, tmp_path: Path) -> None:
    functions = [line for line in steps()["Configure"][1] if "() {" in line]
    script = "\n".join([*functions, "ask TOKEN    # opens the door"])
    result = subprocess.run(
        [*shell, "-c", script], input=f"{value}\n", cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "TOKEN: ", "")
    escaped = re.sub(r'["$\\]', r"\\\g<0>", value)
    assert (tmp_path / ".env").read_text() == f'TOKEN="{escaped}"\n'


def test_secret_file_has_owner_and_mode() -> None:
    _, commands = steps()["Configure"]
    assert "SECRETS=/etc/shop" in commands
    assert 'install -m 400 -o 10001 -g 10001 "$FILE" "$SECRETS"/web-key' in commands
    (root,) = services({"web": {**WEB, "user": "0"}})
    assert 'install -m 400 -o 0 -g 0 "$FILE" "$SECRETS"/web-key' in steps(root)["Configure"][1]
    (named,) = services({"web": {**WEB, "user": "app"}})
    (command,) = (line for line in steps(named)["Configure"][1] if line.startswith("install"))
    assert command.startswith('install -m 400 -o "$(docker run ') and command.endswith(
        ' -u)" "$FILE" "$SECRETS"/web-key'
    )
    text = steps()["Configure"][0]
    assert "relative paths of secret files from `deploy/`" in text and "No secret may lie in the bundle" in text


def test_each_port_has_a_line_to_try() -> None:
    _, commands = steps()["Is it up"]
    assert "get \"$(address web 8080)\" '/health?a=b&c'" in commands
    assert 'connects "$(address web 9000)"    # admin' in commands
    assert any("--protocol udp dns 53" in line for line in commands)
    assert 'answers http "$(address dns 8080)"    # any answer will do' in commands
    (plain,) = services({"web": {"image": "web"}})
    assert not [line for line in steps(plain)["Is it up"][1] if "() {" in line]


@pytest.mark.parametrize(("method", "options"), [("HEAD", " --head"), ("POST", " --request POST"), ("GET", "")])
def test_port_is_tried_by_the_method_of_the_health_check(method: str, options: str) -> None:
    (web,) = services({"web": {"image": "web", "ports": {"http": 80}, "healthcheck": {"http": f"{method} /"}}})
    assert f'get "$(address web 80)" /{options}' in steps(web)["Is it up"][1]


class Answers(BaseHTTPRequestHandler):
    """Answers /health with 200 and everything else with 404."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health?a=b&c" else 404)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"fine\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def server() -> Iterator[int]:
    """Return the port of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("tools", ["", "sed tr wget nc"])
@pytest.mark.parametrize("address", ["127.0.0.1:{}", "[::ffff:127.0.0.1]:{}", "::ffff:127.0.0.1:{}"])
@pytest.mark.parametrize("word", ["get", "connects", "answers"])
def test_line_for_a_port_succeeds_if_it_is_open(
    shell: list[str], busybox: Path, server: int, tmp_path: Path, word: str, address: str, tools: str
) -> None:
    """Try with curl and bash, and with what busybox has instead."""
    for name in tools.split():
        (tmp_path / name).symlink_to(busybox / "busybox")
    environment = {"PATH": str(tmp_path)} if tools else None
    commands = steps()["Is it up"][1]
    functions = [line for line in commands if "() {" in line]
    (line,) = (line for line in commands if line.startswith(f"{word} "))

    def run(port: int, line: str = line) -> subprocess.CompletedProcess[str]:
        docker = f"docker() {{ [ \"$1 $2\" = 'compose port' ] && echo {shlex.quote(address.format(port))}; }}"
        script = "\n".join([docker, *functions, line])
        return subprocess.run([*shell, "-c", script], env=environment, capture_output=True, text=True, check=False)

    result = run(server)
    assert (result.returncode, result.stderr) == (0, "")
    if word == "get":
        assert result.stdout == "fine\n"
        assert run(server, line.replace("/health", "/other")).returncode != 0
        if not tools:
            assert run(server, f"{line} --head").returncode == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert run(closed.getsockname()[1]).returncode != 0


def test_backups_lie_outside_of_the_bundle_and_are_restored() -> None:
    shared = {"path": "/shared", "shared": "pages"}
    reader = {"image": "web", "volumes": {"pages": shared | {"read_only": True}}}
    writer = {"image": "web", "volumes": {"output": shared}}
    found = steps(*services({"web": WEB, "reader": reader, "writer": writer}))
    backups = [line.partition("|| ")[2] for line in found["Upgrade"][1] if "|| save " in line]
    restores = [shlex.split(line)[-6:] for line in found["Roll back"][1] if " cp " in line]
    assert backups == ["save shop_web-data", "save shop_pages"]
    assert restores == [
        ["docker", "cp", "-", f"$(place {volume})", "<", f"$BACKUP/{volume}.tar"]
        for volume in ("shop_web-data", "shop_pages")
    ]
    lines = [*found["Upgrade"][1], *found["Roll back"][1]]
    assert not [line for line in lines if "my $data" in line or "/shared" in line], "paths of the older one may differ"
    (plain,) = services({"web": {"image": "web"}})
    assert not [line for line in steps(plain)["Upgrade"][1] if "save" in line]
    assert not [line for line in steps(plain)["Roll back"][1] if " cp " in line or "volume rm" in line]


@pytest.mark.parametrize("is_complete", [True, False])
def test_volume_is_removed_only_if_its_backup_is_complete(shell: list[str], tmp_path: Path, is_complete: bool) -> None:
    (tmp_path / "shop_web-data.tar").write_text("of last year")
    found = steps()
    save = [line for line in found["Upgrade"][1] if line.startswith(("place()", "save()", "! docker volume"))]
    (remove,) = (line for line in found["Roll back"][1] if "volume rm" in line)
    docker = f"""docker() {{ case $1-$2 in
        ps-*) echo abc ;;
        inspect-*) echo; echo "abc:/my data" ;;
        cp-"abc:/my data/.") echo data; return {0 if is_complete else 1} ;;
        volume-inspect) ;;
        volume-rm) echo "$@" ;;
        *) return 3 ;;
    esac; }}"""
    script = "\n".join([docker, f"BACKUP={tmp_path}", *save, remove])
    result = subprocess.run([*shell, "-c", script], capture_output=True, text=True, check=False)
    assert ("volume rm --force shop_web-data" in result.stdout) == is_complete, result.stdout + result.stderr
    assert [path.read_text() for path in tmp_path.glob("*.tar")] == (["data\n"] if is_complete else [])


def test_room_is_made_by_tags_of_the_project_alone() -> None:
    page = render_operating_steps(MANIFEST.model_copy(update={"project": "a.b"}), services({"web": WEB}), "", None)
    patterns = re.findall(r"grep (-Ex '[^']+'|\"\^[^\"]+\")", page)
    lines = [
        "a.b/web:latest",
        "a.b/web:1.2",
        "axb/web:latest",
        "a.b/web:latest axb/web:latest",
        "a.b/web:1",
        "axb/web:1",
    ]
    matches = [
        subprocess.run(
            ["bash", "-c", f"OLDER=1; grep {pattern}"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")[:-1]
        for pattern in patterns
    ]
    assert sorted(matches) == [["a.b/web:1"], ["a.b/web:latest", "a.b/web:1.2", "a.b/web:1"]]


def test_page_counts_rules_of_the_test_as_its_report_does() -> None:
    tested = [RuleResult(rule="image.secrets", scope=scope, outcome="passed") for scope in ("a", "b")]
    evidence = Evidence(
        set=SetKey(images={}, test_doubles={}, effective_hash="e"), passed=True, run="r1", started_at="now", seconds=1,
        engine={}, checks=[], rules=tested, usage={},
    )  # fmt: skip
    fresh = RuleResult(rule="tests.fresh", scope="project", outcome="passed")
    assert "\n2 rule checks passed in the test, and 1 more at the promotion; " in _rules(evidence, [*tested, fresh])
    assert "\n2 rule checks passed in the test; " in _rules(evidence, tested)


def test_page_lists_platforms_of_all_images_only() -> None:
    (image,) = MANIFEST.images
    arm = image.model_copy(update={"platform": "linux/arm64"})
    door = image.model_copy(update={"name": "door"})
    proxima = Requirements(platforms=["linux/amd64", "linux/arm64"], min_engine="20.10")
    manifest = with_images(image, arm, manifest=MANIFEST.model_copy(update={"proxima": proxima}))
    assert "or newer on linux/amd64, linux/arm64.\n" in _head(manifest)
    assert "or newer on linux/amd64.\n" in _head(with_images(image, arm, door, manifest=manifest))


def test_page_names_archives_origins_and_test_doubles() -> None:
    (image,) = MANIFEST.images
    origin = ImageOrigin(reference="docker.io/library/redis:7", digest=DIGESTS[3], source="image")
    cache = image.model_copy(update={"name": "cache", "references": ["shop/cache:1"], "origin": origin})
    double = TestDouble(service="mail", reference="mailpit:1")
    manifest = with_images(image, cache, manifest=MANIFEST.model_copy(update={"test_doubles": [double]}))
    page = _images(manifest)
    assert f"`{manifest.archives[0].file}` (1000 B) has all images for linux/amd64." in page
    assert f"| shop/cache:1 | docker.io/library/redis:7 | `{DIGESTS[3]}` | image |" in page
    assert "Not included, since only tests run it:\n\n| service | image |\n|---|---|\n| mail | mailpit:1 |" in page
    own = _images(MANIFEST)
    assert "Third-party" not in own and "Not included" not in own


def test_value_that_is_made_of_others_is_set_after_them() -> None:
    tables = {
        "web": {
            "image": "web",
            "environment": {
                "DATABASE_URL": {"secret": True, "template": "postgres://app:${PASSWORD}@db/app"},
                "OTHER_URL": {"secret": True, "template": "http://a:${NOT_PROMOTED}@b/"},
            },
        },
        "db": {"image": "web", "environment": {"PASSWORD": {"secret": True}}},
    }
    commands = "\n".join(steps(*services(tables))["Configure"][1])
    address = "echo 'DATABASE_URL=postgres://app:${PASSWORD}@db/app' >> .env"
    assert commands.index("ask PASSWORD") < commands.index(address)
    assert "ask OTHER_URL" in commands
