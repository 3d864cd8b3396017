"""Which volumes matter, and why: explicit words first, then what images and mount paths are known to mean, then content."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from posixpath import normpath
from typing import NamedTuple

from safe_compose.observed import SCRATCH_LABEL, VOLUME_LABEL, WORKING_DIR_LABEL, Observed, Volume


class Tier(Enum):
    """How much a volume matters, the strictest first."""

    CRITICAL = "critical"
    """A verified backup and a typed phrase."""
    IMPORTANT = "important"
    """A verified backup and y/N."""
    DISPOSABLE = "disposable"
    """Passes."""

    @property
    def rank(self) -> int:
        """0 for the strictest."""
        return _RANKS[self]

    def __lt__(self, other: "Tier") -> bool:
        return self.rank < other.rank


_RANKS = {tier: rank for rank, tier in enumerate(Tier)}


@dataclass(frozen=True, slots=True)
class Rule:
    """One explicit word about volumes."""

    pattern: str
    """fnmatch, case matters. On the volume's real name or, within the project that is meant, on its compose key; with
    `of_project` on the name of the volume's project."""
    tier: Tier
    source: str
    """The file and key that say so: `safe-compose.toml: volumes.cache`, `protect`."""
    floor: bool = False
    """`protect`: raises, never lowers, and nothing lowers below it."""
    of_project: bool = False
    own: bool = False
    """From the project's own files: about volumes of other projects it can only raise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one volume is worth."""

    volume: str
    tier: Tier
    why: str
    """In words, for a card and for `--explain`."""
    kind: str
    """What is in it: `postgres`, `mariadb`, `mysql`, `redis`, `mongodb`, `sqlite`, `files`, `certificates`, `metrics`,
    `cache`, `logs`, another product's name, or `unknown`."""
    explicit: bool = False
    """A rule said so, not built-in knowledge."""


class _Known(NamedTuple):
    """One row of built-in knowledge about images."""

    images: tuple[str, ...]
    """A bare name means that name in any registry and namespace; `a/b` means exactly these two last parts."""
    paths: tuple[str, ...]
    """Where it keeps its data; `*` for everywhere."""
    tier: Tier
    kind: str
    what: str = "its data directory"


def _row(tier: Tier, kind: str, images: str, paths: str, what: str = "its data directory") -> _Known:
    return _Known(tuple(images.split()), tuple(paths.split()), tier, kind, what)


