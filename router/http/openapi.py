"""The OpenAPI document's schemas of what FastAPI does not see: the body and the events of the token path."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

_REF_TEMPLATE = "#/components/schemas/{model}"


def schema_ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's schema, which the app's `documented` models must hold."""
    return {"$ref": _REF_TEMPLATE.format(model=model.__name__)}


def header_parameter(name: str, description: str) -> dict[str, Any]:
    """A request header that a route reads by itself."""
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


class DocumentedApp(FastAPI):
    """A FastAPI application whose OpenAPI document also describes the models in `documented`."""

    documented: tuple[type[BaseModel], ...] = ()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, built on the first call."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in self.documented:
                schema = model.model_json_schema(ref_template=_REF_TEMPLATE)
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
        assert self.openapi_schema is not None, "FastAPI keeps the document it builds"
        return self.openapi_schema
