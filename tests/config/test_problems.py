"""Test messages for invalid configurations: line, key, what is wrong and what is allowed; exit code 2."""

from __future__ import annotations

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.errors import ConfigurationError
from tests.config.conftest import MINIMAL, Project

IMAGE = '[images.web]\ncontext = "web"\n'
SERVICE = IMAGE + '[services.web]\nimage = "web"\n'

EXTERNAL_IS_IMAGE = "5: services.web.external: `external` is now `image`; rename it"

# id, text after the three lines of MINIMAL, the detail after ".lyra.toml:"
CASES: list[tuple[str, str, str]] = [
    ("unknown key", "[proxima]\ncpu = 2\n", '5: proxima.cpu: unknown key; did you mean "cpus"?'),
    ("unknown table", "[service.web]\n", '4: service: unknown table; did you mean "services"?'),
    (
        "key without similar key",
        "[engine]\nzzz = 1\n",
        "5: engine.zzz: unknown key; known: context, sandbox, suite",
    ),
    ("string for a number", '[proxima]\ncpus = "4"\n', "5: proxima.cpus: must be a number, found a string"),
    (
        "string for a boolean",
        SERVICE + 'read_only = "no"\n',
        "8: services.web.read_only: must be true or false, found a string",
    ),
    (
        "boolean for an integer",
        "[resources]\nkeep_runs = true\n",
        "5: resources.keep_runs: must be an integer, found a boolean",
    ),
    (
        "string for a table",
        'engine = "x"\n',
        "4: project.engine: unknown key; known: name, description, source, licenses",
    ),
    ("list for a table", "[[services]]\nimage = 1\n", "4: services: must be a table, found a list"),
    (
        "element of a list",
        SERVICE + 'command = [\n  "a",\n  5,\n]\n',
        "8: services.web.command[1]: must be a string, found an integer",
    ),
    (
        "unknown action on a change",
        SERVICE + '[services.web.dev]\non_change = "reload"\n',
        '9: services.web.dev.on_change: must be "restart" or "rebuild", found "reload"',
    ),
    (
        "rule for changes without an action",
        SERVICE + '[[services.web.dev.on_change]]\npaths = ["web"]\n',
        "8: services.web.dev.on_change[0].action: missing; it is required",
    ),
    (
        "misspelt key of a rule for changes",
        SERVICE + '[[services.web.dev.on_change]]\npaths = ["web"]\nignroe = []\naction = "restart"\n',
        '10: services.web.dev.on_change[0].ignroe: unknown key; did you mean "ignore"?',
    ),
    (
        "invalid pattern",
        SERVICE + '[services.web.dev]\non_change = [{ paths = ["web/[a"], action = "restart" }]\n',
        '9: services.web.dev.on_change[0].paths[0]: "web/[a" is not a pattern: syntax error in pattern',
    ),
    (
        "watched file outside the project",
        SERVICE + '[services.web.dev]\non_change = [{ paths = ["../other"], action = "restart" }]\n',
        '9: services.web.dev.on_change[0].paths[0]: "../other" is outside the project; '
        "use a path below the directory of .lyra.toml",
    ),
    (
        "sync without source volume and target",
        SERVICE + '[services.web.dev]\nsync = false\non_change = [{ paths = ["web"], action = "sync" }]\n',
        '10: services.web.dev.on_change[0].action: "sync" needs a target with sync = false; '
        "add a path in the container",
    ),
    (
        "source without source volume",
        SERVICE + '[services.web.dev]\nsync = false\nsource = "/app"\n',
        "10: services.web.dev.source: has no effect with sync = false; remove one of the two",
    ),
    (
        "neither string nor list",
        SERVICE + "command = 5\n",
        "8: services.web.command: must be a list or a string, found an integer",
    ),
    (
        "size in words",
        '[proxima]\nmemory = "lots"\n',
        '5: proxima.memory: "lots" is not a size; write a number with k, m or g, for example "64m" or "8g"',
    ),
    ("negative size", "[proxima]\nmemory = -1\n", '5: proxima.memory: -1 must be more than zero, for example "64m"'),
    (
        "size beyond every machine",
        f'[proxima]\nmemory = "{"9" * 400}"\n',
        '5: proxima.memory: "' + "9" * 59 + '…" is too large; write for example "8g"',
    ),
    (
        "unlimited memory",
        SERVICE + '[services.web.limits]\nmemory = "unlimited"\n',
        '9: services.web.limits.memory: "unlimited" is not a size; write a number with k, m or g, for example "64m" or'
        ' "8g"',
    ),
    (
        "unlimited processes",
        SERVICE + "[services.web.limits]\npids = -1\n",
        "9: services.web.limits.pids: must be at least 1, found -1",
    ),
    (
        "empty name",
        '[images.""]\ncontext = "web"\n',
        '4: images."": "" is not a valid name; allowed: lower-case letters, digits, ".", "_" and "-",'
        " beginning with a letter or digit, at most 63 characters",
    ),
    (
        "long name",
        f'[images.{"a" * 300}]\ncontext = "web"\n',
        f'4: images."{"a" * 59}…": "{"a" * 59}…" is not a valid name; allowed: lower-case letters, digits, ".", "_" and'
        ' "-", beginning with a letter or digit, at most 63 characters',
    ),
    ("infinite number", "[proxima]\ncpus = inf\n", "5: proxima.cpus: must be a finite number"),
    ("share above one", "[resources]\nhost_share = 1.5\n", "5: resources.host_share: must be at most 1, found 1.5"),
    (
        "port out of range",
        SERVICE + "ports = { http = 70000 }\n",
        "8: services.web.ports.http: must be at most 65535, found 70000",
    ),
    ("port zero", SERVICE + "ports = { http = 0 }\n", "8: services.web.ports.http: must be at least 1, found 0"),
    (
        "duplicate port",
        SERVICE + "ports = { http = 80, admin = 80 }\n",
        '8: services.web.ports.admin: 80 already has the name "http"; give each port one name',
    ),
    (
        "name with capitals",
        '[images.Web]\ncontext = "web"\n',
        '4: images.Web: "Web" is not a valid name; allowed: lower-case letters, digits, ".", "_" and "-",'
        " beginning with a letter or digit, at most 63 characters",
    ),
    (
        "name invalid in a reference",
        '[images.web-]\ncontext = "web"\n',
        '4: images.web-: "web-" is not valid in an image reference; allowed: single ".", "_" or "-" between letters'
        " and digits",
    ),
    ("choice", '[engine]\nsandbox = "yes"\n', '5: engine.sandbox: must be "auto" or "never" or "always", found "yes"'),
    (
        "date in quotes",
        '[[deviations]]\nrule = "r"\nscope = "s"\nreason = "why"\nowner = "ada"\nexpires = "2027-03-31"\n',
        "9: deviations[0].expires: must be a date without quotes, such as 2027-03-31, found a string",
    ),
    (
        "blank reason",
        '[[deviations]]\nrule = "r"\nscope = "s"\nreason = " "\nowner = "ada"\nexpires = 2027-03-31\n',
        '7: deviations[0].reason: " " must not be blank',
    ),
    ("missing key", "[images.web]\n", "4: images.web.context: missing; it is required"),
    (
        "terminal escape in a value",
        'description = "redis\\u001b[2J"\n',
        '4: project.description: "redis\\u001b[2J" contains control characters; write plain text',
    ),
    (
        "newline in a value",
        'description = "a\\nb"\n',
        '4: project.description: "a\\nb" must be a single line',
    ),
    (
        "relative container path",
        SERVICE + '[services.web.volumes.data]\npath = "data"\n',
        '9: services.web.volumes.data.path: "data" is not a path in a container; allowed: an absolute path without ":",'
        ' not ending in "/", such as "/data"',
    ),
    ("old key of a third-party image", '[services.web]\nexternal = "redis:7"\n', EXTERNAL_IS_IMAGE),
    ("both keys of an image", SERVICE + 'external = "redis:7"\n', EXTERNAL_IS_IMAGE.replace("5:", "8:", 1)),
    ("no image", "[services.web]\n", "4: services.web.image: missing; it is required"),
    (
        "no image reference",
        '[services.web]\nimage = "Redis"\n',
        '5: services.web.image: "Redis" is not an image reference; allowed: a name in lower case, with a registry, a '
        'tag and a digest if needed, such as "redis:7"',
    ),
    (
        "id of an image",
        f'[services.web]\nimage = "sha256:{"0" * 64}"\n',
        "5: services.web.image: is the id of an image, which only one engine knows; write its reference",
    ),
    (
        "endless reference",
        f'[services.web]\nimage = "{"a" * 256}"\n',
        "5: services.web.image: is longer than an engine takes, 255 characters without the tag",
    ),
    *(
        (
            f"{written} for an own image",
            SERVICE + f'[services.b]\nimage = "{written}"\n',
            f'9: services.b.image: "{written}" is not defined in [images]; did you mean "web"? A third-party image of '
            f'this name is written "{full_reference}"',
        )
        for written, full_reference in (
            ("wbe", "docker.io/library/wbe:latest"),
            ("webb", "docker.io/library/webb:latest"),
            ("wep:1", "docker.io/library/wep:1"),
            ("web:latest", "docker.io/library/web:latest"),
            ("guestbook/web", "docker.io/guestbook/web:latest"),
        )
    ),
    (
        "own image with the name of a third-party image's service",
        IMAGE + '[services.b]\nimage = "web"\n[services.web]\nimage = "redis:7"\n',
        '8: services.web: runs the third-party image "redis:7", and [images.web] has the same name: rename one, since '
        "a third-party image has the name of its service",
    ),
    (
        "platform of an own image",
        SERVICE + 'platform = "linux/amd64"\n',
        "8: services.web.platform: is for third-party images; set platforms in [images.web]",
    ),
    (
        "platform of a third-party image outside of proxima",
        '[services.web]\nimage = "redis:7"\nplatform = "linux/arm64"\n',
        '6: services.web.platform: Proxima does not run "linux/arm64"; proxima.platforms has linux/amd64',
    ),
    (
        "name of a service that is no name of an image",
        '[services.web-]\nimage = "redis:7"\n',
        '4: services.web-: "web-" is not valid in an image reference; allowed: single ".", "_" or "-" between letters'
        " and digits",
    ),
    (
        "unknown dependency",
        SERVICE + 'depends_on = ["counter"]\n',
        '8: services.web.depends_on: "counter" is not defined in [services]; defined: "web"',
    ),
    (
        "dependency on itself",
        SERVICE + 'depends_on = ["web"]\n',
        "8: services.web.depends_on: dependency cycle web -> web; remove one of these dependencies",
    ),
    (
        "cycle",
        '[services.a]\nimage = "x"\ndepends_on = ["b"]\n[services.b]\nimage = "x"\ndepends_on = ["c"]\n'
        '[services.c]\nimage = "x"\ndepends_on = ["a"]\n',
        "6: services.a.depends_on: dependency cycle a -> b -> c -> a; remove one of these dependencies",
    ),
    (
        "base without a source",
        "[bases.python]\n",
        "4: bases.python: has no source; give image, archive or rootfs",
    ),
    (
        "unknown base",
        IMAGE + 'bases = { "python:3" = "python" }\n',
        '6: images.web.bases."python:3": "python" is not defined in [bases]; the table is empty',
    ),
    (
        "secret with a default",
        SERVICE + '[services.web.environment]\nX = { secret = true, default = "hunter2" }\n',
        "9: services.web.environment.X.default: a secret has no default; use test_value for what tests need",
    ),
    (
        "default that looks like a secret",
        SERVICE + '[services.web.environment.API_TOKEN]\ndefault = "hunter2"\n',
        "9: services.web.environment.API_TOKEN.default: looks like a secret; set secret = true, and test_value for what"
        " tests need, or secret = false",
    ),
    (
        "build argument that looks like a secret",
        IMAGE + '[images.web.args]\nNPM_TOKEN = "hunter2"\n',
        "7: images.web.args.NPM_TOKEN: looks like a secret, and arguments stay in the image's history; use secrets of"
        " the image",
    ),
    (
        "invalid pattern",
        SERVICE + '[services.web.environment.X]\npattern = "["\n',
        "9: services.web.environment.X.pattern: is not a valid regular expression: unterminated character set "
        "at position 0",
    ),
    (
        "two mounts at one path",
        SERVICE + 'tmpfs = { "/data" = "1m" }\n[services.web.volumes.data]\npath = "/data"\n',
        '10: services.web.volumes.data.path: "/data" is already used by services.web.tmpfs."/data"; choose '
        "another path",
    ),
    (
        "two defaults for one variable in .env",
        IMAGE
        + '[services.a]\nimage = "web"\n[services.a.environment]\nX = { default = "a}b" }\n'
        + '[services.b]\nimage = "web"\n[services.b.environment]\nX = { default = "c" }\n',
        "9: services.a.environment.X.default: goes into .env for all services because of its braces, but "
        "services.b has another; give both the same",
    ),
    (
        "two volumes with one name on Proxima",
        IMAGE
        + '[services.a]\nimage = "web"\n[services.a.volumes.b-c]\npath = "/x"\n'
        + '[services.a-b]\nimage = "web"\n[services.a-b.volumes.c]\npath = "/x"\n',
        "12: services.a-b.volumes.c: collides with services.a.volumes.b-c: both are the volume a-b-c on Proxima; "
        "choose another name",
    ),
    (
        "two secrets with one variable",
        SERVICE + '[services.web.secrets]\na-b = { path = "/x" }\n"a.b" = { path = "/y" }\n',
        '10: services.web.secrets."a.b": collides with services.web.secrets.a-b: both are the variable WEB_A_B_FILE on '
        "Proxima; choose another name",
    ),
    (
        "port with the variable of another service",
        IMAGE
        + '[services.other]\nimage = "web"\n[services.other.environment]\nWEB_HTTP_PUBLISH = {}\n'
        + '[services.web]\nimage = "web"\nports = { http = 80 }\n',
        "12: services.web.ports.http: collides with services.other.environment.WEB_HTTP_PUBLISH: both are the variable "
        "WEB_HTTP_PUBLISH on Proxima; choose another name",
    ),
    (
        "address of a port that does not exist",
        SERVICE + "ports = { http = 80 }\npublish = { https = 443 }\n",
        "9: services.web.publish.https: is not the name of a port in ports; add it there, or remove this",
    ),
    (
        "address without a port",
        SERVICE + 'ports = { http = 80 }\npublish = { http = "localhost:80" }\n',
        '9: services.web.publish.http: "localhost:80" is not IP:PORT, such as "0.0.0.0:8080" or "[::1]:8080"',
    ),
    (
        "template of a variable that does not exist",
        SERVICE + '[services.web.environment]\nURL = { secret = true, template = "http://a:${NOPE}@b/" }\n',
        "9: services.web.environment.URL.template: NOPE is no variable of a service that has a value itself; name one",
    ),
    (
        "config without an origin",
        SERVICE + '[services.web.configs]\nsite = { path = "/x" }\n',
        "9: services.web.configs.site: a table needs either source or content",
    ),
    (
        "mount below a file",
        SERVICE
        + '[services.web.secrets.key]\npath = "/run/key"\n[services.web.volumes.data]\npath = "/run/key/deep/data"\n',
        '11: services.web.volumes.data.path: is below "/run/key", which is a file: services.web.secrets.key.path',
    ),
    (
        "path with dots",
        SERVICE + '[services.web.volumes.data]\npath = "/srv/../data"\n',
        '9: services.web.volumes.data.path: must be a normalized path; write "/data"',
    ),
    (
        "path with two slashes at the beginning",
        SERVICE + '[services.web.volumes.data]\npath = "//data"\n',
        '9: services.web.volumes.data.path: must be a normalized path; write "/data"',
    ),
    (
        "memory below the minimum",
        SERVICE + '[services.web.limits]\nmemory = "5m"\n',
        '9: services.web.limits.memory: must be at least "6m", the least Docker can enforce',
    ),
    (
        "two kinds of healthcheck",
        SERVICE + "ports = { http = 80 }\n[services.web.healthcheck]\ntcp = 80\nhttp = 'GET /'\n",
        "9: services.web.healthcheck: must have exactly one of exec, http and tcp, found http and tcp",
    ),
    (
        "healthcheck with an unknown port",
        SERVICE + "ports = { http = 80 }\n[services.web.healthcheck]\ntcp = 81\n",
        "10: services.web.healthcheck.tcp: the service has no TCP port 81; its ports are http = 80",
    ),
    (
        "healthcheck with a UDP port",
        SERVICE + "ports = { dns = '53/udp' }\n[services.web.healthcheck]\ntcp = 'dns'\n",
        '10: services.web.healthcheck.tcp: the service has no TCP port "dns"; its ports are dns = 53/udp',
    ),
    (
        "http without a TCP port",
        SERVICE + "ports = { http = '443/udp' }\n[[tests]]\nname = 't'\nservice = 'web'\nhttp = 'GET /'\n",
        '12: tests[0].http: needs a port named "http", or only one port; its ports are http = 443/udp',
    ),
    (
        "port of an unknown protocol",
        SERVICE + "ports = { x = '53/sctp' }\n",
        '8: services.web.ports.x: "53/sctp" is not a port; '
        'allowed: a number from 1 to 65535, or one with "/udp", such as "53/udp"',
    ),
    (
        "UDP port out of range",
        SERVICE + "ports = { x = '65536/udp' }\n",
        '8: services.web.ports.x: "65536/udp" is not a port; '
        'allowed: a number from 1 to 65535, or one with "/udp", such as "53/udp"',
    ),
    (
        "header with two lines",
        SERVICE
        + 'ports = { http = 80 }\n[[tests]]\nname = "t"\nservice = "web"\nhttp = "GET /"\nheaders.Cookie = "a\\n"\n',
        "13: tests[0].headers.Cookie: a string must be a single line",
    ),
    (
        "value invalid in JSON",
        SERVICE
        + 'ports = { http = 80 }\n[[tests]]\nname = "t"\nservice = "web"\nhttp = "GET /"\njson.a = [1, 10:00:00]\n',
        "13: tests[0].json.a[1]: must be a JSON value, found a time; write it as in the response",
    ),
    (
        "check without a kind",
        '[[tests]]\nname = "t"\nservice = "web"\n' + SERVICE,
        "4: tests[0]: must have exactly one of http, exec, tcp, log, run, pytest, junit, stage, structure, found none",
    ),
    (
        "check of two kinds",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\nexec = "true"\nlog = "x"\n',
        "8: tests[0]: must have exactly one of http, exec, tcp, log, run, pytest, junit, stage, structure, "
        "found exec and log",
    ),
    (
        "suite that does not exist",
        '[[tests]]\nname = "t"\npytest = "tests/nowhere"\n',
        '6: tests[0].pytest: "tests/nowhere" does not exist; name a directory or a file with tests',
    ),
    (
        "suite outside of the project",
        '[[tests]]\nname = "t"\npytest = "../tests"\n',
        '6: tests[0].pytest: "../tests" is outside the project; use a path below the directory of .lyra.toml',
    ),
    (
        "suite with retries",
        '[[tests]]\nname = "t"\npytest = "."\nretry = 2\n',
        "7: tests[0].retry: pytest checks have no retry, since each of their tests has a result of its own; "
        "let the runner retry",
    ),
    (
        "report that may be something else",
        '[[tests]]\nname = "t"\njunit = { run = "make", file = "Makefile" }\n',
        '6: tests[0].junit.file: "Makefile" must end with .xml; it is removed before each run',
    ),
    (
        "check without a service",
        '[[tests]]\nname = "t"\nexec = "true"\n',
        "4: tests[0]: exec checks need service; name one of [services]",
    ),
    (
        "check of an unknown service",
        SERVICE + '[[tests]]\nname = "t"\nservice = "wep"\nexec = "true"\n',
        '10: tests[0].service: "wep" is not defined in [services]; defined: "web"',
    ),
    (
        "check with the target of another kind",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\nimage = "web"\nexec = "true"\n',
        "11: tests[0].image: exec checks have no image; they need service",
    ),
    (
        "request without a method",
        SERVICE + 'ports = { http = 80 }\n[[tests]]\nname = "t"\nservice = "web"\nhttp = "/"\n',
        '12: tests[0].http: "/" is not a request; write a method and a path, such as "GET /"',
    ),
    (
        "request to one of several ports",
        SERVICE + 'ports = { a = 80, b = 81 }\n[[tests]]\nname = "t"\nservice = "web"\nhttp = "GET /"\n',
        '12: tests[0].http: needs a port named "http", or only one port; its ports are a = 80, b = 81',
    ),
    (
        "unknown port name",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\ntcp = "db"\n',
        '11: tests[0].tcp: the service has no TCP port "db"; it has no ports',
    ),
    (
        "status without http",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\nexec = "true"\nstatus = 200\n',
        "12: tests[0].status: is for http checks only, found exec",
    ),
    (
        "output without exec",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\nlog = "x"\noutput = "y"\n',
        "12: tests[0].output: is for exec checks only, found log",
    ),
    (
        "invalid log pattern",
        SERVICE + '[[tests]]\nname = "t"\nservice = "web"\nlog = "("\n',
        "11: tests[0].log: is not a valid regular expression: missing ), unterminated subpattern at position 0",
    ),
    (
        "duplicate check name",
        SERVICE
        + '[[tests]]\nname = "t"\nservice = "web"\nlog = "x"\n[[tests]]\nname = "t"\nservice = "web"\nlog = "y"\n',
        "13: tests[1].name: is already the name of tests[0]; give each check its own",
    ),
    (
        "tag without a version",
        '[release]\ntag = "release"\n',
        '5: release.tag: must contain {version} once and no spaces, such as "v{version}"',
    ),
    (
        "credentials in the source URL",
        'source = "https://ada:hunter2@example.org/x"\n',
        "4: project.source: contains credentials; write the URL without them",
    ),
    (
        "context outside",
        '[images.web]\ncontext = "../web"\n',
        '5: images.web.context: "../web" is outside the project; use a path below the directory of .lyra.toml',
    ),
    (
        "context with too long a name",
        f'[images.web]\ncontext = "{"x" * 300}"\n',
        f'5: images.web.context: "{"x" * 59}…" is not a directory in the project',
    ),
    (
        "absolute context",
        '[images.web]\ncontext = "/etc"\n',
        '5: images.web.context: "/etc" is outside the project; use a path below the directory of .lyra.toml',
    ),
    (
        "missing context",
        '[images.web]\ncontext = "wep"\n',
        '5: images.web.context: "wep" is not a directory in the project',
    ),
    (
        "missing Dockerfile",
        IMAGE + 'dockerfile = "Other"\n',
        '6: images.web.dockerfile: Dockerfile "web/Other" does not exist',
    ),
    (
        "missing source of a config",
        SERVICE + '[services.web.configs.site]\npath = "/etc/site"\nsource = "web/none.toml"\n',
        '10: services.web.configs.site.source: file "web/none.toml" does not exist',
    ),
    (
        "archive outside",
        '[bases.b]\narchive = "../b.tar"\n',
        '5: bases.b.archive: "../b.tar" is outside the project; use a path below the directory of .lyra.toml',
    ),
    (
        "archive that is the only source",
        '[bases.b]\narchive = "b.tar"\n',
        '5: bases.b.archive: file "b.tar" does not exist',
    ),
    (
        "one cache for several images",
        IMAGE + "[images.b]\ncontext = 'web'\n[builder]\ncache_to = ['type=local,dest=cache']\n",
        "9: builder.cache_to: each image would overwrite the cache of the last one; add {image} to "
        '"type=local,dest=cache"',
    ),
    (
        "duplicate platform",
        '[proxima]\nplatforms = ["linux/amd64", "linux/amd64"]\n',
        '5: proxima.platforms: "linux/amd64" is listed twice; keep one',
    ),
    (
        "platforms of one architecture",
        '[proxima]\nplatforms = ["linux/arm/v6", "linux/arm/v7"]\n',
        '5: proxima.platforms: engines do not tell "linux/arm/v6" and "linux/arm/v7" apart; keep one',
    ),
    (
        "images without a common platform",
        '[proxima]\nplatforms = ["linux/amd64", "linux/arm64"]\n'
        + IMAGE
        + 'platforms = ["linux/amd64"]\n[images.b]\ncontext = "web"\nplatforms = ["linux/arm64"]\n'
        + '[services.web]\nimage = "web"\n[services.b]\nimage = "b"\n',
        "11: images.b.platforms: has no platform in common with the other promoted images, but one node runs "
        "all of them",
    ),
    (
        "platform outside of proxima",
        IMAGE + 'platforms = ["linux/arm64"]\n',
        '6: images.web.platforms: Proxima does not run "linux/arm64"; proxima.platforms has linux/amd64',
    ),
    (
        "missing archive of a platform",
        '[proxima]\nplatforms = ["linux/arm64"]\n[bases.b]\narchive = "b-{platform}.tar"\n',
        '7: bases.b.archive: file "b-linux-arm64.tar" does not exist',
    ),
    (
        "duplicate key",
        "[proxima]\ncpus = 1\ncpus = 2\n",
        "6: proxima.cpus: written twice, first on line 5; keep one of them",
    ),
    (
        "duplicate table",
        "[proxima]\n[engine]\n[proxima]\n",
        "6: proxima: written twice, first on line 4; keep one of them",
    ),
    (
        "syntax",
        "[proxima]\ncpus = 1 2\n",
        "5:10: not valid TOML: Expected newline or end of document after a statement",
    ),
    (
        "unknown resource limit",
        SERVICE + "ulimits = { files = 1 }\n",
        '8: services.web.ulimits.files: "files" is not a resource limit; allowed: core, cpu, data, fsize, locks, '
        "memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
    ),
    (
        "resource limit below none",
        SERVICE + "ulimits = { nofile = -2 }\n",
        "8: services.web.ulimits.nofile: must be at least -1, found -2",
    ),
    (
        "soft limit alone",
        SERVICE + "ulimits = { nofile = { soft = 1 } }\n",
        "8: services.web.ulimits.nofile.hard: missing; it is required",
    ),
    (
        "soft limit above hard limit",
        SERVICE + "ulimits = { nofile = { soft = 2, hard = 1 } }\n",
        "8: services.web.ulimits.nofile.soft: must be at most hard, which is 1",
    ),
    (
        "kernel parameter without quotes",
        SERVICE + "sysctls = { net.core.somaxconn = 1 }\n",
        '8: services.web.sysctls.net: "net" is not a kernel parameter; allowed: its name in quotes, such as '
        '"net.core.somaxconn"',
    ),
    (
        "kernel parameter of the host",
        SERVICE + 'sysctls = { "vm.swappiness" = 1 }\n',
        '8: services.web.sysctls."vm.swappiness": belongs to the whole host, not to a container; allowed: net.*, '
        "fs.mqueue.*, kernel.msg*, sem, shm*",
    ),
    (
        "shared memory above memory",
        SERVICE + 'shm_size = "1g"\n',
        '8: services.web.shm_size: must not be more than limits.memory, which it is part of: "256m"',
    ),
    (
        "address of a further host",
        SERVICE + 'extra_hosts = { db = "host-gateway" }\n',
        '8: services.web.extra_hosts.db: "host-gateway" is not an IP address; the host itself cannot be reached',
    ),
    (
        "host name",
        SERVICE + 'hostname = "-web"\n',
        '8: services.web.hostname: "-web" is not a host name; allowed: letters, digits, ".", "_" and "-", beginning '
        "and ending with a letter or digit, at most 63 characters",
    ),
    (
        "alias of another service",
        SERVICE + 'aliases = ["db"]\n[services.db]\nimage = "redis:7"\n',
        '8: services.web.aliases[0]: "db" is the name of another service',
    ),
    (
        "grace period",
        SERVICE + 'stop_grace_period = "soon"\n',
        '8: services.web.stop_grace_period: "soon" is not a duration; write for example "30s", "1m30s" or "500ms"',
    ),
    (
        "duration of many digits",
        f'{SERVICE}[services.web.healthcheck]\nexec = "true"\ninterval = 1{"0" * 400}\n',
        f"10: services.web.healthcheck.interval: 1{'0' * 59} must be more than zero and at most a day, for example "
        '"30s"',
    ),
    (
        "endless key",
        f"[proxima]\n{'x' * 5000} = 1\n",
        f'5: proxima."{"x" * 59}…": unknown key; known: platforms, min_engine, cpus, memory, max_image_size',
    ),
    ("dotted key of many parts", f"\nx{'.x' * 1500} = 1\n", "5: nested too deeply"),
    ("many brackets", f"[proxima]\ncpus = {'[' * 5000}\n", "5: nested too deeply"),
    ("number of many digits", f"[proxima]\ncpus = {'1' * 5000}\n", "6:1: not valid TOML: a value is out of range"),
    (
        "name of a header",
        SERVICE + 'ports = { http = 80 }\n[[tests]]\nname = "x"\nservice = "web"\nhttp = "GET /"\n'
        'headers = { "Accept Language" = "de" }\n',
        '13: tests[0].headers."Accept Language": "Accept Language" is not the name of a header; write one such as '
        "Accept-Language",
    ),
    ("invalid date", "[x]\ny = 2027-02-30\n", "5:5: not valid TOML: Invalid date or datetime"),
]


