"""Django's tutorial application: `h2log run tests.frameworks.django_app:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import django  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import (  # type: ignore[import-untyped]
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path  # type: ignore[import-untyped]

from tests.frameworks import facts

settings.configure(
    DEBUG=False,
    SECRET_KEY="this is a test",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
)


async def hello(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"hello": "world"})


async def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"number": number, "double": 2 * number})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(facts.chunks(), content_type="text/plain")


async def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    content = file.read()
    return JsonResponse(
        {
            "title": request.POST["title"],
            "name": file.name,
            "size": len(content),
            "digest": facts.digest(content),
        }
    )


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def made() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"event: count\ndata: %d\n\n" % number

    return StreamingHttpResponse(made(), content_type="text/event-stream")


async def noted(request: HttpRequest, key: str) -> HttpResponse:
    return JsonResponse(facts.noted(key))


async def endless(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(facts.ticks(key), content_type="text/plain")


async def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("this is meant to fail")


async def broken(request: HttpRequest) -> StreamingHttpResponse:
    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("this is meant to break")

    return StreamingHttpResponse(made(), content_type="text/plain")


async def place(request: HttpRequest) -> HttpResponse:
    return JsonResponse(facts.place(request.scope))


def thread(request: HttpRequest) -> HttpResponse:
    return JsonResponse(facts.in_thread())


urlpatterns = [
    path("", hello),
    path("items/<int:number>", item),
    path("stream", stream),
    path("upload", upload),
    path("events", events),
    path("noted/<key>", noted),
    path("endless/<key>", endless),
    path("fail", fail),
    path("broken", broken),
    path("place", place),
    path("thread", thread),
]

django.setup()
app = get_asgi_application()
