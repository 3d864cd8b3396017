"""What folders of the host hold, by the images and paths that popular stacks document."""

import pytest

from safe_compose.core.known_folders import BY_HAND, claim_of_folder, is_data
from safe_compose.core.known_images import VolumeUse, claim_of_image
from safe_compose.core.tier import Tier

CRITICAL, IMPORTANT, DISPOSABLE = Tier


@pytest.mark.parametrize(
    ("image", "path", "tier", "kind"),
    [
        ("ghcr.io/immich-app/immich-server:release", "/data", CRITICAL, "files"),
        ("ghcr.io/immich-app/immich-server:release", "/data/library", CRITICAL, "files"),
        ("ghcr.io/immich-app/immich-server:release", "/data/thumbs", IMPORTANT, "files"),
        ("ghcr.io/immich-app/immich-server:v1.120", "/usr/src/app/upload/encoded-video", IMPORTANT, "files"),
        ("mine/immich-server", "/data/thumbs", CRITICAL, "files"),
        ("ghcr.io/immich-app/immich-machine-learning:release", "/cache", DISPOSABLE, "cache"),
        ("ghcr.io/immich-app/postgres:14-vectorchord0.4.3", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("nextcloud:31-apache", "/var/www/html", CRITICAL, "files"),
        ("nextcloud:31-apache", "/var/www/html/data", CRITICAL, "files"),
        ("ghcr.io/paperless-ngx/paperless-ngx:latest", "/usr/src/paperless/media", CRITICAL, "files"),
        ("ghcr.io/paperless-ngx/paperless-ngx:latest", "/usr/src/paperless/consume", IMPORTANT, "files"),
        ("vaultwarden/server:latest", "/data/", CRITICAL, "sqlite"),
        ("docker.gitea.com/gitea:1.24-rootless", "/etc/gitea", CRITICAL, "files"),
        ("codeberg.org/forgejo/forgejo:13", "/data", CRITICAL, "files"),
        ("ghcr.io/home-assistant/home-assistant:stable", "/config", CRITICAL, "files"),
        ("docker.n8n.io/n8nio/n8n", "/home/node/.n8n", CRITICAL, "files"),
        ("langgenius/dify-api:1.13.3", "/app/api/storage", CRITICAL, "files"),
        ("langgenius/dify-plugin-daemon:0.5.3-local", "/app/storage", CRITICAL, "files"),
        ("langgenius/qdrant:v1.8.3", "/qdrant/storage", CRITICAL, "qdrant"),
        ("supabase/postgres:15.8", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("supabase/postgres:15.8", "/etc/postgresql-custom", CRITICAL, "secrets"),
        ("supabase/storage-api:v1.44.2", "/var/lib/storage", CRITICAL, "files"),
        ("supabase/studio:2026", "/app/snippets", CRITICAL, "files"),
        ("ghcr.io/mailcow/dovecot:2.34", "/var/vmail", CRITICAL, "files"),
        ("mailcow/dovecot:1.25", "/mail_crypt", CRITICAL, "secrets"),
        ("mailcow/postfix:1.72", "/var/spool/postfix", CRITICAL, "files"),
        ("mailcow/acme:1.85", "/var/lib/acme", IMPORTANT, "certificates"),
        ("clickhouse/clickhouse-server:24.3", "/var/lib/clickhouse", CRITICAL, "clickhouse"),
        ("ghcr.io/plausible/community-edition:v2", "/var/lib/plausible", IMPORTANT, "certificates"),
        ("louislam/uptime-kuma:1", "/app/data", CRITICAL, "sqlite"),
        ("wordpress:6", "/var/www/html/wp-content", CRITICAL, "files"),
        ("wordpress:6", "/var/www/html/wp-content/themes", CRITICAL, "files"),
        ("ghost:5", "/var/lib/ghost/content", CRITICAL, "files"),
        ("gitlab/gitlab-ce", "/etc/gitlab", CRITICAL, "files"),
        ("gitlab/gitlab-ce", "/var/opt/gitlab", CRITICAL, "files"),
        ("ghcr.io/goauthentik/server:2026.2", "/data", CRITICAL, "files"),
        ("ghcr.io/goauthentik/server:2025.2", "/media", CRITICAL, "files"),
        ("lscr.io/linuxserver/sonarr", "/config", CRITICAL, "files"),
        ("lscr.io/linuxserver/mariadb", "/config", CRITICAL, "mariadb"),
        ("lscr.io/linuxserver/wireguard", "/etc/wireguard", CRITICAL, "secrets"),
        ("pihole/pihole", "/etc/pihole", CRITICAL, "sqlite"),
        ("shop", "/etc/openvpn/keys", CRITICAL, "secrets"),
        ("nginx", "/etc/nginx/ssl", IMPORTANT, "certificates"),
        ("nginx", "/etc/letsencrypt", IMPORTANT, "certificates"),
        ("traefik:v3", "/etc/traefik/acme", IMPORTANT, "certificates"),
        ("shop", "/srv/shop/uploads", CRITICAL, "files"),
        ("shop", "/app/dist/uploads", CRITICAL, "files"),
        ("quay.io/jupyter/scipy-notebook", "/home/jovyan/work", CRITICAL, "files"),
    ],
)  # fmt: skip
def test_data_of_popular_stacks_is_known(image: str, path: str, tier: Tier, kind: str) -> None:
    claim = claim_of_folder(image, path)
    assert claim is not None
    assert (claim.tier, claim.kind) == (tier, kind)
    assert is_data(claim) == (tier is not DISPOSABLE)


@pytest.mark.parametrize(
    ("image", "path", "kind"),
    [
        ("nginx:1.27", "/etc/nginx/conf.d", "configuration"),
        ("nginx:1.27", "/usr/share/nginx/html", "code"),
        ("prom/prometheus", "/etc/prometheus", "configuration"),
        ("prom/prometheus", "/etc/prometheus/file_sd", "configuration"),
        ("grafana/grafana", "/etc/grafana/provisioning", "configuration"),
        ("grafana/grafana", "/var/lib/grafana/dashboards", "configuration"),
        ("traefik:v3", "/etc/traefik/dynamic", "configuration"),
        ("traefik:v3", "/var/run/docker.sock", "system"),
        ("postgres:17", "/docker-entrypoint-initdb.d", "configuration"),
        ("postgres:17", "/docker-entrypoint-initdb.d/init.sql", "configuration"),
        ("mariadb:11", "/etc/mysql/conf.d", "configuration"),
        ("php:8-fpm", "/usr/local/etc/php/conf.d", "configuration"),
        ("keycloak/keycloak:26", "/opt/keycloak/data/import", "configuration"),
        ("quay.io/keycloak/keycloak:26", "/opt/keycloak/themes/shop", "code"),
        ("kong:2.8.1", "/home/kong/kong.yml", "configuration"),
        ("apache/airflow:3", "/opt/airflow/dags", "code"),
        ("apache/airflow:3", "/opt/airflow/logs", "logs"),
        ("wordpress:6", "/var/www/html/wp-content/themes/shop", "code"),
        ("wordpress:6", "/var/www/html/wp-content/plugins/shop/inc", "code"),
        ("ghost:5", "/var/lib/ghost/content/themes/shop", "code"),
        ("supabase/edge-runtime:v1", "/home/deno/functions", "code"),
        ("ghcr.io/goauthentik/server", "/templates", "configuration"),
        ("langgenius/dify-sandbox:0.2", "/dependencies", "configuration"),
        ("mailcow/rspamd:1.93", "/etc/rspamd/override.d", "configuration"),
        ("mailcow/phpfpm:1.85", "/web", "configuration"),
        ("certbot/certbot", "/var/www/html", "cache"),
        ("node:22", "/app/node_modules", "cache"),
        ("python:3.13", "/app/.venv", "cache"),
        ("rust:1", "/code/target", "cache"),
        ("rust:1", "/usr/local/cargo/registry", "cache"),
        ("ruby:3", "/usr/local/bundle", "cache"),
        ("golang:1", "/go/pkg/mod", "cache"),
        ("gradle:8", "/home/gradle/.gradle", "cache"),
        ("nginx", "/var/log/nginx", "logs"),
        ("shop", "/app/logs", "logs"),
        ("shop", "/app/vendor", "cache"),
        ("eclipse-temurin", "/root/.m2/repository", "cache"),
        ("squidfunk/mkdocs-material", "/docs/docs", "code"),
        ("hugomods/hugo", "/src/static/images", "code"),
        ("jekyll/jekyll", "/srv/jekyll", "code"),
    ],
)  # fmt: skip
def test_code_configuration_and_what_is_made_again_is_no_data(
    image: str, path: str, kind: str
) -> None:
    claim = claim_of_folder(image, path)
    assert claim is not None
    assert claim.kind == kind
    assert not is_data(claim)


@pytest.mark.parametrize(
    ("image", "path"),
    [("node:22", "/app"), ("php:8", "/var/www/html"), ("python", "/code"), ("shop", "/data")],
)
def test_nothing_is_said_of_paths_that_mean_something_else_for_each_image(
    image: str, path: str
) -> None:
    assert claim_of_folder(image, path) is None


def test_pgdata_may_be_anywhere() -> None:
    claim = claim_of_folder("shop/db", "/srv/cluster", pgdata="/srv/cluster/17")
    assert claim is not None
    assert claim.tier is CRITICAL


def test_volumes_are_never_taken_for_code_or_configuration() -> None:
    for image, path in [("nginx", "/etc/nginx/conf.d"), ("wordpress", "/var/www/html")]:
        claim = claim_of_image(VolumeUse(image, path, read_only=False))
        assert claim is None or claim.kind not in BY_HAND


def test_a_row_of_an_inner_path_decides_for_volumes_as_well() -> None:
    image = "ghcr.io/immich-app/immich-server:release"
    tiers = {
        path: claim.tier
        for path in ("/data", "/data/thumbs")
        if (claim := claim_of_image(VolumeUse(image, path, read_only=False)))
    }
    assert tiers == {"/data": CRITICAL, "/data/thumbs": IMPORTANT}


def test_a_folder_of_grafana_may_hold_what_a_person_made() -> None:
    claim = claim_of_folder("grafana/grafana", "/var/lib/grafana")
    assert claim is not None
    assert claim.tier is DISPOSABLE
    assert is_data(claim)
