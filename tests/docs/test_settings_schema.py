"""docs/schema: what the models give, and as strict as they are with every example."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from test_docs import PAGES, TOML, blocks

from safe_compose.settings import schema
from testing import settings_schema
from testing.projects import ROOT

VALIDATORS = {
    name: Draft202012Validator({"$schema": settings_schema.DIALECT, **made})
    for name, made in settings_schema.schemas().items()
}


def faults(name: str, document: Any) -> list[str]:
    return [fault.message for fault in VALIDATORS[name].iter_errors(document)]


@pytest.mark.parametrize("name", settings_schema.TITLES)
def test_a_schema_is_what_the_models_give(name: str) -> None:
    written = (settings_schema.FOLDER / f"{name}.json").read_text("utf-8")
    assert written == settings_schema.text(name), "make schema"
    Draft202012Validator.check_schema(json.loads(written))


def test_every_key_that_the_reference_describes_has_its_description() -> None:
    described = dict(settings_schema._descriptions())
    text = settings_schema.text("safe-compose") + settings_schema.text("config")
    assert len(described) >= 20
    assert not [key for key, said in described.items() if json.dumps(said)[1:-1] not in text]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{name}-{number}") for name, number, block in TOML]
)
def test_every_toml_snippet_of_the_documents_is_valid(block: str) -> None:
    name = (
        "policy" if "[require]" in block else "config" if "[projects]" in block else "safe-compose"
    )
    assert faults(name, tomllib.loads(block)) == []


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, "yaml"))
        if "x-safe-compose" in block
    ],
)
def test_every_yaml_snippet_of_the_documents_is_valid(block: str) -> None:
    assert faults("compose", YAML(typ="safe").load(block)) == []


KEYS = {
    "volumes": ["x = 'critical'", "x = 'precious'", "x = 1", "'' = 'critical'"],
    "folders": ["'./data' = 'critical'", "'/x*' = 'disposable'", "x = 'precious'", "'' = 'critical'"],
    "project": ["tier = 'important'", "tier = ''", "name = 'x'"],
    "store": [
        "path = '~/x'", "path = ''", "max_size = '50GiB'", "max_size = ' 1.5 tb '", "max_size = 10",
        "max_size = 0", "max_size = -1", "max_size = 'much'", "max_size = true", "shared = true",
        "shared = 'yes'", "folder = 'x'",
    ],
    "backup": [
        "trial_limit = 0", "trial_limit = '4GiB'", "trial_limit = '4XB'", "trial_limit = 1.5",
        "max_folder = '1TB'", "max_folder = 'much'",
        "stop_timeout = 1.5", "stop_timeout = '5m'", "stop_timeout = '5 d'", "stop_timeout = 0",
        "stop_timeout = 86401", "stop_timeout = true", "safety = 'trash'", "safety = 'hope'",
        "method = 'physical'", "method = 1",
    ],
    "retention": [
        "keep_last = 1", "keep_last = 0", "keep_last = '1'", "keep_daily = 100001",
        "keep_within = '14d'", "keep_within = '14'", "keep_within = 14",
    ],
    "encrypt": ["recipients = []", "recipients = ['x']", "recipients = 'x'", "identity = 'k'"],
    "schedule": [
        "webhook = 'https://example.org/x?y'", "webhook = 'ftp://example.org'", "webhook = 'x y'",
    ],
    "offsite.nas": [
        "url = 'file:///mnt'", "required = true", "url = 'file:///mnt'\nrequired = 1",
        "url = 's3://bucket/p'\nregion = 'eu-central-1'", "url = 's3://bucket/p'\nregion = 'EU!'",
        "url = 'sftp://h/p'\nsigned = true\nverify_key = []",
    ],
    "offsite.'a b'": ["url = 'file:///mnt'"],
    "unknown": ["x = 1"],
}  # fmt: skip


@pytest.mark.parametrize(
    "snippet", [f"[{section}]\n{line}" for section, lines in KEYS.items() for line in lines]
)
def test_a_schema_and_the_program_agree(snippet: str) -> None:
    document = tomllib.loads(snippet)
    for name, own in (("safe-compose", True), ("config", False)):
        said: list[str] = []
        path = Path("/srv/shop/safe-compose.toml")
        schema.parse(path, snippet.encode(), Path("/home/me"), said, own=own)
        # A relative path means something only next to a project's file, which no schema can say.
        said = [fault for fault in said if "must begin with" not in fault]
        assert bool(faults(name, document)) == bool(said), said


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({"x-safe-compose": "critical"}, True),
        ({"x-safe-compose": {"tier": "critical", "volumes": {"a": "disposable"}}}, True),
        ({"volumes": {"a": None, "b": {"x-safe-compose": {"tier": "important"}}}}, True),
        ({"x-safe-compose": "precious"}, False),
        ({"volumes": {"b": {"x-safe-compose": True}}}, False),
    ],
)
def test_the_key_in_a_compose_file_is_described(document: Any, valid: bool) -> None:
    assert (not faults("compose", document)) is valid


def test_the_reference_names_each_schema() -> None:
    page = (ROOT / "docs/reference.md").read_text("utf-8")
    assert set(re.findall(r"\(schema/([\w-]+)\.json\)", page)) == set(settings_schema.TITLES)
