"""The OpenAPI 3.1 document: paths by hand, schemas from the dataclasses of `xrec_sdk.sync`."""

from __future__ import annotations

from typing import Any

import msgspec
from xrec_sdk import sync
from xrec_sdk.sync import EraseRequest, Letter, Limits, Page, Push, PushAnswer, Receipt, Registered, RegisterRequest
from xrec_sdk.sync_body import MAX_NUMBER
from xrec_sdk.version import __version__

from xrec_server.service import Devices, Export

_MESSAGES = (Push, PushAnswer, Page, RegisterRequest, Registered, EraseRequest, Receipt, Devices, Letter, Export)
_ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}
_NAME = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_REFUSALS = {
    "400": "Not a message of the protocol.",
    "401": "No token, or one that is not valid here.",
    "413": "The body is too long, as sent or as inflated.",
    "415": "Content-Encoding is neither gzip nor identity.",
    "429": "The profile's quota is spent; Retry-After says until when.",
    "503": "The disk or the database can't be written now, or the server stops; Retry-After says when to come again.",
}


def document(limits: Limits) -> dict[str, Any]:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(_MESSAGES, ref_template="#/components/schemas/{name}")
    for name, schema in schemas.items():
        if name not in ("Op", "Hlc"):  # An operation that is out of bounds is rejected alone.
            _bound(schema)
    for name in ("RegisterRequest", "EraseRequest", "Letter"):
        schemas[name]["properties"]["v"]["const"] = sync.VERSION
    schemas["EraseRequest"]["properties"]["id"] |= {"minLength": 1, "maxLength": limits.id_characters}
    schemas["Push"]["properties"]["ops"]["maxItems"] = limits.push_ops
    return {
        "openapi": "3.1.0",
        "info": {"title": "xrec profile sync", "version": __version__, "description": "See docs/sync-protocol.md."},
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _bound(schema: Any) -> None:
    """Give every whole number of a schema the range of the protocol."""
    if isinstance(schema, list):
        for one in schema:
            _bound(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "integer":
            schema |= {"minimum": 0, "maximum": MAX_NUMBER}
        for one in list(schema.values()):
            _bound(one)


def _paths() -> dict[str, Any]:
    open_to_all: dict[str, Any] = {"security": []}
    return {
        "/v1/profile/register": {"post": _operation("Give a device a name.", "Registered", body="RegisterRequest")},
        "/v1/profile/push": {"post": _operation("Apply operations of a device.", "PushAnswer", body="Push")},
        "/v1/profile/changes": {"get": _operation("Return rows after a cursor.", "Page", query=_changes_query())},
        "/v1/profile/erase": {"post": _operation("Erase the profile.", "Receipt", body="EraseRequest")},
        "/v1/profile/export": {"get": _operation("Return all that is held of the profile.", "Export")},
        "/v1/devices": {"get": _operation("Return the profile's devices.", "Devices")},
        "/v1/devices/{id}": {"delete": _removal()},
        "/v1/devices/{id}/key": {
            "post": _of_device("Leave a letter for a device, in place of the one before.", None, body="Letter"),
            "get": _of_device("Return the letter that was left for a device of the token.", "Letter"),
        },
        "/healthz": {"get": _operation("Say whether the database answers.", None) | open_to_all},
        "/metrics": {"get": _metrics() | open_to_all},
    }


def _operation(
    summary: str, answer: str | None, *, body: str | None = None, query: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    schema = _ref(answer) if answer else {"type": "object"}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done; `code` says if the rules refused.", **_json(schema)},
            **_refusals(),
        },
    }
    if body:
        operation["requestBody"] = {"required": True, **_json(_ref(body))}
    if query:
        operation["parameters"] = query
    return operation


def _removal() -> dict[str, Any]:
    responses = {"204": {"description": "It is gone, or was."}, **_refusals()}
    return {"summary": "Remove a device.", "parameters": [_NAME], "responses": responses}


def _of_device(summary: str, answer: str | None, *, body: str | None = None) -> dict[str, Any]:
    operation = _operation(summary, answer, body=body) | {"parameters": [_NAME]}
    if answer is None:
        del operation["responses"]["200"]
        operation["responses"]["204"] = {"description": "Done."}
    operation["responses"]["404"] = {"description": "No such device.", **_json(_ref("Error"))}
    return operation


def _metrics() -> dict[str, Any]:
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": "Counters for Prometheus.", "responses": {"200": {"description": "The text format.", **text}}}


def _changes_query() -> list[dict[str, Any]]:
    number = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER}
    fields: dict[str, dict[str, Any]] = {"device": {"type": "string"}, "generation": number, "after": number}
    query = [{"name": name, "in": "query", "required": True, "schema": schema} for name, schema in fields.items()]
    wait = {"type": "integer", "minimum": 0, "maximum": 60, "default": 0}
    return [*query, {"name": "wait", "in": "query", "required": False, "schema": wait}]


def _refusals() -> dict[str, Any]:
    return {status: {"description": text, **_json(_ref("Error"))} for status, text in _REFUSALS.items()}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
