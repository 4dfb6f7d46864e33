"""The table of users in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Visitor
from tests.browser.visit import Visit

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

ADA = {"name": "Ada Lovelace", "email": "ada@example.org"}


@pytest.fixture
def users(visit: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Return a visit to an empty table."""
    monkeypatch.setenv("USERS_DB", str(tmp_path / "users.db"))
    return visit("h2log.examples.users:app")


def asked(users: Visit) -> list[str]:
    """Return method, path and status of the page's requests to the table, the oldest first."""
    found = []
    for response in users.responses:
        path = response.url.removeprefix(users.url)
        if path.startswith("/users") and response.request.resource_type == "fetch":
            found.append(f"{response.request.method} {path} {response.status}")
    return found


def fill(users: Visit, user: dict[str, str], where: str = "add") -> None:
    """Enter a name and an address."""
    for name, value in user.items():
        users.page.locator(f"#{where}-{name}").fill(value)


def rows(users: Visit) -> list[str]:
    """Return the table's rows: number, name and address."""
    found = users.page.locator("#rows tr").all()
    return [" ".join(row.locator("td").all_inner_texts()[:3]) for row in found]


def test_a_user_comes_changes_and_goes(users: Visit) -> None:
    """Added, changed and removed on the page, each by one request that the page shows by its id."""
    page = users.page
    users.open("/")
    expect(page.locator("#count")).to_have_text("Nobody yet. Add the first.")

    fill(users, ADA)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_have_text("Ada Lovelace has the number 1.")
    assert rows(users) == ["1 Ada Lovelace ada@example.org"]
    expect(page.locator("#count")).to_have_text("One user")
    expect(page.locator("#add-name")).to_be_focused()
    expect(page.locator("#add-name")).to_have_value("")

    page.get_by_role("button", name="Change Ada Lovelace").click()
    dialog = page.get_by_role("dialog", name="Change Ada Lovelace")
    expect(dialog.get_by_label("E-mail")).to_have_value("ada@example.org")
    dialog.get_by_label("E-mail").fill("countess@example.org")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert rows(users) == ["1 Ada Lovelace countess@example.org"]

    page.reload()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert rows(users) == ["1 Ada Lovelace countess@example.org"]

    page.get_by_role("button", name="Remove Ada Lovelace").click()
    dialog = page.get_by_role("dialog", name="Remove Ada Lovelace")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    dialog.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status")).to_have_text("Ada Lovelace is no user any more.")
    assert rows(users) == []
    assert asked(users) == [
        "GET /users 200",
        "POST /users 201",
        "PUT /users/1 200",
        "GET /users 200",
        "DELETE /users/1 204",
    ]
    # The page's list of its requests, since it was loaded anew, has the ids that are in the log.
    shown = [tuple(row.locator("td").all_inner_texts()) for row in page.locator("#log tr").all()]
    assert [row[:2] for row in shown] == [("DELETE /users/1", "204"), ("GET /users", "200")]
    logged = {line.request: line.path for line in users.lines()}
    assert [logged[row[2]] for row in shown] == ["/users/1", "/users"]


