"""Knowledge about images, mount paths and names at the root of a volume.

This module is pure.
"""

import re
from collections.abc import Iterable, Sequence
from posixpath import normpath
from typing import NamedTuple

from safe_compose.core.tier import Tier

PLAIN_KINDS = frozenset({"files", "certificates", "metrics", "cache", "logs", "secrets", "unknown"})
"""The kinds whose files are meaningful one by one.

A copy of any other kind, taken while it runs, would be silently wrong.
"""
ROOT = "root"
"""Stands for the names at the root of a volume, which `judge` gets as its content."""


class KnownImage(NamedTuple):
    """A row of the built-in knowledge about images."""

    images: tuple[str, ...]
    """A plain name matches that name in any registry and namespace; `a/b` matches exactly these two
    last parts, `a/*` each image of that publisher."""
    paths: tuple[str, ...]
    """The paths of its data; one that ends in `/*` only what is mounted below it."""
    tier: Tier
    kind: str
    what: str = "its data directory"
    looks: tuple[str, ...] = ()
    """For a disposable row: what could be in it all the same (`Verdict.looks`)."""


def make_row(
    tier: Tier, kind: str, images: str, paths: str, what: str = "its data directory", look: str = ""
) -> KnownImage:
    """Return a row of which the parts of each text are separated by spaces."""
    return KnownImage(
        tuple(images.split()), tuple(paths.split()), tier, kind, what, tuple(look.split())
    )