_C, _I, _D = Tier
# Names that only ever raise may be bare (a private rebuild of postgres is still postgres). Names that lower carry their
# publisher: what `somebody/prometheus` keeps, nobody here knows.
_IMAGES = (
    _row(_C, "postgres", "postgres postgresql postgis pgvector timescaledb timescaledb-ha cloudnative-pg pgvecto-rs citus",
         "/var/lib/postgresql /var/lib/pgsql /bitnami/postgresql /home/postgres/pgdata /pgdata"),
    _row(_C, "mariadb", "mariadb mariadb-galera", "/var/lib/mysql /bitnami/mariadb /config"),
    _row(_C, "mysql", "mysql mysql-server percona percona-server percona-xtradb-cluster",
         "/var/lib/mysql /bitnami/mysql"),
    _row(_C, "mongodb", "mongo mongodb mongodb-community-server percona-server-mongodb",
         "/data/db /data/configdb /bitnami/mongodb /var/lib/mongodb"),
    # Used as a cache by many and as a database by some; nothing outside tells which, so it is a database.
    _row(_C, "redis", "redis redis-stack redis-stack-server valkey valkey-bundle keydb dragonfly",
         "/data /bitnami/redis /bitnami/valkey /var/lib/redis /var/lib/valkey",
         "its data directory (it may hold more than a cache)"),
    _row(_C, "elasticsearch", "elasticsearch", "/usr/share/elasticsearch/data /bitnami/elasticsearch"),
    _row(_C, "opensearch", "opensearch", "/usr/share/opensearch/data /bitnami/opensearch"),
    _row(_C, "influxdb", "influxdb", "/var/lib/influxdb /var/lib/influxdb2 /var/lib/influxdb3 /bitnami/influxdb"),
    _row(_C, "clickhouse", "clickhouse clickhouse-server", "/var/lib/clickhouse /bitnami/clickhouse"),
    _row(_C, "cassandra", "cassandra scylla", "/var/lib/cassandra /var/lib/scylla /bitnami/cassandra"),
    _row(_C, "couchdb", "couchdb", "/opt/couchdb/data /bitnami/couchdb"),
    _row(_C, "neo4j", "neo4j", "/data /bitnami/neo4j"),
    _row(_C, "mssql", "mssql/server azure-sql-edge", "/var/opt/mssql"),
    _row(_C, "cockroachdb", "cockroach", "/cockroach/cockroach-data"),
    _row(_C, "etcd", "etcd", "/etcd-data /bitnami/etcd /var/lib/etcd"),
    _row(_C, "arangodb", "arangodb", "/var/lib/arangodb3"),
    _row(_C, "surrealdb", "surrealdb", "/data /mydata"),
    _row(_C, "qdrant", "qdrant", "/qdrant/storage"),
    _row(_C, "meilisearch", "meilisearch", "/meili_data"),
    _row(_C, "weaviate", "weaviate", "/var/lib/weaviate"),
    _row(_C, "rabbitmq", "rabbitmq", "/var/lib/rabbitmq /bitnami/rabbitmq"),
    _row(_C, "kafka", "kafka cp-kafka", "/var/lib/kafka/data /bitnami/kafka /tmp/kraft-combined-logs"),
    _row(_C, "zookeeper", "zookeeper cp-zookeeper", "/data /datalog /var/lib/zookeeper /bitnami/zookeeper"),
    _row(_C, "nats", "nats", "/data"),
    _row(_C, "files", "minio", "/data /export /bitnami/minio"),
    _row(_C, "files", "nextcloud owncloud", "/var/www/html /mnt/data /config /data"),
    _row(_C, "files", "wordpress drupal joomla mediawiki", "/var/www/html /bitnami/wordpress /opt/drupal"),
    _row(_C, "files", "gitea forgejo gogs", "/data /var/lib/gitea /etc/gitea"),
    _row(_C, "files", "gitlab-ce gitlab-ee", "/var/opt/gitlab /etc/gitlab"),
    _row(_C, "files", "registry distribution", "/var/lib/registry"),
    _row(_C, "files", "ghost", "/var/lib/ghost/content"),
    _row(_C, "files", "n8n", "/home/node/.n8n"),
    _row(_C, "files", "jenkins", "/var/jenkins_home"),
    _row(_C, "files", "immich-server", "/usr/src/app/upload /data"),
    _row(_C, "files", "paperless-ngx", "/usr/src/paperless/data /usr/src/paperless/media /usr/src/paperless/export"),
    _row(_C, "files", "home-assistant", "/config"),
    _row(_C, "files", "docker-mailserver", "/var/mail /var/mail-state /tmp/docker-mailserver"),
    _row(_C, "sqlite", "vaultwarden vaultwarden/server", "/data"),
    _row(_C, "sqlite", "uptime-kuma", "/app/data"),
    _row(_C, "sqlite", "nginx-proxy-manager portainer portainer-ce portainer-ee", "/data"),
    _row(_C, "sqlite", "pocketbase", "/pb_data /pb/pb_data"),
    _row(_C, "secrets", "vault openbao", "/vault /openbao"),
    _row(_I, "certificates", "traefik", "/letsencrypt /acme /certs /etc/traefik/acme /etc/traefik/certs",
         "the place of its certificates"),
    _row(_I, "certificates", "caddy", "/data /config", "the place of its certificates"),
    _row(_I, "certificates", "certbot acme-companion letsencrypt-nginx-proxy-companion nginx-proxy nginx-proxy-manager swag",
         "/etc/letsencrypt /var/lib/letsencrypt /etc/acme.sh /etc/nginx/certs", "the place of its certificates"),
    _row(_D, "metrics", "prom/prometheus prometheus/prometheus bitnami/prometheus",
         "/prometheus /opt/bitnami/prometheus/data", "the place of its metrics"),
    _row(_D, "metrics", "prom/alertmanager prometheus/alertmanager", "/alertmanager", "the place of its state"),
    _row(_D, "metrics", "victoriametrics/victoria-metrics", "/victoria-metrics-data /storage", "the place of its metrics"),
    _row(_D, "metrics", "grafana/mimir", "/data", "the place of its metrics"),
    _row(_D, "metrics", "grafana/grafana grafana/grafana-oss grafana/grafana-enterprise bitnami/grafana",
         "/var/lib/grafana /opt/bitnami/grafana/data", "the place of its dashboards' state"),
    _row(_D, "metrics", "netdata/netdata", "/var/cache/netdata /var/lib/netdata", "the place of its metrics"),
    _row(_D, "logs", "grafana/loki bitnami/grafana-loki", "/loki /tmp/loki /bitnami/grafana-loki", "the place of its logs"),
    _row(_D, "logs", "grafana/promtail grafana/alloy grafana/tempo fluent/fluentd fluent/fluent-bit timberio/vector",
         "/var/log /var/tempo /var/lib/alloy /var/lib/vector /fluentd/log /tmp", "the place of its logs and buffers"),
    _row(_D, "cache", "memcached varnish ubuntu/squid sameersbn/squid sameersbn/apt-cacher-ng",
         "/var/lib/varnish /var/spool/squid /var/cache", "the place of its cache"),
)  # fmt: skip
_OFFICIAL_ONLY = frozenset({"memcached", "varnish"})
"""Bare names that lower: only as official images (no publisher, or `library`)."""

