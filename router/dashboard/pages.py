"""`GET /dashboard` and the files it is made of. They come with the package: no CDN, no build step."""

from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

PAGE = "index.html"
SCRIPTS = ("dashboard.js", "cards.js", "dom.js", "moves.js", "operations.js", "states.js", "timeline.js")
MEDIA_TYPES = {
    PAGE: "text/html; charset=utf-8",
    "dashboard.css": "text/css; charset=utf-8",
    **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8"),
    "icon.svg": "image/svg+xml",
}
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # another version of the router may have other files
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page."""

    content: bytes
    media_type: str

    def response(self) -> Response:
        """The answer that sends it."""
        return Response(self.content, headers=SECURITY_HEADERS, media_type=self.media_type)


def load_page() -> dict[str, PageFile]:
    """The page's files by name."""
    folder = files("router.dashboard") / "page"
    return {name: PageFile((folder / name).read_bytes(), media_type) for name, media_type in MEDIA_TYPES.items()}


def pages_router() -> APIRouter:
    """The routes that serve the page."""
    router = APIRouter(include_in_schema=False)
    page = load_page()

    @router.get("/dashboard")
    async def dashboard() -> Response:
        """The page."""
        return page[PAGE].response()

    @router.get("/dashboard/{name}")
    async def page_file(name: str) -> Response:
        """One of its files."""
        if name not in page:
            raise HTTPException(404)
        return page[name].response()

    return router
