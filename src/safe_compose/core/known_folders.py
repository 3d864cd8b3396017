"""Knowledge about what services mount from the host: data, or what a person put there.

Volumes are filled by services. A folder of the host may as well hold code or configuration, which
a person wrote and keeps elsewhere, or what a tool makes again.

This module is pure.
"""

import re
from posixpath import normpath

from safe_compose.core.known_images import (
    IMAGES,
    ROOT,
    Claim,
    VolumeUse,
    claim_of_path,
    claim_of_rows,
    make_row,
)
from safe_compose.core.observed import INIT_FOLDERS
from safe_compose.core.tier import Tier

BY_HAND = frozenset({"code", "configuration"})
"""Kinds of folders that a person writes: nothing takes them by itself."""
_I, _D = Tier.IMPORTANT, Tier.DISPOSABLE
# Each comment names the file of the project's repository, or the page, that says so.
_FOLDERS = (
    # docker-library/docs wordpress/content.md: "Include pre-installed themes / plugins"
    make_row(_I, "code", "wordpress",
     "/var/www/html/wp-content/themes/* /var/www/html/wp-content/plugins/*"
     " /var/www/html/wp-content/mu-plugins/*",
         "the place of one theme or plugin"),
    # docker-library/docs ghost/content.md: the place of content, in which a theme is a folder
    make_row(_I, "code", "ghost", "/var/lib/ghost/content/themes/*", "the place of one theme"),
    # supabase/supabase docker/docker-compose.yml
    make_row(_I, "code", "supabase/studio supabase/edge-runtime",
     "/app/edge-functions /home/deno/functions",
         "the place of functions"),
    # squidfunk/mkdocs-material Dockerfile, peaceiris/hugo-extended-docker README.md,
    # envygeeks/jekyll-docker README.md
    make_row(_I, "code", "mkdocs-material", "/docs", "the place of a site's sources"),
    make_row(_I, "code", "hugo", "/src /project", "the place of a site's sources"),
    make_row(_I, "code", "jekyll", "/srv/jekyll", "the place of a site's sources"),
    # apache/airflow airflow-core/docs/howto/docker-compose/docker-compose.yaml
    make_row(_I, "code", "airflow", "/opt/airflow/dags /opt/airflow/plugins",
     "the place of workflows and plugins"),
    make_row(_I, "configuration", "airflow", "/opt/airflow/config", "its configuration"),
    make_row(_D, "logs", "airflow", "/opt/airflow/logs", "the place of its logs"),
    # keycloak/keycloak docs/guides/server/containers.adoc
    make_row(_I, "configuration", "keycloak", "/opt/keycloak/data/import /opt/keycloak/conf",
     "the place of realms to import"),
    make_row(_I, "code", "keycloak", "/opt/keycloak/themes /opt/keycloak/providers",
     "the place of themes and providers"),
    # Kong/docker-kong compose/docker-compose.yml, supabase/supabase docker/docker-compose.yml
    make_row(_I, "configuration", "kong kong-gateway", "/home/kong /opt/kong",
     "its configuration"),
    # goauthentik/authentik lifecycle/container/compose.yml
    make_row(_I, "configuration", "goauthentik/server", "/templates /blueprints",
     "the place of templates"),
    # langgenius/dify docker/docker-compose.yaml
    make_row(_I, "configuration", "langgenius/dify-sandbox", "/conf /dependencies",
     "its configuration"),
    # mailcow/mailcow-dockerized docker-compose.yml: these folders are part of its repository
    make_row(_I, "configuration", "mailcow/*",
     "/hooks /web /templates /tpls /opt/postfix/conf /rspamd_custom_maps /global_sieve"
     " /init_db.inc.php",
         "its configuration"),
    # mailcow/mailcow-dockerized docker-compose.yml, langgenius/dify docker/docker-compose.yaml
    make_row(_D, "cache", "mailcow/acme certbot/certbot", "/var/www",
     "the place of answers for certificate authorities"),
    # grafana/skills grafana-oss: "Provisioning dashboards from disk"; the path is free
    make_row(_I, "configuration", "grafana grafana-oss grafana-enterprise",
     "/var/lib/grafana/dashboards",
         "the place of provisioned dashboards"),
    # eclipse/mosquitto docker/2.0/README.md
    make_row(_I, "configuration", "eclipse-mosquitto", "/mosquitto/config", "its configuration"),
    make_row(_D, "logs", "eclipse-mosquitto", "/mosquitto/log", "the place of its logs"),
    # elastic.co guide/en/logstash docker-config.html; the others keep it in the same place
    make_row(_I, "configuration",
     "elasticsearch kibana logstash opensearch opensearch-dashboards",
     "/usr/share/elasticsearch/config /usr/share/kibana/config /usr/share/logstash/config"
     " /usr/share/logstash/pipeline /usr/share/opensearch/config"
     " /usr/share/opensearch-dashboards/config",
         "its configuration"),
)  # fmt: skip
_PAGES = ("/usr/share/nginx/html", "/usr/local/apache2/htdocs")
"""Where the images of web servers look for pages, which they never write."""
_OF_THE_SYSTEM = ("/run", "/var/run", "/dev", "/proc", "/sys", "/lib/modules", "/boot")
"""Sockets, devices and parts of the machine."""
_CONFIGURATION = ("/etc", "/usr/local/etc")
"""By the FHS: host-specific configuration. What programs write there has a row by its image."""
_KEYS = re.compile(r"/(?:letsencrypt|acme(?:\.sh)?|certs?|certificates|ssl|tls|pki)(?:/|$)")
_SECRETS = ("/etc/wireguard", "/etc/openvpn")
"""Keys of which the other ends have the counterparts; programs make some of them."""
_MADE_AGAIN = frozenset(
    {"node_modules", "bower_components", "__pycache__", ".venv", ".tox", ".nox", ".cache",
     ".pytest_cache", ".mypy_cache", ".ruff_cache", ".next", ".nuxt", ".svelte-kit", ".turbo",
     ".parcel-cache", ".vite", ".angular", ".yarn", ".pnpm-store", ".npm", ".gradle", ".m2",
     ".ivy2", ".cargo", ".nuget", ".terraform", ".jekyll-cache"}
)  # fmt: skip
"""Names of folders that package managers and builds fill, with all below, from files elsewhere."""
_MADE_AGAIN_AT_THE_END = frozenset(
    {"venv", "vendor", "target", "dist", "deps", "_build", "_site", "cache"}
)
"""The same, of names that may stand for something else above other folders."""
_LOGS = frozenset({"log", "logs"})
_TOOL_CACHES = (
    "/go/pkg", "/usr/local/cargo/registry", "/usr/local/bundle", "/root/.cache", "/root/.npm",
    "/var/cache", "/tmp", "/var/tmp"
)  # fmt: skip


