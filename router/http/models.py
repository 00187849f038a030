"""`GET /v1/models` and `GET /v1/models/{id}`: which model is served here."""

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from core.errors import UnknownModelError
from router.config import RouterConfig
from router.describe import describe
from router.http.errors import document_errors


class Model(BaseModel):
    """A model that is served here."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When this router started, in seconds since 1970.")
    owned_by: Literal["baton"] = "baton"
    max_model_len: int = Field(description="Most tokens of prompt plus answer, as in vLLM.")


class ModelList(BaseModel):
    """All models that are served here."""

    object: Literal["list"] = "list"
    data: list[Model]


def models_router(config: RouterConfig) -> APIRouter:
    """The routes that tell which model is served."""
    router = APIRouter(tags=["models"])
    model = Model(id=config.served_model_name, created=int(time.time()), max_model_len=config.max_model_len)

    @router.get("/v1/models", responses=document_errors(401, 403))
    async def list_models() -> ModelList:
        """Lists the models served here: one."""
        return ModelList(data=[model])

    @router.get("/v1/models/{model_id:path}", responses=document_errors(401, 403, 404))
    async def retrieve_model(model_id: str) -> Model:
        """Describes one model."""
        if model_id != model.id:
            raise UnknownModelError(f"model {describe(model_id)} is not served here; use {model.id!r}", param="model")
        return model

    return router