_C, _I, _D = Tier
_row = make_row
# Names that only raise may be plain (a private rebuild of postgres is still postgres). Names that
# lower have a publisher: the data of another `prometheus` image is unknown.
IMAGES = (
    _row(_C, "postgres",
     "postgres postgresql postgis pgvector timescaledb timescaledb-ha cloudnative-pg pgvecto-rs"
     " citus",
         "/var/lib/postgresql /var/lib/pgsql /bitnami/postgresql /home/postgres/pgdata /pgdata"),
    _row(_C, "mariadb", "mariadb mariadb-galera", "/var/lib/mysql /bitnami/mariadb /config"),
    _row(_C, "mysql", "mysql mysql-server percona percona-server percona-xtradb-cluster",
         "/var/lib/mysql /bitnami/mysql"),
    _row(_C, "mongodb", "mongo mongodb mongodb-community-server percona-server-mongodb",
         "/data/db /data/configdb /bitnami/mongodb /var/lib/mongodb"),
    # Used as a cache by many and as a database by some; nothing outside shows which, so it is a
    # database.
    _row(_C, "redis", "redis redis-stack redis-stack-server valkey valkey-bundle keydb dragonfly",
         "/data /bitnami/redis /bitnami/valkey /var/lib/redis /var/lib/valkey",
         "its data directory (it may hold more than a cache)"),
    _row(_C, "elasticsearch", "elasticsearch",
     "/usr/share/elasticsearch/data /bitnami/elasticsearch"),
    _row(_C, "opensearch", "opensearch", "/usr/share/opensearch/data /bitnami/opensearch"),
    _row(_C, "influxdb", "influxdb",
     "/var/lib/influxdb /var/lib/influxdb2 /var/lib/influxdb3 /bitnami/influxdb"),
    _row(_C, "clickhouse", "clickhouse clickhouse-server",
     "/var/lib/clickhouse /bitnami/clickhouse"),
    _row(_C, "cassandra", "cassandra scylla",
     "/var/lib/cassandra /var/lib/scylla /bitnami/cassandra"),
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
    _row(_C, "kafka", "kafka cp-kafka",
     "/var/lib/kafka/data /bitnami/kafka /tmp/kraft-combined-logs"),
    _row(_C, "zookeeper", "zookeeper cp-zookeeper",
     "/data /datalog /var/lib/zookeeper /bitnami/zookeeper"),
    _row(_C, "nats", "nats", "/data"),
    _row(_C, "files", "minio", "/data /export /bitnami/minio"),
    # Of the stacks below, a comment names the file of the project's repository that says so.
    # nextcloud/docker README.md
    _row(_C, "files", "nextcloud owncloud", "/var/www/html /mnt/data /config /data"),
    # docker-library/docs wordpress/content.md
    _row(_C, "files", "wordpress drupal joomla mediawiki",
     "/var/www/html /bitnami/wordpress /opt/drupal"),
    # go-gitea/gitea Dockerfile.rootless; its install-with-docker-rootless page
    _row(_C, "files", "gitea forgejo gogs", "/data /var/lib/gitea /etc/gitea"),
    # docs.gitlab.com install/docker: "Set up the volumes location"
    _row(_C, "files", "gitlab-ce gitlab-ee", "/var/opt/gitlab /etc/gitlab"),
    _row(_C, "files", "registry distribution", "/var/lib/registry"),
    # docker-library/docs ghost/content.md
    _row(_C, "files", "ghost", "/var/lib/ghost/content"),
    # n8n-io/n8n-hosting docker-compose/withPostgres/docker-compose.yml
    _row(_C, "files", "n8n", "/home/node/.n8n /files"),
    _row(_C, "files", "jenkins", "/var/jenkins_home"),
    # immich-app/immich docker/docker-compose.yml, docs/docs/administration/backup-and-restore.md
    _row(_C, "files", "immich-server", "/usr/src/app/upload /data"),
    _row(_I, "files", "immich-app/immich-server",
     "/data/thumbs /data/encoded-video /usr/src/app/upload/thumbs"
     " /usr/src/app/upload/encoded-video",
         "the place of its previews and converted videos"),
    # paperless-ngx/paperless-ngx docker/compose/docker-compose.postgres.yml
    _row(_C, "files", "paperless-ngx",
     "/usr/src/paperless/data /usr/src/paperless/media /usr/src/paperless/export"),
    _row(_I, "files", "paperless-ngx/paperless-ngx", "/usr/src/paperless/consume",
     "the place of documents that it has yet to take in"),
    # home-assistant/home-assistant.io source/_includes/installation/container/compose.md
    _row(_C, "files", "home-assistant homeassistant", "/config /media"),
    # langgenius/dify docker/docker-compose.yaml
    _row(_C, "files", "dify-api", "/app/api/storage", "the place of its users' files"),
    _row(_C, "files", "dify-plugin-daemon", "/app/storage", "the place of its plugins"),
    _row(_C, "chroma", "chroma", "/chroma/chroma"),
    _row(_C, "milvus", "milvusdb/milvus", "/var/lib/milvus"),
    _row(_C, "oceanbase", "oceanbase-ce seekdb", "/root/ob /var/lib/oceanbase"),
    # supabase/supabase docker/docker-compose.yml
    _row(_C, "secrets", "supabase/postgres", "/etc/postgresql-custom",
     "the key of its encrypted columns"),
    _row(_C, "files", "storage-api", "/var/lib/storage"),
    _row(_C, "files", "supabase/studio", "/app/snippets", "the place of its users' queries"),
    # mailcow/mailcow-dockerized docker-compose.yml, helper-scripts/backup_and_restore.sh
    _row(_C, "files", "mailcow/dovecot", "/var/vmail", "the place of its mail"),
    _row(_C, "secrets", "mailcow/dovecot mailcow/postfix", "/mail_crypt /var/lib/zeyple",
     "the keys that decrypt its mail"),
    _row(_C, "files", "mailcow/postfix", "/var/spool/postfix", "its queue of mail"),
    _row(_C, "files", "mailcow/*", "/var/lib/rspamd", "the place of what its filter learned"),
    # goauthentik/authentik docker-compose.yml, lifecycle/container/compose.yml
    _row(_C, "files", "goauthentik/server", "/media /data"),
    # jupyter/docker-stacks README.md: the service writes notebooks
    _row(_C, "files",
     "base-notebook minimal-notebook scipy-notebook datascience-notebook tensorflow-notebook"
     " pytorch-notebook r-notebook julia-notebook pyspark-notebook all-spark-notebook",
         "/home/jovyan", "the place of its users' notebooks"),
    # pi-hole/docker-pi-hole README.md
    _row(_C, "sqlite", "pihole", "/etc/pihole"),
    _row(_C, "secrets", "wireguard wg-easy", "/etc/wireguard", "the place of its keys"),
    # keycloak/keycloak docs/guides/server/containers.adoc: the database of development mode
    _row(_C, "files", "keycloak", "/opt/keycloak/data"),
    # eclipse/mosquitto docker/2.0/README.md
    _row(_C, "files", "eclipse-mosquitto", "/mosquitto/data"),
    _row(_C, "files", "docker-mailserver", "/var/mail /var/mail-state /tmp/docker-mailserver"),
    # dani-garcia/vaultwarden README.md
    _row(_C, "sqlite", "vaultwarden vaultwarden/server", "/data"),
    # louislam/uptime-kuma compose.yaml
    _row(_C, "sqlite", "uptime-kuma", "/app/data"),
    _row(_C, "sqlite", "nginx-proxy-manager portainer portainer-ce portainer-ee", "/data"),
    _row(_C, "sqlite", "pocketbase", "/pb_data /pb/pb_data"),
    _row(_C, "sqlite", "pgadmin4", "/var/lib/pgadmin"),
    _row(_C, "sqlite", "jellyfin", "/config"),
    # Debian's package writes zones that clients change to a path of caches.
    _row(_C, "files", "bind9", "/etc/bind /var/lib/bind /var/cache/bind"),
    _row(_C, "secrets", "vault openbao", "/vault /openbao"),
    # docs.linuxserver.io general/running-our-containers: the programs keep everything there
    _row(_C, "files", "linuxserver/*", "/config"),
    # plausible/community-edition compose.yml
    _row(_I, "certificates", "plausible/community-edition", "/var/lib/plausible",
     "the place of its certificates"),
    _row(_I, "certificates", "mailcow/acme", "/var/lib/acme", "the place of its certificates"),
    _row(_I, "certificates", "traefik",
     "/letsencrypt /acme /certs /etc/traefik/acme /etc/traefik/certs",
         "the place of its certificates"),
    _row(_I, "certificates", "caddy", "/data /config", "the place of its certificates"),
    _row(_I, "certificates",
     "certbot acme-companion letsencrypt-nginx-proxy-companion nginx-proxy nginx-proxy-manager"
     " swag",
         "/etc/letsencrypt /var/lib/letsencrypt /etc/acme.sh /etc/nginx/certs",
         "the place of its certificates"),
    # Rules and configurations that users send to these over their API are stored next to the data,
    # in formats of their own.
    _row(_I, "metrics", "grafana/mimir", "/data",
     "the place of its metrics, rules and alert configurations"),
    _row(_I, "metrics", "netdata/netdata", "/var/lib/netdata",
     "the place of its identity and of alerts made by hand"),
    # The final place of logs: often the only copy of the logs of other machines, audit trails among
    # them.
    _row(_I, "logs", "fluent/fluentd", "/fluentd/log",
     "the place where it writes the logs that it receives"),
    _row(_I, "logs",
     "balabit/syslog-ng linuxserver/syslog-ng rsyslog/rsyslog rsyslog/syslog_appliance_alpine",
     "/var/log",
         "the place where it writes the logs that it receives"),

    # Disposable: each row says why it cannot hold user data, or what is checked before that is
    # assumed.
    #
    # Samples that it took itself; rules and configuration are mounted elsewhere. It deletes them
    # after 15 days unless a longer history is configured, or a snapshot was made; both are checked.
    _row(_D, "metrics", "prom/prometheus prometheus/prometheus bitnami/prometheus",
         "/prometheus /opt/bitnami/prometheus/data", "the place of its metrics", "prometheus"),
    # Notifications already sent, and silences, which users set: checked.
    _row(_D, "metrics", "prom/alertmanager prometheus/alertmanager", "/alertmanager",
     "the place of its state", "alertmanager"),
    # Samples that others took. It deletes them after a month unless a longer history is configured,
    # which is checked.
    _row(_D, "metrics", "victoriametrics/victoria-metrics", "/victoria-metrics-data /storage",
     "the place of its metrics",
         "victoriametrics"),
    # With dashboards in files and only the first user, everything is recreated at a start. The rest
    # is checked.
    _row(_D, "metrics",
     "grafana/grafana grafana/grafana-oss grafana/grafana-enterprise bitnami/grafana",
         "/var/lib/grafana /opt/bitnami/grafana/data", "the place of its dashboards' state",
         "grafana"),
    # Samples of this machine, taken by itself.
    _row(_D, "metrics", "netdata/netdata", "/var/cache/netdata", "the place of its metrics"),
    # Copies of containers' output. A history beyond KEPT_DAYS, and rules that users sent to its
    # ruler, are checked.
    _row(_D, "logs", "grafana/loki bitnami/grafana-loki", "/loki /tmp/loki /bitnami/grafana-loki",
     "the place of its logs", "loki"),
    # Read positions of files, data not sent yet, and traces, which Tempo itself deletes after 14
    # days.
    _row(_D, "logs",
     "grafana/promtail grafana/alloy grafana/tempo fluent/fluent-bit timberio/vector",
         "/var/log /var/tempo /var/lib/alloy /var/lib/vector /tmp",
         "the place of its logs and buffers", ROOT),
    # Models that it downloads again (immich-app/immich docker/docker-compose.yml), and modules
    # (supabase/supabase docker/docker-compose.yml).
    _row(_D, "cache", "immich-app/immich-machine-learning", "/cache",
     "the place of its models", ROOT),
    _row(_D, "cache", "supabase/edge-runtime", "/root/.cache", "the place of its cache", ROOT),
    # Signatures that it downloads again, and an index that it makes again of the mail
    # (mailcow/mailcow-dockerized docker-compose.yml).
    _row(_D, "cache", "mailcow/clamd clamav/clamav", "/var/lib/clamav",
     "the place of its signatures", ROOT),
    _row(_D, "cache", "mailcow/solr", "/opt/solr/server/solr/dovecot-fts/data",
     "the place of its index", ROOT),
    # Copies of data that is fetched again on request.
    _row(_D, "cache", "memcached varnish ubuntu/squid sameersbn/squid sameersbn/apt-cacher-ng",
         "/var/lib/varnish /var/spool/squid /var/cache", "the place of its cache", ROOT),
)  # fmt: skip
_OFFICIAL_ONLY = frozenset({"memcached", "varnish"})
"""Plain names that lower: only as official images (no publisher, or `library`)."""
# Paths with the same meaning for every image.
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
    {"upload", "uploads", "media", "photo", "photos", "picture", "pictures", "image", "images",
     "video", "videos", "avatar",
     "avatars", "storage", "file", "files", "attachment", "attachments", "document", "documents",
     "backup", "backups", "dump", "dumps", "mail", "mails", "vmail", "git", "repo", "repos",
     "repositories"}
)  # fmt: skip
_CERTIFICATE_WORDS = frozenset({"letsencrypt", "acme", "acme.sh", "certs", "certificates"})
_PASSING_PATHS = (("/var/cache", "cache"), ("/var/log", "logs"))
"""These paths and everything below, by the FHS: data that a program can recreate, and its logs.
Some programs keep more there, so the root is checked for databases. Logs for auditors and those
that a server replays after a loss are not lowered."""
_PASSING_EXACTLY = {
    "/tmp": "cache", "/var/tmp": "cache", "/root/.cache": "cache", "/root/.npm": "cache",
    "/go/pkg/mod": "cache"
}  # fmt: skip
"""Paths that any cleaner of the system, or the tool itself, may empty at any time. The root is
checked for databases."""
_PASSING_NAMES = {"node_modules": "cache", "__pycache__": "cache"}
"""Folders that a package manager or an interpreter makes from files elsewhere; they hold no work of
users."""
_KEPT_LOGS = frozenset({"audit", "mysql", "mariadb", "binlog", "journal"})
"""Parts of a path below /var/log: audit trails, binary logs, and the journal of a machine."""
_CONTENT = (
    (frozenset({"PG_VERSION"}), "postgres"),
    (frozenset({"ibdata1", "mysql", "aria_log_control"}), "mysql"),
    (frozenset({"WiredTiger", "WiredTiger.wt", "storage.bson"}), "mongodb"),
    (frozenset({"dump.rdb", "appendonlydir", "appendonly.aof"}), "redis"),
)
_PGDATA_FOLDER = re.compile(r"1[89]|[2-9][0-9]|pgdata")
_SQLITE_NAME = re.compile(r".*\.(?:sqlite3?|db3?)(?:-wal)?", re.DOTALL)


