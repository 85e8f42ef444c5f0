"""Test what becomes of ports, volumes and files of a Compose project."""

from __future__ import annotations

import textwrap

import pytest

from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE
from lyra_tasks.config.load import LoadedConfig, load_config
from lyra_tasks.config.show import list_settings
from lyra_tasks.errors import ConfigurationError
from tests.compose.conftest import WriteProject
from tests.compose.test_reading import FILES, HEAD


def load(write_project: WriteProject, service: str, more: str = "", **files: str) -> LoadedConfig:
    """Load a project with one service `web`, and more tables."""
    text = "services:\n  web:\n    image: nginx:1.27\n" + textwrap.indent(textwrap.dedent(service), "    ")
    write_project(f"{text}\n{textwrap.dedent(more)}", FILES | files)
    return load_config()


def list_notes(loaded: LoadedConfig) -> dict[str, str]:
    return {setting.key: str(setting.value) for setting in list_settings(loaded) if "not carried" in str(setting.value)}


@pytest.mark.parametrize(
    ("port", "address"),
    [
        ("8080:80", "127.0.0.1:8080"),
        ("127.0.0.1:8080:80", "127.0.0.1:8080"),
        ("0.0.0.0:8080:80", "0.0.0.0:8080"),
        ("192.0.2.7:8080:80", "192.0.2.7:8080"),
        ("[::1]:8080:80", "[::1]:8080"),
        ("80", "127.0.0.1:80"),
        ("127.0.0.1::80", "127.0.0.1:80"),
        ("8080-8089:80", "127.0.0.1:8080"),
        ("${PORT:-8080}:80", "127.0.0.1:8080"),
        ("${PORT}:80", "127.0.0.1:80"),
        ("${PORT:?where}:80", "127.0.0.1:80"),
    ],
)
def test_port_is_published_where_compose_has_it(write_project: WriteProject, port: str, address: str) -> None:
    web = load(write_project, f'ports: ["{port}"]').config.services["web"]
    assert web.ports == {"http": 80}
    assert web.default_publish_address("http") == address


def test_ranges_and_protocols_are_published_one_by_one(write_project: WriteProject) -> None:
    web = load(write_project, 'ports: ["6000-6001:7000-7001", "5353:53/udp", "5354:53"]').config.services["web"]
    addresses = {web.ports[name]: web.default_publish_address(name) for name in web.ports}
    assert addresses == {
        7000: "127.0.0.1:6000", 7001: "127.0.0.1:6001", "53/udp": "127.0.0.1:5353", 53: "127.0.0.1:5354"
    }  # fmt: skip


def test_named_port_leaves_the_others_their_place(write_project: WriteProject) -> None:
    text = 'ports: [{name: http, target: 3000, published: "80"}, "8080:8080"]\nexpose: [9000]'
    ports = load(write_project, text).config.services["web"].ports
    assert ports == {"http": 3000, "port-8080": 8080, "port-9000": 9000}


def test_open_interface_is_told(write_project: WriteProject) -> None:
    loaded = load(write_project, 'ports: ["8080:80", "0.0.0.0:8443:443", "9090:80"]')
    notes = list_notes(loaded)
    assert "unless it names an interface" in notes["services.web.ports[0]"]
    assert "published once" in notes["services.web.ports[2]"]
    settings = {setting.key: (setting.value, setting.origin) for setting in list_settings(loaded)}
    assert settings["services.web.publish.http"] == (8080, "compose.yaml:4")


def test_port_of_this_machine_alone_is_no_input(write_project: WriteProject) -> None:
    files = {".env": "PORT=9999\n"}
    write_project("services: {web: {image: 'nginx:1.27', ports: ['${PORT:-8080}:80']}}\n", FILES | files)
    loaded = load_config()
    assert loaded.config.services["web"].publish == {"http": 8080}
    assert not [path for path in loaded.input_files if path.name == ".env"]


def test_lyra_toml_publishes_elsewhere(write_project: WriteProject) -> None:
    toml = HEAD + '[services.web]\npublish = { http = "0.0.0.0:80" }\n'
    web = load(write_project, 'ports: ["8080:80"]', **{".lyra.toml": toml}).config.services["web"]
    assert web.default_publish_address("http") == "0.0.0.0:80"


def test_volume_of_several_services_is_one(write_project: WriteProject) -> None:
    more = """
          app:
            image: redis:7
            volumes: ["static:/srv/static", "own:/data", "./uploads:/uploads"]
          worker:
            image: redis:7
            volumes: ["./uploads:/var/uploads"]
        volumes: {static: {}, own: {}}
    """
    loaded = load(write_project, 'volumes: ["static:/usr/share/nginx/html:ro"]', textwrap.dedent(more))
    services = loaded.config.services
    web, app = services["web"].volumes["static"], services["app"].volumes["static"]
    assert (web.shared, web.read_only, app.shared, app.read_only) == ("static", True, "static", False)
    assert services["app"].volumes["own"].shared is None
    assert services["app"].volumes["uploads"].shared == services["worker"].volumes["uploads"].shared == "uploads"
    assert not [note for note in list_notes(loaded).values() if "shared" in note]