# Paths that mean the same whatever the image.
_DATABASE_PATHS = (
    ("/var/lib/postgresql", "postgres"),
    ("/var/lib/mysql", "mysql"),
    ("/data/db", "mongodb"),
    ("/var/lib/mongodb", "mongodb"),
    ("/var/lib/redis", "redis"),
    ("/var/lib/valkey", "redis"),
    ("/var/lib/influxdb", "influxdb"),
    ("/var/lib/clickhouse", "clickhouse"),
    ("/var/lib/cassandra", "cassandra"),
    ("/var/lib/rabbitmq", "rabbitmq"),
)
_FILE_WORDS = frozenset(
    {"upload", "uploads", "media", "photo", "photos", "picture", "pictures", "image", "images", "video", "videos", "avatar",
     "avatars", "storage", "file", "files", "attachment", "attachments", "document", "documents", "backup", "backups",
     "dump", "dumps", "mail", "mails", "vmail", "git", "repo", "repos", "repositories"}
)  # fmt: skip
_CERTIFICATE_WORDS = frozenset({"letsencrypt", "acme", "acme.sh", "certs", "certificates"})
_PASSING_PATHS = (("/var/cache", "cache"), ("/var/log", "logs"))
"""And everything below."""
_PASSING_EXACTLY = {
    "/tmp": "cache", "/var/tmp": "cache", "/root/.cache": "cache", "/root/.npm": "cache", "/go/pkg/mod": "cache"
}  # fmt: skip
_PASSING_NAMES = {"node_modules": "cache", "__pycache__": "cache"}

_CONTENT = (
    (frozenset({"PG_VERSION"}), "postgres"),
    (frozenset({"ibdata1", "mysql", "aria_log_control"}), "mysql"),
    (frozenset({"WiredTiger", "WiredTiger.wt", "storage.bson"}), "mongodb"),
    (frozenset({"dump.rdb", "appendonlydir", "appendonly.aof"}), "redis"),
)
_PGDATA_FOLDER = re.compile(r"1[89]|[2-9][0-9]|pgdata")
_SQLITE_NAME = re.compile(r".*\.(?:sqlite3?|db3?)(?:-wal)?", re.DOTALL)


class _Claim(NamedTuple):
    """What one user's mount, or one file, says about a volume."""

    tier: Tier
    kind: str
    why: str
    from_image: bool = False


class _Use(NamedTuple):
    image: str
    destination: str
    read_only: bool
    pgdata: str = ""


def judge(volume: Volume, observed: Observed, rules: Sequence[Rule], content: Sequence[str] | None) -> Verdict:
    """What a volume is worth to the command that is about to run.

    content: the names at its root; `()` when it was read and is empty, None when it was not read or is unreadable.
    Never fails; what is not known is critical.
    """
    known = _known(volume, observed, content)
    if SCRATCH_LABEL in volume.labels:
        known = known._replace(tier=Tier.DISPOSABLE, why="a copy for a look, made by restore --into scratch")
    words = [r for r in (*rules, *_compose_words(volume, observed)) if _matches(r, volume, observed)]
    free = [r for r in words if not r.floor and (not r.own or _may_lower(r, volume, observed))]
    strictest = min(free, key=lambda r: r.tier.rank, default=None)
    tier, why = (known.tier, known.why) if strictest is None else (strictest.tier, _said(strictest))
    explicit = strictest is not None
    for rule in words:
        if rule not in free and rule.tier < tier:
            tier, why, explicit = rule.tier, _said(rule), True
    return Verdict(volume.name, tier, why, known.kind, explicit)


def other_project(volume: Volume, observed: Observed) -> str | None:
    """Whose a volume is, when it is not (only) the project's that the command means.

    Goes by the volume's label, by the labels of the containers that use it, and, for a project of the same name, by the
    folder that compose recorded on them: `docker` in another folder is another project. None when no project is meant
    (`volume rm`): then nobody is "another".
    """
    project = observed.project
    if project is None:
        return None
    if volume.project and volume.project != project.name:
        return volume.project
    for user in observed.users(volume.name):
        if user.project and user.project != project.name:
            return user.project
        folder = user.labels.get(WORKING_DIR_LABEL, "")
        if project.mode == "config" and project.working_dir and user.project and folder:
            here, there = normpath(project.working_dir), normpath(folder)
            if here != there:
                return f"{user.project} in {there}"
    return None


