"""The JSON bodies of orders about roles, and of their answer. Not what they do: `router.dashboard.orders`.

Types are strict, as in the chat API; a field that is unknown, missing or ill-typed is refused by name.
"""

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.request import Role
from router.http.invalid_field import invalid_field
from router.roles.changes import RoleStage

MAX_WORKERS = 1_000_000  # of a split; the fleet says how many there are

WorkerName = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=MAX_WORKERS)]
OrderT = TypeVar("OrderT", bound="Order")


class Order(BaseModel):
    """What an operator wants."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """The order of a decoded body.

        Raises:
            InvalidRequestError: a field is wrong; it is named.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise invalid_field(error) from None


class SetRoleOrder(Order):
    """Changes a worker's role and pins it."""

    worker: WorkerName
    # Enumerations have no strict form in JSON.
    role: Annotated[Role | None, Field(strict=False)] = Field(default=None, description="Null lifts the pin.")
    epoch: int = Field(0, ge=0, description="Refused unless the worker's role epoch is this; 0 takes any.")
    incarnation: int = Field(0, ge=0, description="Refused unless the worker's incarnation is this; 0 takes any.")


class RebalanceOrder(Order):
    """Brings about a split by as few changes as possible, and pins every worker."""

    num_prefill: Count
    num_decode: Count
    is_dry_run: bool = Field(default=False, description="Only say what would be done.")


class WorkerOrder(Order):
    """Names a worker."""

    worker: WorkerName


class AutoOrder(Order):
    """Has the controller decide, or not."""

    is_auto: bool


class OrderAnswer(BaseModel):
    """What is known as soon as the order has been given."""

    messages: list[str] = Field(description="One line for people each.")
    stage: RoleStage = Field(description="How far it has come.")


ORDERS = (SetRoleOrder, RebalanceOrder, WorkerOrder, AutoOrder)
