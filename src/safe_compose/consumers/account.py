"""Which role's password it is: told from a service's image and environment, or from the connection strings of its clients."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safe_compose import dsn

_IMAGES = {
    "postgres": re.compile(r"postgres|postgis|timescale|pgvector|pgrouting|citus|cloudnative-pg"),
    "mysql": re.compile(r"mysql|mariadb|percona"),
}
_INSIDE = {"PG_MAJOR": "postgres", "MARIADB_VERSION": "mysql", "MYSQL_VERSION": "mysql"}
VARIABLES = {
    "postgres": (("POSTGRES_USER", "POSTGRES_PASSWORD", "postgres"),),
    "mysql": (
        ("MARIADB_ROOT_USER", "MARIADB_ROOT_PASSWORD", "root"),
        ("MYSQL_ROOT_USER", "MYSQL_ROOT_PASSWORD", "root"),
        ("MARIADB_USER", "MARIADB_PASSWORD", ""),
        ("MYSQL_USER", "MYSQL_PASSWORD", ""),
    ),
}
"""Kind -> (variable of the role, variable of its password, the role where that variable is not set), by the official images."""


@dataclass(frozen=True, slots=True)
class Account:
    """The role whose password changes, as the project's files know it."""

    service: str
    kind: str
    """`postgres` or `mysql`."""
    user: str
    password: str = field(repr=False)
    """What the files hold now."""
    variables: tuple[str, ...] = ()
    """Keys in the service's own environment that hold it."""
    file: str | None = None
    """Or the file that holds it (`POSTGRES_PASSWORD_FILE`), on this machine."""


class Unfit(ValueError):
    """The account cannot be told from the model; the message says why, without any value."""


def kind_of(body: Mapping[str, Any], inside: Mapping[str, str] | None = None) -> str | None:
    """Whether a service of the model is a database server, by the name of its image; where that is built here and has none, by what
    its container has `inside`: variables of the official images."""
    if not body.get("image"):
        return next((kind for name, kind in _INSIDE.items() if name in (inside or {})), None)
    image = str(body.get("image") or "").rpartition("/")[2].partition("@")[0].lower()
    if re.search(r"exporter|bouncer|pgadmin|adminer|backup|client|proxy", image):
        return None
    return next((kind for kind, pattern in _IMAGES.items() if pattern.search(image)), None)


def serves(body: Mapping[str, Any], inside: Mapping[str, str] | None = None) -> str | None:
    """The kind of a service that its image would make a server with a password; a client of the same image is told none."""
    kind = kind_of(body, inside)
    told = environment(body)
    return kind if kind and any(told.get(name) for _, key, _ in VARIABLES[kind] for name in (key, f"{key}_FILE")) else None


def environment(body: Mapping[str, Any]) -> dict[str, str]:
    """A service's environment as its containers get it: `config` doubles every dollar sign."""
    given = body.get("environment")
    return {k: str(v).replace("$$", "$") for k, v in given.items() if v is not None} if isinstance(given, dict) else {}


def account(
    model: Mapping[str, Any],
    service: str,
    user: str | None,
    read: Callable[[str], str | None],
    inside: Mapping[str, str] | None = None,
) -> Account:
    """The account of a service. `read` gives the text of a file of this machine, `inside` is as of `kind_of`. Raises Unfit."""
    body = services(model).get(service)
    if body is None:
        there = ", ".join(name for name, b in services(model).items() if serves(b)) or "none"
        raise Unfit(f"this project has no service {service}; database services of it: {there}")
    kind = kind_of(body, inside)
    if kind is None:
        raise Unfit(f"service {service} is no PostgreSQL, MySQL or MariaDB server, as far as its image tells")
    told = environment(body)
    for role_key, key, default in VARIABLES[kind]:
        role = told.get(role_key) or default
        if not role or (user is not None and user != role):
            continue
        names = tuple(k for r, k, d in VARIABLES[kind] if k in told and (told.get(r) or d) == role)
        if len({told[name] for name in names}) > 1:
            raise Unfit(f"service {service}: {' and '.join(names)} differ")
        if told.get(key):
            if told.get(f"{key}_FILE"):
                raise Unfit(f"service {service} has {key} and {key}_FILE; its image takes only one of them")
            return Account(service, kind, role, told[key], names)
        if told.get(f"{key}_FILE"):
            path = file_of(model, service, told[f"{key}_FILE"])
            held = read(path) if path is not None else None
            if path is None or held is None:
                raise Unfit(f"service {service}: the file of {key}_FILE is none of this machine that could be read and edited")
            return Account(service, kind, role, held.rstrip("\r\n"), (), path)
    if user is None:
        raise Unfit(f"service {service} says no password: none of {', '.join(k for _, k, _ in VARIABLES[kind])} is set")
    known = hosts(model, service)
    used = {f.password for s in strings(model) for f in dsn.passwords(s.value) if f.user == user and f.host in known}
    if len(used) != 1:
        said = "several different passwords are" if used else "no password is"
        raise Unfit(f"{said} used for {user} at {service} in the connection strings of this project")
    return Account(service, kind, user, used.pop())


def hosts(model: Mapping[str, Any], server: str) -> frozenset[str]:
    """Names under which a service's server may be meant: its own, poolers and proxies of the project, published ports. Not those of
    the project's other database servers."""
    names: set[str] = {"localhost", "127.0.0.1", "::1", "host.docker.internal"}
    others: set[str] = set()
    for service, body in services(model).items():
        mine = {service, str(body.get("container_name") or service), str(body.get("hostname") or service)}
        networks = body.get("networks")
        for network in (networks or {}).values() if isinstance(networks, dict) else ():
            mine |= set(map(str, (network or {}).get("aliases") or ()))
        mine |= {f"{model.get('name', '')}-{service}-1"}
        (others if service != server and serves(body) else names).update(mine)
    return frozenset(names - (others - {server}))


def file_of(model: Mapping[str, Any], service: str, inside: str) -> str | None:
    """The file of this machine that a service sees under a path; None for what no file of this machine is mounted at."""
    return next((file for file, place in mounted_files(model, service) if place == inside), None)


def mounted_files(model: Mapping[str, Any], service: str) -> Iterator[tuple[str, str]]:
    """(file on this machine, path inside) of a service's secrets, configurations and bind mounts."""
    body = services(model).get(service) or {}
    for kind, folder in (("secrets", "/run/secrets"), ("configs", "")):
        declared = model.get(kind)
        for use in body.get(kind) or ():
            name = use if isinstance(use, str) else str(use.get("source", ""))
            target = str((use.get("target") if isinstance(use, dict) else None) or name)
            about = declared.get(name) if isinstance(declared, dict) else None
            if isinstance(about, dict) and about.get("file"):
                yield str(about["file"]), target if target.startswith("/") else f"{folder}/{target}"
    for mount in body.get("volumes") or ():
        if isinstance(mount, dict) and mount.get("type") == "bind":
            yield str(mount.get("source", "")), str(mount.get("target", ""))


# -- the model ---------------------------------------------------------------------------------------------------------


class String(NamedTuple):
    """One string of the model."""

    path: tuple[str, ...]
    value: str


def services(model: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> what the model says of it."""
    found = model.get("services")
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def strings(model: Any, path: tuple[str, ...] = ()) -> Iterator[String]:
    """Every string of the model, with single dollar signs."""
    if isinstance(model, dict):
        for key, value in model.items():
            yield from strings(value, (*path, str(key)))
    elif isinstance(model, list):
        for number, value in enumerate(model):
            yield from strings(value, (*path, str(number)))
    elif isinstance(model, str):
        yield String(path, model.replace("$$", "$"))