def claim_of_folder(image: str, destination: str, pgdata: str = "") -> Claim | None:
    """Return the claim of a folder or file of the host that a service mounts, or None.

    Not each claim is one of data (`is_data`).

    Args:
        image: The service's image.
        destination: Where it is mounted in its containers.
        pgdata: The value of PGDATA, where the service or its image sets it.

    >>> claim_of_folder("ghcr.io/immich-app/immich-server:release", "/data").kind
    'files'
    >>> claim_of_folder("nginx:1.27", "/etc/nginx/conf.d").kind
    'configuration'
    """
    path = normpath(destination)
    use = VolumeUse(image, path, read_only=False, pgdata=pgdata)
    return claim_of_rows((*IMAGES, *_FOLDERS), use) or _claim_of_place(path) or claim_of_path(use)


def is_data(claim: Claim) -> bool:
    """Return whether a claim about a folder says that it holds data, or may hold some.

    A disposable one with further checks (`Claim.looks`) may.
    """
    if claim.kind in BY_HAND:
        return False
    return claim.tier is not Tier.DISPOSABLE or bool(set(claim.looks) - {ROOT})


def _claim_of_place(path: str) -> Claim | None:
    """Return the claim of a path that has the same meaning for every image, or None."""
    if _is_in(path, _OF_THE_SYSTEM):
        return Claim(_D, "system", f"mounted at {path}: a part of the machine")
    if _is_in(path, INIT_FOLDERS):
        return Claim(_I, "configuration", f"mounted at {path}: scripts for the first start")
    if _is_in(path, _PAGES):
        return Claim(_I, "code", f"mounted at {path}: pages that a web server serves")
    if _is_in(path, _SECRETS):
        return Claim(Tier.CRITICAL, "secrets", f"mounted at {path}: keys")
    if _is_in(path, _CONFIGURATION):
        if _KEYS.search(path):
            return Claim(_I, "certificates", f"mounted at {path}: certificates")
        return Claim(_I, "configuration", f"mounted at {path}: configuration")
    if _is_in(path, _TOOL_CACHES):
        return Claim(_D, "cache", f"mounted at {path}: cache")
    parts = path.split("/")
    made = next((part for part in parts if part in _MADE_AGAIN), None)
    if made is not None or parts[-1] in _MADE_AGAIN_AT_THE_END:
        why = f"mounted at {path}: {made or parts[-1]} is made again by its tool"
        return Claim(_D, "cache", why)
    if parts[-1] in _LOGS:
        return Claim(_D, "logs", f"mounted at {path}: logs")
    return None


def _is_in(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