class Claim(NamedTuple):
    """A statement about a volume by one mount or one file."""

    tier: Tier
    kind: str
    why: str
    from_image: bool = False
    looks: tuple[str, ...] = ()
    """As in `Verdict`."""


class VolumeUse(NamedTuple):
    """A mount of a volume, by a container or a declared service."""

    image: str
    destination: str
    read_only: bool
    pgdata: str = ""
    own: bool = False
    """Whether the container or service belongs to the project whose label the volume has."""
    subpath: str = ""
    """The folder of the volume that is mounted; empty: all of it."""


def find_strictest(claims: Iterable[Claim]) -> Claim:
    """Return the strictest claim; among equals one by an image, then one with a known kind."""
    return min(claims, key=lambda c: (c.tier.rank, not c.from_image, c.kind == "unknown"))


def parse_image_name(reference: str) -> tuple[str, ...]:
    """Return the last one or two parts of an image reference, without registry, tag and digest.

    `registry.example:5000/team/postgres:15@sha256:...` gives `("team", "postgres")`, `postgres`
    gives `("postgres",)`, and so does `library/postgres`. A plain image id gives `()`.
    """
    path = reference.partition("@")[0]
    if path.startswith("sha256:"):
        return ()
    parts = [part for part in path.split("/") if part]
    if not parts:
        return ()
    parts[-1] = parts[-1].partition(":")[0]
    # docker's rule: the first part is a registry when it has a dot or a colon, or is `localhost`.
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        parts = parts[1:]
    if len(parts) > 1 and parts[-2] == "library":
        parts = parts[-1:]
    return tuple(parts[-2:])


