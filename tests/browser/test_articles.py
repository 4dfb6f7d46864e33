"""The sample site in a browser."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import Visitor

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect


def test_the_notes_are_read_in_order(visit: Visitor) -> None:
    """From the first page through all eight notes and back, by their links."""
    articles = visit("h2log.examples.articles:app")
    page = articles.page
    articles.open("/")
    expect(page).to_have_title("h2log: one connection, written down")
    titles = page.locator(".contents strong").all_inner_texts()
    assert len(titles) == 8
    page.locator(".contents a").first.click()
    for title in titles:
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        articles.came_by_http2()
        page.get_by_role("link", name=re.compile("^After")).click()
    expect(page).to_have_url(f"{articles.url}/")
    pages = [line.path for line in articles.lines() if line.path.endswith((".html", "/"))]
    assert len(pages) == 10
    assert pages[0] == pages[-1] == "/"


def test_each_note_is_one_click_away(visit: Visitor) -> None:
    """Every link of the first page leads to its note; back leads back."""
    articles = visit("h2log.examples.articles:app")
    page = articles.page
    articles.open("/")
    for link in page.locator(".contents a").all():
        title = link.locator("strong").inner_text()
        link.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        page.go_back()
        expect(page).to_have_url(f"{articles.url}/")


def test_what_is_not_there_has_a_page(visit: Visitor) -> None:
    """An address that leads nowhere is a 404 with a page, which leads to the first one."""
    articles = visit("h2log.examples.articles:app")
    page = articles.page
    articles.expect_refusal(404)
    articles.open("/article/none")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing here, duly noted")
    page.get_by_role("link", name="The first page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("One connection, written down")
    [line] = [line for line in articles.lines() if line.path == "/article/none"]
    assert line.status == 404


def test_every_picture_is_shown(visit: Visitor) -> None:
    """No picture of the first page is missing, and none comes from elsewhere."""
    articles = visit("h2log.examples.articles:app")
    page = articles.page
    articles.open("/")
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(image) => image.naturalWidth") > 0
    assert {response.url.startswith(articles.url) for response in articles.responses} == {True}
