"""The role a password belongs to, by a service's image and environment or its clients' settings."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safe_compose.credentials import dsn

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
"""Kind of server, mapped to (variable of the role, variable of its password, role if that variable
is not set) as the official images define them.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """The role whose password changes, as the project's files describe it."""

    service: str
    kind: str
    """`postgres` or `mysql`."""
    user: str
    password: str = field(repr=False)
    """The password that the files hold now."""
    variables: tuple[str, ...] = ()
    """Keys of the service's own environment that hold it."""
    file: str | None = None
    """Path on this machine of the file that holds it instead (`POSTGRES_PASSWORD_FILE`)."""


class UnsupportedAccount(ValueError):
    """The account cannot be determined from the model; the message says why, without any value."""


def find_kind(body: Mapping[str, Any], inside: Mapping[str, str] | None = None) -> str | None:
    """Return the kind of database server that a service is, by the name of its image.

    If the image is built here and has no name, `inside` decides: the environment of its container,
    where the official images set variables of their own.

    Returns:
        `postgres`, `mysql`, or None if the service is no database server.
    """
    if not body.get("image"):
        return next((kind for name, kind in _INSIDE.items() if name in (inside or {})), None)
    image = str(body.get("image") or "").rpartition("/")[2].partition("@")[0].lower()
    if re.search(r"exporter|bouncer|pgadmin|adminer|backup|client|proxy", image):
        return None
    return next((kind for kind, pattern in _IMAGES.items() if pattern.search(image)), None)


def serves(body: Mapping[str, Any], inside: Mapping[str, str] | None = None) -> str | None:
    """Return the kind of a service that is a database server with a password; None otherwise.

    A client of the same image sets none of the server's password variables.
    """
    kind = find_kind(body, inside)
    declared = environment(body)
    return (
        kind
        if kind
        and any(
            declared.get(name) for _, key, _ in VARIABLES[kind] for name in (key, f"{key}_FILE")
        )
        else None
    )


def environment(body: Mapping[str, Any]) -> dict[str, str]:
    """Return a service's environment as its containers get it.

    `config` doubles every dollar sign, which is reverted here.
    """
    given = body.get("environment")
    return (
        {k: str(v).replace("$$", "$") for k, v in given.items() if v is not None}
        if isinstance(given, dict)
        else {}
    )


def account(
    model: Mapping[str, Any],
    service: str,
    user: str | None,
    read: Callable[[str], str | None],
    inside: Mapping[str, str] | None = None,
) -> Account:
    """Return the account of a service.

    `read` returns the text of a file on this machine, or None. `inside`: see `find_kind`. If `user`
    is None, it is the first account whose password the service's variables hold.

    Raises:
        UnsupportedAccount: The account or its password cannot be determined.
    """
    body = services(model).get(service)
    if body is None:
        there = ", ".join(name for name, b in services(model).items() if serves(b)) or "none"
        raise UnsupportedAccount(
            f"this project has no service {service}; database services of it: {there}"
        )
    kind = find_kind(body, inside)
    if kind is None:
        raise UnsupportedAccount(
            f"service {service} is no PostgreSQL, MySQL or MariaDB server, as far as its image"
            " tells"
        )
    found = _find_declared(model, service, kind, user, read)
    if found is not None:
        return found
    if user is None:
        raise UnsupportedAccount(
            f"service {service} says no password: none of"
            f" {', '.join(k for _, k, _ in VARIABLES[kind])} is set"
        )
    known = hosts(model, service)
    used = {
        f.password
        for s in strings(model)
        for f in dsn.find_passwords(s.value)
        if f.user == user and f.host in known
    }
    if len(used) != 1:
        number = "several different passwords are" if used else "no password is"
        raise UnsupportedAccount(
            f"{number} used for {user} at {service} in the connection strings of this project"
        )
    return Account(service, kind, user, used.pop())


def _find_declared(
    model: Mapping[str, Any],
    service: str,
    kind: str,
    user: str | None,
    read: Callable[[str], str | None],
) -> Account | None:
    """Return the account whose password the service's own variables hold, or None.

    Raises:
        UnsupportedAccount: The variables contradict each other, or the password's file is not
            here.
    """
    declared = environment(services(model)[service])
    for role_key, key, default in VARIABLES[kind]:
        role = declared.get(role_key) or default
        if not role or (user is not None and user != role):
            continue
        names = tuple(
            k for r, k, d in VARIABLES[kind] if k in declared and (declared.get(r) or d) == role
        )
        if len({declared[name] for name in names}) > 1:
            raise UnsupportedAccount(f"service {service}: {' and '.join(names)} differ")
        if declared.get(key):
            if declared.get(f"{key}_FILE"):
                raise UnsupportedAccount(
                    f"service {service} has {key} and {key}_FILE; its image takes only one of them"
                )
            return Account(service, kind, role, declared[key], names)
        if declared.get(f"{key}_FILE"):
            path = find_file(model, service, declared[f"{key}_FILE"])
            held = read(path) if path is not None else None
            if path is None or held is None:
                raise UnsupportedAccount(
                    f"service {service}: the file of {key}_FILE is none of this machine that could"
                    " be read and edited"
                )
            return Account(service, kind, role, held.rstrip("\r\n"), (), path)
    return None


def list_declared(kind: str, declared: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (role, password) of each account that a server's own environment names."""
    found = [
        (role, declared[key])
        for role_key, key, default in VARIABLES[kind]
        if declared.get(key) and (role := declared.get(role_key) or default)
    ]
    return list(dict.fromkeys(found))


def hosts(model: Mapping[str, Any], server: str) -> frozenset[str]:
    """Return the host names that may mean a service's server.

    These are its own names, those of the project's poolers and proxies, and the names of this
    machine, for published ports. Names of the project's other database servers are left out.
    """
    names: set[str] = {"localhost", "127.0.0.1", "::1", "host.docker.internal"}
    others: set[str] = set()
    for service, body in services(model).items():
        mine = {
            service,
            str(body.get("container_name") or service),
            str(body.get("hostname") or service),
        }
        networks = body.get("networks")
        for network in (networks or {}).values() if isinstance(networks, dict) else ():
            mine |= set(map(str, (network or {}).get("aliases") or ()))
        mine |= {f"{model.get('name', '')}-{service}-1"}
        (others if service != server and serves(body) else names).update(mine)
    return frozenset(names - (others - {server}))


def find_file(model: Mapping[str, Any], service: str, inside: str) -> str | None:
    """Return the file of this machine that is mounted at a path of a service, or None."""
    return next(
        (file for file, place in list_mounted_files(model, service) if place == inside), None
    )


def list_mounted_files(model: Mapping[str, Any], service: str) -> Iterator[tuple[str, str]]:
    """Yield (file on this machine, path inside) of a service's secrets, configs and bind mounts."""
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


# -- the model -------------------------------------------------------------------------------------


class ModelString(NamedTuple):
    """One string of the model."""

    path: tuple[str, ...]
    value: str


def services(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the services of the model by name."""
    found = model.get("services")
    return (
        {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}
    )


def strings(model: Any, path: tuple[str, ...] = ()) -> Iterator[ModelString]:
    """Yield every string of the model, with single dollar signs."""
    if isinstance(model, dict):
        for key, value in model.items():
            yield from strings(value, (*path, str(key)))
    elif isinstance(model, list):
        for number, value in enumerate(model):
            yield from strings(value, (*path, str(number)))
    elif isinstance(model, str):
        yield ModelString(path, model.replace("$$", "$"))