def _is_same_image(name: tuple[str, ...], known: str) -> bool:
    if known.endswith("/*"):
        return len(name) == 2 and name[0] == known[:-2]
    if "/" in known:
        return "/".join(name) == known
    if known in _OFFICIAL_ONLY:
        return name == (known,)
    return bool(name) and name[-1] == known


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def claim_of_image(use: VolumeUse) -> Claim | None:
    """Return the claim of a mount by its image, or None for an unknown image or path."""
    return claim_of_rows(IMAGES, use)


def claim_of_rows(rows: Iterable[KnownImage], use: VolumeUse) -> Claim | None:
    """Return the claim of a mount by rows about its image, or None where none of them knows it.

    The row of the innermost path decides, so that `/data/thumbs` may be something else than
    `/data`; among equals the strictest.
    """
    name, path = parse_image_name(use.image), normpath(use.destination)
    found: dict[int, list[Claim]] = {}
    for row in rows:
        depth = _depth_of(path, row, use.pgdata)
        if depth is not None and any(_is_same_image(name, known) for known in row.images):
            why = f"image {use.image} mounts it at {row.what}"
            claim = Claim(row.tier, row.kind, why, from_image=True, looks=row.looks)
            found.setdefault(depth, []).append(claim)
    return find_strictest(found[max(found)]) if found else None