def _said(rule: Rule) -> str:
    return f"protected ({rule.source})" if rule.floor else f"{rule.source} says {rule.tier.value}"


def _belongs(volume: Volume, observed: Observed) -> bool:
    """Is it of the project that is meant: by declaration, by label, or because its containers use it?"""
    project = observed.project
    return project is not None and (
        volume.project == project.name
        or any(d.name == volume.name for d in project.volumes)
        or any(u.project == project.name for u in observed.users(volume.name))
    )


def _may_lower(rule: Rule, volume: Volume, observed: Observed) -> bool:
    """A word of a project's own files decides over that project's volumes, and over one that it calls by its full name."""
    exact = not rule.of_project and rule.pattern == volume.name
    return (exact or _belongs(volume, observed)) and other_project(volume, observed) is None


def _matches(rule: Rule, volume: Volume, observed: Observed) -> bool:
    if rule.of_project:
        # Only a volume that is wholly of one project may be lowered as part of it.
        owners = {volume.project} if volume.project else set()
        owners |= {u.project for u in observed.users(volume.name) if u.project}
        if _belongs(volume, observed) and observed.project is not None:
            owners.add(observed.project.name)
        matching = [o for o in owners if o is not None and fnmatchcase(o, rule.pattern)]
        return len(matching) == len(owners) > 0 if rule.tier is not Tier.CRITICAL else bool(matching)
    names = {volume.name}
    if observed.project is not None and _belongs(volume, observed):
        names |= {d.key for d in observed.project.volumes if d.name == volume.name}
        if volume.project == observed.project.name and volume.labels.get(VOLUME_LABEL):
            names.add(volume.labels[VOLUME_LABEL])
    return any(fnmatchcase(name, rule.pattern) for name in names)


def _compose_words(volume: Volume, observed: Observed) -> list[Rule]:
    """What `x-safe-compose` says, of the volume and of the whole project. A word that is no tier counts as critical."""
    project = observed.project
    if project is None:
        return []
    rules = [
        Rule(volume.name, *_compose_tier(d.tier, f"x-safe-compose of volume {d.key}"), own=True)
        for d in project.volumes
        if d.name == volume.name and d.tier is not None
    ]
    if project.tier is not None:
        tier, source = _compose_tier(project.tier, "x-safe-compose of the compose file")
        rules.append(Rule(project.name, tier, source, of_project=True, own=True))
    return rules


def _compose_tier(word: str, source: str) -> tuple[Tier, str]:
    try:
        return Tier(word), source
    except ValueError:
        return Tier.CRITICAL, f"{source} (its word {word!r} is no tier)"


def _known(volume: Volume, observed: Observed, content: Sequence[str] | None) -> _Claim:
    """Built-in knowledge: image and path first, then content for volumes that no image rule knows, else critical."""
    uses = _uses(volume, observed)
    claims = [(use, _of_image(use) or _of_path(use)) for use in uses]
    known = [claim for _, claim in claims if claim is not None]
    strangers = [use for use, claim in claims if claim is None and not use.read_only]
    if any(claim.from_image for claim in known):
        # A backup tool that reads the volume at /backup/metrics does not make it a backup.
        known = [claim for use, claim in claims if claim is not None and (claim.from_image or not use.read_only)]
        if strangers and min(c.tier for c in known) is Tier.DISPOSABLE:
            use = strangers[0]
            known.append(_Claim(_C, "unknown", f"image {use.image}, which nobody here knows, writes to it too"))
        return _strictest(known)
    found = _of_content(content or (), orphan=not uses)
    if found is not None:
        return _strictest([found, *known])
    if strangers or not known:
        if content is not None and len(content) == 0 and not any(c.tier is _C for c in known):
            return _Claim(_D, "unknown", "empty")
        where = f"image {strangers[0].image} at {strangers[0].destination}" if strangers else "no container uses it"
        known.append(_Claim(_C, "unknown", f"nobody here knows what is in it ({where})"))
    return _strictest(known)


def _strictest(claims: Iterable[_Claim]) -> _Claim:
    """The strictest claim; among equals one that an image made, then one that knows the kind."""
    return min(claims, key=lambda c: (c.tier.rank, not c.from_image, c.kind == "unknown"))