@pytest.mark.parametrize(("text", "detail"), [pytest.param(text, detail, id=name) for name, text, detail in CASES])
def test_problem_names_line_key_and_allowed_values(project: Project, text: str, detail: str) -> None:
    project(MINIMAL + text)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == (f".lyra.toml:{detail}",)
    assert caught.value.message == "1 problem in .lyra.toml"
    assert caught.value.exit_code == 2
    assert "hunter2" not in repr(caught.value.details)


def test_all_problems_are_listed_in_file_order(project: Project) -> None:
    project(
        MINIMAL
        + '[proxima]\ncpus = "4"\nmemory = "lots"\n'
        + '[services.web]\nimage = "Wep"\nlimitz = 1\n[services.web.volumes.data]\nowner = "me"\n'
        + '[[tests]]\nservice = "web"\nhtp = "GET /"\n[[tests]]\nname = "t"\nservice = "db"\nlog = "x"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.message == "9 problems in .lyra.toml"
    assert [detail.split(": ")[0] + " " + detail.split(": ")[1] for detail in caught.value.details] == [
        ".lyra.toml:5 proxima.cpus",
        ".lyra.toml:6 proxima.memory",
        ".lyra.toml:8 services.web.image",
        ".lyra.toml:9 services.web.limitz",
        ".lyra.toml:10 services.web.volumes.data.path",
        ".lyra.toml:11 services.web.volumes.data.owner",
        ".lyra.toml:12 tests[0].name",
        ".lyra.toml:14 tests[0].htp",
        ".lyra.toml:17 tests[1].service",
    ]


def test_one_mistake_is_reported_once(project: Project) -> None:
    project(
        MINIMAL
        + '[images.web]\ncontext = 5\n[services.web]\nimage = "web"\nports = { http = "80" }\n'
        + '[[tests]]\nname = "t"\nservice = "web"\nhttp = "GET /"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert [detail.split(": ")[1] for detail in caught.value.details] == [
        "images.web.context",
        "services.web.ports.http",
    ]


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("", (":1: project.name: missing; it is required", ":1: schema: missing; write schema = 1")),
        ("schema = 1\nproject = 5\n", (":2: project: must be a table, found an integer",)),
        (
            "schema = 2\nfuture = true\n",
            (":1: schema: is 2, newer than 1, the newest known here; upgrade lyra-tasks",),
        ),
        ("schema = 0\n", (":1: schema: must be 1, found 0",)),
        ("schema = true\n", (":1: schema: must be an integer, found a boolean",)),
        (
            'schema = 1\n[project]\nname = "../x"\n',
            (
                ':3: project.name: "../x" is not a valid name; allowed: lower-case letters, digits, ".", "_" and "-",'
                " beginning with a letter or digit, at most 63 characters",
            ),
        ),
        ("x = " + "[" * 100_000, (":1: nested too deeply",)),
        ("x = " + "9" * 5000, (":1:5005: not valid TOML: a value is out of range",)),
    ],
    ids=["empty", "project", "newer schema", "older schema", "schema of another type", "name", "nested", "number"],
)
def test_invalid_document_is_refused(project: Project, text: str, details: tuple[str, ...]) -> None:
    project(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == tuple(f".lyra.toml{detail}" for detail in details)


def test_problems_never_show_test_values_and_secrets(project: Project) -> None:
    project(
        MINIMAL
        + SERVICE
        + '[services.web.environment.A]\ntest_value = "hunter2\\u0007"\n[services.web.secrets.k]\npath = "hunter2"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert len(caught.value.details) == 2
    assert "hunter2" not in repr(caught.value.details)
