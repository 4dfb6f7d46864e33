"""Requests that a page of another site has its visitor send."""

from __future__ import annotations

from h2log import HTTPError, Request, Response
from h2log.app.middleware import CallNext

__all__ = ["same_origin"]


async def same_origin(request: Request, call_next: CallNext) -> Response:
    """Refuse, with 403, what another site's page sends, unless it changes nothing.

    A browser says so itself: in Sec-Fetch-Site, an old one in Origin (as Go's CrossOriginProtection
    reads them). What has neither comes from no browser, which no page can make send anything.
    SameSite keeps the cookie from such requests; this also keeps them from signing anybody in.
    """
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        own = f"{request.scheme}://{request.authority}"
        site = request.headers.get("sec-fetch-site")
        if site is None:
            site = "same-origin" if request.headers.get("origin", own) == own else "cross-site"
        if site not in ("same-origin", "none"):
            raise HTTPError(403, "This was sent by a page of another site.")
    return await call_next(request)