def test_shared_name_is_that_of_no_other_volume(write_project: WriteProject) -> None:
    more = """
          app: {image: "redis:7", volumes: ["web-data:/a", "plain:/b"]}
        volumes: {web-data: {}, data: {}, plain: {}}
    """
    services = load(write_project, 'volumes: ["web-data:/b", "data:/a"]', textwrap.dedent(more)).config.services
    assert services["web"].volumes["web-data"].shared == "web-data-2"


VOLUMES_FROM = """
      web2: {image: "nginx:1.27", volumes_from: ["web:ro"], volumes: ["own:/own"]}
      copy: {image: "redis:7", volumes_from: [web2]}
    volumes: {code: {}, own: {}}
"""


def test_volumes_of_another_service_are_shared(write_project: WriteProject) -> None:
    loaded = load(write_project, 'volumes: ["code:/www", "/anonymous", "./Dockerfile:/d:ro"]', VOLUMES_FROM)
    mounts = {
        name: {volume.path: (volume.shared, volume.read_only) for volume in service.volumes.values()}
        for name, service in loaded.config.services.items()
    }
    anonymous = mounts["web"]["/anonymous"][0]
    assert anonymous
    assert mounts == {
        "web": {"/www": ("code", False), "/anonymous": (anonymous, False)},
        "web2": {"/own": ("own", False), "/www": ("code", True), "/anonymous": (anonymous, True)},
        "copy": {"/own": ("own", False), "/www": ("code", True), "/anonymous": (anonymous, True)},
    }
    assert [config.path for config in loaded.config.services["copy"].configs.values()] == ["/d"]


@pytest.mark.parametrize(
    ("service", "fix"),
    [
        ("volumes_from: ['container:db']", "add the container as a service"),
        ("network_mode: service:db", "delete the key, and use the name db instead of localhost"),
        ("pid: service:db", "delete the key"),
        ("external_links: [db]", "name that in `depends_on`"),
        ("build: {context: ., dockerfile_inline: FROM scratch}", "set `dockerfile` to its name"),
        ("build: {context: ., additional_contexts: {lib: ./lib}}", "set `context` to a directory above all"),
        ("build: 'https://example.test/app.git'", "git submodule add https://example.test/app.git DIRECTORY"),
    ],
)
def test_refusal_says_what_to_do_instead(write_project: WriteProject, service: str, fix: str) -> None:
    more = "  db: {image: 'redis:7', ports: ['80']}\n  gone: {image: 'redis:7'}\nvolumes: {}\n"
    toml = HEAD + '[compose]\nignore = ["gone"]\n'
    with pytest.raises(ConfigurationError) as caught:
        load(write_project, service, more, **{".lyra.toml": toml})
    (detail,) = caught.value.details
    assert detail.startswith("compose.yaml:4: services.web")
    assert fix in detail
    paste = caught.value.hint.splitlines()[-1]
    assert paste == 'ignore = ["gone", "web"]'
    services = load(write_project, service, more, **{".lyra.toml": f"{HEAD}[compose]\n{paste}\n"}).config.services
    assert list(services) == ["db"]


def test_content_of_a_config_is_carried(write_project: WriteProject) -> None:
    more = """
        configs:
          site:
            content: |
              listen ${PORT:-80};
              set $$uri;
    """
    service = "configs: [{source: site, target: /etc/nginx/conf.d/default.conf}]"
    config = load(write_project, service, more).config.services["web"].configs["site"]
    assert (config.path, config.source) == ("/etc/nginx/conf.d/default.conf", None)
    assert config.content == "listen 80;\nset $uri;\n"


def test_variable_is_the_content_of_a_config(write_project: WriteProject) -> None:
    more = "configs: {motd: {environment: MOTD}}\n"
    loaded = load(write_project, "configs: [motd]", more, **{".env.example": "MOTD=hello\n"})
    assert loaded.config.services["web"].configs["motd"].content == "hello"


@pytest.mark.parametrize("content", ["postgres://app:hunter2hunter2@db/app", "password=${DB_PASSWORD:-hunter2hunter2}"])
def test_config_with_a_password_is_a_secret(write_project: WriteProject, content: str) -> None:
    loaded = load(write_project, "configs: [app]", f'configs: {{app: {{content: "{content}"}}}}\n')
    secret = loaded.config.services["web"].secrets["app"]
    assert secret.path == "/app"
    assert SHARED_TEST_VALUE in str(secret.test_value)
    assert "hunter2" not in (loaded.root / ".lyra" / "compose.json").read_text()
    assert any("it is a secret" in note for note in list_notes(loaded).values())


def test_file_takes_the_place_of_a_content(write_project: WriteProject) -> None:
    toml = HEAD + '[services.web.configs.site]\nsource = "Dockerfile"\n'
    loaded = load(write_project, "configs: [site]", "configs: {site: {content: x}}\n", **{".lyra.toml": toml})
    assert loaded.config.services["web"].configs["site"].source == "Dockerfile"
