"""The compose files that many tests start: an app with files, alone or with a database."""

from testing.projects import ComposeProject

JOB = ("--non-interactive", "--backup-first")
"""The flags of a deploy job."""
NO_TRIALS = {"safe-compose.toml": "[backup]\ntrial_limit = 0\n"}
"""For `files`: no server is started to try a database out before a deletion, none on a copy of what
crashed, and none to count.
"""
FILES = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads"]
volumes:
  uploads:
"""
"""One critical volume of files: the quickest project that is guarded."""


def shop(password: str, image: str = "postgres:15") -> str:
    """Return the app with PostgreSQL, with user and database `shop`."""
    return f"""
services:
  db:
    image: {image}
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: {password}, POSTGRES_DB: shop}}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    depends_on: {{db: {{condition: service_healthy}}}}
    volumes: ["uploads:/app/uploads"]
volumes:
  data:
  uploads:
"""


def write_file(
    project: ComposeProject,
    text: str = "a photo",
    name: str = "uploads/one.jpg",
    service: str = "app",
) -> None:
    """Put a file into the app, which must run."""
    project.exec(service, "dd", f"of=/app/{name}", "status=none", input=text)


def read_file(project: ComposeProject, name: str = "uploads/one.jpg", service: str = "app") -> str:
    return project.exec(service, "cat", f"/app/{name}")