def _depth_of(path: str, row: KnownImage, pgdata: str) -> int | None:
    """Return the length of the row's path that a mount is at or below, or None.

    A mount above a data directory counts, with 0, only for rows that raise.
    """
    if row.kind == "postgres" and _keeps_elsewhere(path, pgdata):
        return None
    places = (
        [*row.paths, normpath(pgdata)] if pgdata and row.kind == "postgres" else list(row.paths)
    )
    if depths := [len(place) for place in places if _is_at(path, place)]:
        return max(depths)
    above = row.tier is _C and path != "/" and any(_is_within(place, path) for place in places)
    return 0 if above else None


def _is_at(path: str, place: str) -> bool:
    if place.endswith("/*"):
        return path.startswith(place[:-1])
    return _is_within(path, place)


def _keeps_elsewhere(path: str, pgdata: str) -> bool:
    """Return whether PGDATA lies outside of a mount.

    docker then made the volume for a VOLUME line of the image, and its content decides.
    """
    data = normpath(pgdata)
    return bool(pgdata) and not _is_within(path, data) and not _is_within(data, path)


def claim_of_path(use: VolumeUse) -> Claim | None:
    """Return the claim of a mount by its path, or None for an unknown path."""
    path = normpath(use.destination)
    if use.pgdata and (
        _is_within(path, normpath(use.pgdata)) or _is_within(normpath(use.pgdata), path)
    ):
        return Claim(_C, "postgres", f"{use.image} keeps PGDATA in it")
    for folder, kind in _DATABASE_PATHS:
        if _is_within(path, folder) and not (
            kind == "postgres" and _keeps_elsewhere(path, use.pgdata)
        ):
            return Claim(_C, kind, f"mounted at {path}, where {kind} keeps its data")
    parts = [part.lower() for part in path.split("/") if part]
    words = {word for part in parts for word in (part, *re.split(r"[_-]", part))}
    if file_words := sorted(words & _FILE_WORDS):
        return Claim(_C, "files", f"mounted at {path} of image {use.image}: {file_words[0]}")
    for folder, kind in _PASSING_PATHS:
        if kind == "logs" and _is_within(path, folder) and (kept := sorted(words & _KEPT_LOGS)):
            return Claim(_I, kind, f"mounted at {path}: logs that are kept ({kept[0]})")
        if _is_within(path, folder):
            return Claim(_D, kind, f"mounted at {path}: {kind}", looks=(ROOT,))
    if path in _PASSING_EXACTLY:
        return Claim(
            _D,
            _PASSING_EXACTLY[path],
            f"mounted at {path}: {_PASSING_EXACTLY[path]}",
            looks=(ROOT,),
        )
    if parts and parts[-1] in _PASSING_NAMES:
        return Claim(
            _D, _PASSING_NAMES[parts[-1]], f"mounted at {path}: installed again by its tool"
        )
    if words & _CERTIFICATE_WORDS:
        return Claim(_I, "certificates", f"mounted at {path} of image {use.image}: certificates")
    return None


def claim_of_content(content: Sequence[str], *, orphan: bool) -> Claim | None:
    """Return the claim of the names at a volume's root, or None."""
    names = frozenset(content)
    for marks, kind in _CONTENT:
        if found := sorted(names & marks):
            return Claim(_C, kind, f"it holds {found[0]}: {kind} data")
    # PostgreSQL images from 18 on use this layout, and compose files that set PGDATA below the
    # mount. Other programs may, too.
    if orphan and len(names) == 1 and _PGDATA_FOLDER.fullmatch(min(names)):
        return Claim(
            _C, "postgres", f"it holds {min(names)} alone, where postgres images keep their data"
        )
    sqlite = sorted(name for name in names if _SQLITE_NAME.fullmatch(name))
    return Claim(_C, "sqlite", f"it holds {sqlite[0]}: a SQLite database") if sqlite else None
