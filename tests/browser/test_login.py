"""Signing in and out in a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Visitor
from tests.browser.visit import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

COOKIE = "__Host-session"
COUNTING = re.compile("^[0-9]:[0-9]{2}$")


@pytest.fixture
def login(visit: Visitor) -> Visit:
    """Return a visit by nobody in particular, who is shown the form."""
    begun = visit("h2log.examples.login:app")
    begun.open("/")
    expect(begun.page).to_have_url(f"{begun.url}/login")
    return begun


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill the form and send it, by keys."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def expect_heading(page: Page, text: str) -> None:
    """Wait for a page by its heading."""
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def test_in_and_out(login: Visit) -> None:
    """The demo accounts are good; a cookie comes with the signing in, and goes with its end.

    The page tells the ids of the connection and of its request that stand in the log.
    """
    page = login.page
    expect(page.get_by_label("Name")).to_be_focused()
    assert login.context.cookies() == []
    accounts = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    assert len(accounts) == 2
    for name, password in accounts:
        sign_in(page, name, password)
        expect_heading(page, f"Hello, {name}")
        login.came_by_http2()
        [cookie] = login.context.cookies()
        assert (cookie["name"], cookie["path"], cookie["domain"]) == (COOKIE, "/", "localhost")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        assert page.evaluate("document.cookie") == ""
        shown = page.locator("#request").inner_text()
        [line] = [line for line in login.lines() if line.request == shown]
        assert (line.path, line.status) == ("/", 200)
        assert line.session == page.locator("#session").inner_text()
        page.get_by_role("button", name="Sign out").click()
        expect_heading(page, "Sign in")
        assert login.context.cookies() == []
    assert [line.status for line in login.lines() if line.path == "/logout"] == [303, 303]


def test_a_wrong_password(login: Visit) -> None:
    """It is said at the form, which keeps the name and no password, and nobody is signed in."""
    page = login.page
    for name, password in (("ada", "eniac-1946"), ("nobody", "engine-1843"), ('"><b>x', "y")):
        login.expect_refusal(403)
        sign_in(page, name, password)
        expect(page.get_by_role("alert")).to_have_text("Name and password do not belong together.")
        expect(page.get_by_label("Name")).to_have_value(name)
        expect(page.get_by_label("Password")).to_have_value("")
        expect(page.get_by_label("Password")).to_be_focused()
    assert login.context.cookies() == []
    login.open("/")
    expect_heading(page, "Sign in")


def test_who_is_signed_in_needs_no_form(login: Visit) -> None:
    """The form's address leads to the page, and after signing out Back does not show it again."""
    page = login.page
    sign_in(page, "ada", "engine-1843")
    expect_heading(page, "Hello, ada")
    login.open("/login")
    expect(page).to_have_url(f"{login.url}/")
    page.get_by_role("button", name="Sign out").click()
    expect_heading(page, "Sign in")
    page.go_back()
    expect_heading(page, "Sign in")


def test_the_time_runs(login: Visit) -> None:
    """Five minutes are counted down and begin anew with each use; their end shows the form."""
    page = login.page
    page.clock.install()
    sign_in(page, "ada", "engine-1843")
    clock, soon = page.get_by_role("timer"), page.get_by_role("status")
    expect(clock).to_have_text(COUNTING)
    page.clock.fast_forward("03:00")
    expect(clock).to_have_text(re.compile("^[12]:"))
    expect(soon).to_be_empty()
    page.clock.fast_forward("01:30")
    expect(clock).to_have_text(re.compile("^0:"))
    expect(soon).to_have_text("Less than a minute left.")
    before = page.locator("#request").inner_text()
    page.get_by_role("link", name="Stay signed in").click()
    expect(page.locator("#request")).not_to_have_text(before)
    expect(soon).to_be_empty()
    expect(clock).to_have_text(re.compile("^[45]:"))
    login.context.clear_cookies()  # as the browser itself does with it after five minutes
    page.clock.fast_forward("05:01")
    expect_heading(page, "Sign in")
    expect(page.get_by_role("status")).to_contain_text("Five minutes have passed unused")


def test_windows_tell_each_other(login: Visit) -> None:
    """What one window does holds for the others: the time that begins anew, and its end."""
    page = login.page
    page.clock.install()
    sign_in(page, "ada", "engine-1843")
    clock = page.get_by_role("timer")
    expect(clock).to_have_text(COUNTING)
    page.clock.fast_forward("04:10")
    expect(clock).to_have_text(re.compile("^0:"))
    second = login.context.new_page()
    second.goto("/")
    expect(page.get_by_role("status")).to_be_empty()
    second.get_by_role("button", name="Sign out").click()
    expect_heading(second, "Sign in")
    expect_heading(page, "Sign in")
    expect(page.get_by_role("status")).to_be_empty()


def test_another_site_cannot(login: Visit) -> None:
    """A page of another site can neither sign its visitor out nor in."""
    page = login.page
    sign_in(page, "ada", "engine-1843")
    expect_heading(page, "Hello, ada")
    other = login.context.new_page()
    for path in ("/logout", "/login"):
        login.expect_refusal(403)
        other.goto("about:blank")
        other.set_content(
            f'<form method="post" action="{login.url}{path}">'
            '<input name="name" value="kay"><input name="password" value="eniac-1946">'
            "<button>A prize!</button></form>"
        )
        other.get_by_role("button").click()
        expect_heading(other, "403 Forbidden")
    page.reload()
    expect_heading(page, "Hello, ada")


def test_what_is_not_there_has_a_page(login: Visit) -> None:
    """An error is a page with the request's id, which is in the log."""
    page = login.page
    login.expect_refusal(404)
    login.open("/nothing")
    expect_heading(page, "404 Not Found")
    shown = page.locator("code.request").inner_text()
    [line] = [line for line in login.lines() if line.request == shown]
    assert (line.path, line.status) == ("/nothing", 404)
    page.get_by_role("link", name="The first page").click()
    expect_heading(page, "Sign in")
