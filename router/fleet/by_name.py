"""Finds a worker that people name. Programs name incarnations."""

from collections.abc import Iterable

from core.errors import InvalidRequestError
from router.describe import describe
from router.fleet.link import WorkerLink


def link_named(links: Iterable[WorkerLink], name: str) -> WorkerLink:
    """The attached worker of a name.

    Raises:
        InvalidRequestError: there is none; names those there are.
    """
    by_name = {link.worker.name: link for link in links}
    if name not in by_name:
        there = ", ".join(by_name) or "none"
        raise InvalidRequestError(f"no worker {describe(name)} is attached; there are: {there}", param="worker")
    return by_name[name]