def _uses(volume: Volume, observed: Observed) -> list[_Use]:
    """Every mount of it, of containers that exist and, where those are gone, of services as declared."""
    uses = [
        _Use(user.image, mount.destination, mount.read_only, user.environment.get("PGDATA", ""))
        for user in observed.users(volume.name)
        for mount in user.mounts
        if mount.type == "volume" and mount.name == volume.name
    ]
    declared = observed.project.mounts if observed.project else ()
    seen = {(use.image, normpath(use.destination)) for use in uses}
    return uses + [
        _Use(m.image, m.destination, False)
        for m in declared
        if m.volume == volume.name and (m.image, normpath(m.destination)) not in seen
    ]


def image_name(reference: str) -> tuple[str, ...]:
    """An image reference without registry, tag and digest, as its last one or two parts.

    `registry.example:5000/team/postgres:15@sha256:...` gives `("team", "postgres")`, `postgres` gives `("postgres",)`,
    and so does `library/postgres`. A bare image id gives `()`.
    """
    path = reference.partition("@")[0]
    if path.startswith("sha256:"):
        return ()
    parts = [part for part in path.split("/") if part]
    if not parts:
        return ()
    parts[-1] = parts[-1].partition(":")[0]
    # Docker's rule: the first part is a registry when it has a dot or a colon, or is `localhost`.
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        parts = parts[1:]
    if len(parts) > 1 and parts[-2] == "library":
        parts = parts[-1:]
    return tuple(parts[-2:])


def _same_image(name: tuple[str, ...], known: str) -> bool:
    if "/" in known:
        return "/".join(name) == known
    if known in _OFFICIAL_ONLY:
        return name == (known,)
    return bool(name) and name[-1] == known


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _of_image(use: _Use) -> _Claim | None:
    name, path = image_name(use.image), normpath(use.destination)
    claims = [
        _Claim(row.tier, row.kind, f"image {use.image} mounts it at {row.what}", from_image=True)
        for row in _IMAGES
        if any(_same_image(name, known) for known in row.images) and _holds(path, row, use.pgdata)
    ]
    return _strictest(claims) if claims else None


def _holds(path: str, row: _Known, pgdata: str) -> bool:
    """Does a mount at `path` hold data of that row? Above a data directory counts only for what raises."""
    places = [*row.paths, normpath(pgdata)] if pgdata and row.kind == "postgres" else list(row.paths)
    if any(_within(path, place) for place in places):
        return True
    return row.tier is _C and path != "/" and any(_within(place, path) for place in places)


def _of_path(use: _Use) -> _Claim | None:
    path = normpath(use.destination)
    if use.pgdata and (_within(path, normpath(use.pgdata)) or _within(normpath(use.pgdata), path)):
        return _Claim(_C, "postgres", f"{use.image} keeps PGDATA in it")
    for folder, kind in _DATABASE_PATHS:
        if _within(path, folder):
            return _Claim(_C, kind, f"mounted at {path}, where {kind} keeps its data")
    parts = [part.lower() for part in path.split("/") if part]
    words = {word for part in parts for word in (part, *re.split(r"[_-]", part))}
    if file_words := sorted(words & _FILE_WORDS):
        return _Claim(_C, "files", f"mounted at {path} of image {use.image}: {file_words[0]}")
    for folder, kind in _PASSING_PATHS:
        if _within(path, folder):
            return _Claim(_D, kind, f"mounted at {path}: {kind}")
    if path in _PASSING_EXACTLY:
        return _Claim(_D, _PASSING_EXACTLY[path], f"mounted at {path}: {_PASSING_EXACTLY[path]}")
    if parts and parts[-1] in _PASSING_NAMES:
        return _Claim(_D, _PASSING_NAMES[parts[-1]], f"mounted at {path}: installed again by its tool")
    if words & _CERTIFICATE_WORDS:
        return _Claim(_I, "certificates", f"mounted at {path} of image {use.image}: certificates")
    return None


def _of_content(content: Sequence[str], *, orphan: bool) -> _Claim | None:
    names = frozenset(content)
    for marks, kind in _CONTENT:
        if found := sorted(names & marks):
            return _Claim(_C, kind, f"it holds {found[0]}: {kind} data")
    # Images of PostgreSQL from 18 on lay it out so, and compose files that set PGDATA below the mount. Others may, too.
    if orphan and len(names) == 1 and _PGDATA_FOLDER.fullmatch(min(names)):
        return _Claim(_C, "postgres", f"it holds {min(names)} alone, where postgres images keep their data")
    sqlite = sorted(name for name in names if _SQLITE_NAME.fullmatch(name))
    return _Claim(_C, "sqlite", f"it holds {sqlite[0]}: a SQLite database") if sqlite else None
