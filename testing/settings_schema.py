"""Make the JSON Schemas of the settings files in docs/schema, from the models that read them.

.venv/bin/python -m testing.settings_schema     # `make schema`

An editor uses them to complete keys and to mark faults. The descriptions are those of the table in
docs/reference.md.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from safe_compose.core.tier import Tier
from safe_compose.settings import schema
from testing.projects import ROOT

FOLDER = ROOT / "docs" / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLES = {
    "safe-compose": "safe-compose.toml, the settings of a project",
    "config": "config.toml, the settings of a user",
    "policy": "policy.toml, the floors of a machine",
    "compose": "x-safe-compose in a compose file",
}
TIER = {"type": "string", "enum": [tier.value for tier in Tier]}


def schemas() -> dict[str, dict[str, Any]]:
    """Return each schema by the name of its file."""
    return {
        "safe-compose": _of_model(schema._ProjectFile),
        "config": _of_model(schema._UserFile),
        "policy": _of_model(schema._PolicyFile),
        "compose": _of_compose_files(),
    }


def text(name: str) -> str:
    """Return the content of a schema's file."""
    made = {"$schema": DIALECT, "title": TITLES[name], **schemas()[name]}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _of_model(model: Any) -> dict[str, Any]:
    made = _tidied(model.model_json_schema())
    described = dict(_descriptions())
    for key, body in _keys(made, made["$defs"], ""):
        if key in described:
            body["description"] = described[key]
    return {name: body for name, body in made.items() if name != "title"}


def _of_compose_files() -> dict[str, Any]:
    """Describe our own key alone (`read_tiers`); everything else of a compose file is compose's."""
    of_volume = {"anyOf": [TIER, _table(tier=TIER)]}
    of_volumes = {"type": "object", "additionalProperties": of_volume}
    of_project = {
        "description": "tier of every volume of the project",
        "anyOf": [TIER, _table(tier=TIER, volumes=of_volumes)],
    }
    volume = {"type": ["object", "null"], "properties": {"x-safe-compose": of_volume}}
    return {
        "type": "object",
        "properties": {
            "x-safe-compose": of_project,
            "volumes": {"type": ["object", "null"], "additionalProperties": volume},
        },
    }


def _table(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _tidied(part: Any) -> Any:
    """Leave out what TOML has not (null) and what only Python says (titles, defaults, names)."""
    if isinstance(part, list):
        return [_tidied(item) for item in part]
    if not isinstance(part, dict):
        return part
    part = {
        name: _tidied(body)
        for name, body in part.items()
        if not (name == "title" and isinstance(body, str)) and name != "default"
    }
    if "anyOf" in part:
        kinds = [kind for kind in part["anyOf"] if kind != {"type": "null"}]
        part = {**part, "anyOf": kinds}
        if len(kinds) == 1:
            del part["anyOf"]
            part = {**kinds[0], **part}
    if "patternProperties" in part:
        part["additionalProperties"] = False
    if "$ref" in part:
        part["$ref"] = part["$ref"].replace("/_", "/")
    if "$defs" in part:
        part["$defs"] = {name.lstrip("_"): body for name, body in part["$defs"].items()}
    return part


def _keys(
    part: dict[str, Any], definitions: dict[str, Any], prefix: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key as the reference names it, with the part of the schema that describes it."""
    for name, body in part.get("properties", {}).items():
        yield f"{prefix}{name}", body
        yield f"{prefix}{name}.NAME", body
        yield f"{prefix}{name}.PATH", body
        patterns = body.get("patternProperties", {})
        inner = [(f"{name}.NAME.", kind) for kind in patterns.values()]
        if "$ref" in body:
            inner = [(f"{name}.", body)]
        for path, kind in inner:
            if "$ref" in kind:
                yield from _keys(
                    definitions[kind["$ref"].rpartition("/")[2]], definitions, prefix + path
                )


def _descriptions() -> Iterator[tuple[str, str]]:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    yield from re.findall(
        r"^\| `([a-z_A-Z.]+)` \| (?:both|user|project) \| (.*) \|$", page, re.MULTILINE
    )


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name in TITLES:
        path = FOLDER / f"{name}.json"
        path.write_text(text(name), "utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
