"""The dashboard at ``/``: fixed bytes out of memory, under a strict content security policy.

The files are a table made at start, so no path of a request ever reaches the file system.
"""

import json
from collections.abc import Mapping

from attrs import field, frozen
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ... import web

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " object-src 'none'; require-trusted-types-for 'script'"
)
"""Nothing from elsewhere, nothing inline (W3C, CSP Level 3; ``'self'`` covers our WebSocket).
Trusted types without a policy: a browser refuses to make HTML of text, whatever a script tries.
"""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",  # keep it, but ask: another version of us may run tomorrow
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@frozen
class Dashboard:
    """The page of one port.  ``klines``: the WebSocket endpoint is on this port; ``operators``:
    metrics and status are.  The page shows what there is, and says where the rest is."""

    klines: bool
    operators: bool
    _files: Mapping[str, web.Asset] = field(factory=web.load)

    def routes(self) -> list[Route]:
        page = json.dumps({"klines": self.klines, "operators": self.operators}).encode()
        assets = {**self._files, "page.json": web.asset(page, web.MEDIA_TYPES["json"])}

        async def index(request: Request) -> Response:
            return _answer(request, assets["index.html"])

        async def file(request: Request) -> Response:
            found = assets.get(request.path_params["name"])
            if found is None:
                raise HTTPException(404)
            return _answer(request, found)

        return [Route("/", index), Route("/web/{name:path}", file)]


def _answer(request: Request, asset: web.Asset) -> Response:
    headers = {**_HEADERS, "ETag": asset.etag}
    if _is_known(asset.etag, request.headers.getlist("if-none-match")):
        return Response(None, 304, headers)
    return Response(asset.body, 200, headers, asset.media_type)


def _is_known(etag: str, fields: list[str]) -> bool:
    """Whether If-None-Match names it, by weak comparison (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for value in fields for tag in value.split(",")]
    return etag in tags or "*" in tags