def test_by_keys_alone(users: Visit) -> None:
    """Everything can be done without a pointer; Escape leaves a dialog, and nothing was asked."""
    page, press = users.page, users.page.keyboard.press
    users.open("/")
    expect(page.locator("#count")).to_contain_text("Nobody")
    page.locator("#add-name").focus()
    for text in ("Ada Lovelace", "Tab", "ada@example.org", "Enter"):
        press(text) if text in ("Tab", "Enter") else page.keyboard.insert_text(text)
    expect(page.locator("#rows tr")).to_have_count(1)
    for _ in range(3):  # the address, the button, the row's first
        press("Tab")
    expect(page.get_by_role("button", name="Change Ada Lovelace")).to_be_focused()
    press("Enter")
    expect(page.locator("#edit-name")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Change Ada Lovelace")).to_be_focused()
    press("Tab")
    press("Enter")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    press("Shift+Tab")
    press("Enter")
    expect(page.locator("#rows tr")).to_have_count(0)
    expect(page.locator("#add-name")).to_be_focused()
    assert asked(users) == ["GET /users 200", "POST /users 201", "DELETE /users/1 204"]


def test_what_is_wrong_is_said_at_its_field(users: Visit) -> None:
    """By the browser where it knows, without a request, and else by the server's answer."""
    page = users.page
    users.open("/")
    expect(page.locator("#count")).to_contain_text("Nobody")
    add = page.get_by_role("button", name="Add")
    fill(users, {"name": "  ", "email": "ada@example.org"})
    add.click()
    expect(page.locator("#add-name-fault")).not_to_be_empty()
    expect(page.locator("#add-name")).to_be_focused()
    expect(page.locator("#add-name")).to_have_attribute("aria-invalid", "true")
    fill(users, {"name": "Ada", "email": "nowhere"})
    add.click()
    expect(page.locator("#add-name-fault")).to_be_empty()
    expect(page.locator("#add-email-fault")).to_contain_text("@")
    assert asked(users) == ["GET /users 200"]

    fill(users, ADA)
    add.click()
    expect(page.locator("#rows tr")).to_have_count(1)
    users.expect_refusal(409)
    fill(users, {"name": "Another", "email": "ADA@example.org"})
    add.click()
    expect(page.locator("#add-email-fault")).to_have_text("Another user has ADA@example.org")
    expect(page.locator("#add-email")).to_be_focused()
    expect(page.locator("#log tr").first).to_contain_text("POST /users")
    expect(page.locator("#log tr").first).to_contain_text("409")
    assert len(rows(users)) == 1


def test_markup_is_text(users: Visit) -> None:
    """A name is shown as it was entered, whatever is in it, and the policy lets nothing else in."""
    page = users.page
    users.open("/")
    name = "<img src=x onerror=alert(1)>&amp;"
    fill(users, {"name": name, "email": "b@example.org"})
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert rows(users) == [f"1 {name} b@example.org"]
    assert page.locator("#rows img").count() == 0
    [policy] = {
        response.headers["content-security-policy"]
        for response in users.responses
        if response.request.resource_type == "document"
    }
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_somebody_else_was_faster(users: Visit) -> None:
    """A change over another's change is refused once, and shows it; a removal finds nobody."""
    page = users.page
    users.open("/")
    fill(users, ADA)
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("button", name="Change Ada Lovelace").click()
    with users.other_client() as client:
        changed = client.put("/users/1", json={**ADA, "email": "augusta@example.org"})
        assert changed.status_code == 200
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Ada King")
    users.expect_refusal(412)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("It is now: Ada Lovelace, augusta@")
    assert rows(users) == ["1 Ada Lovelace augusta@example.org"]
    expect(dialog.get_by_label("Name")).to_have_value("Ada King")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert rows(users) == ["1 Ada King ada@example.org"]

    page.get_by_role("button", name="Remove Ada King").click()
    with users.other_client() as client:
        assert client.delete("/users/1").status_code == 204
    users.expect_refusal(404)
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status")).to_have_text("Ada King had been removed already.")
    assert rows(users) == []


def test_a_long_table_comes_in_parts(users: Visit) -> None:
    """A hundred users at first, and the others when they are asked for."""
    page = users.page
    with users.other_client() as client:
        for number in range(1, 104):
            user = {"name": f"User {number}", "email": f"{number}@example.org"}
            assert client.post("/users", json=user).status_code == 201
    users.open("/")
    expect(page.locator("#count")).to_have_text("The first 100 users")
    page.get_by_role("button", name="More").click()
    expect(page.locator("#count")).to_have_text("103 users")
    expect(page.get_by_role("button", name="More")).to_be_hidden()
    assert rows(users)[-1] == "103 User 103 103@example.org"
    assert asked(users) == ["GET /users 200", "GET /users?after=100 200"]


def test_a_server_that_is_gone(users: Visit) -> None:
    """The page says that nobody answers, and what was entered is still there."""
    page = users.page
    users.open("/")
    expect(page.locator("#count")).to_contain_text("Nobody")
    fill(users, ADA)
    users.server.stop()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_contain_text("The server does not answer.")
    expect(page.locator("#add-name")).to_have_value("Ada Lovelace")
    users.expect_error("net::ERR_CONNECTION_REFUSED")


def test_the_other_pages(users: Visit) -> None:
    """About is a link away, and an address that leads nowhere has a page with a link back."""
    page = users.page
    users.open("/")
    page.get_by_role("link", name="About").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Five requests")
    users.came_by_http2()
    users.expect_refusal(404)
    users.open("/nobody")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nobody here")
    page.get_by_role("main").get_by_role("link", name="The table").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Users")
    expect(page.locator("#count")).to_contain_text("Nobody")
