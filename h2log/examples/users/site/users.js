// The table of users: what is shown is what the server has answered.

const people = new Map(); // by id, as the server told them last
let next = null; // the address of the next page
const $ = (selector) => document.querySelector(selector);

// Asking

/** Send a request; return its response with what was in it. Says so when nobody answers. */
async function ask(method, path, { user, version } = {}) {
  const headers = {};
  if (user) headers["content-type"] = "application/json";
  if (version) headers["if-match"] = `"${version}"`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: user && JSON.stringify(user) });
  } catch {
    note(method, path, "none", "");
    return { ok: false, status: 0, told: { detail: "The server does not answer. Is it running?" } };
  }
  const { ok, status } = response;
  note(method, path, status, response.headers.get("x-request-id"));
  const told = status === 204 ? null : await response.json().catch(() => ({ detail: `The server answers ${status}.` }));
  return { ok, status, told, link: response.headers.get("link") };
}

/** Write a request into the list at the end of the page, which keeps the last ten. */
function note(method, path, status, id) {
  const row = $("#log").insertRow(0);
  for (const text of [`${method} ${path}`, status, id]) row.insertCell().textContent = text;
  row.cells[1].classList.toggle("refused", !(status < 400));
  row.cells[2].classList.add("request");
  if ($("#log").rows.length > 10) $("#log").deleteRow(-1);
}

// Showing

/** Say something, to those who see the page and to those who hear it. */
function say(text, bad = false) {
  $("#notice").textContent = text;
  $("#notice").classList.toggle("bad", bad);
}

/** Show a user in a row: that which is there, or a new one. */
function show(user, fresh = false) {
  let row = document.getElementById(`user-${user.id}`);
  if (!row) {
    row = $("#row").content.firstElementChild.cloneNode(true);
    row.id = `user-${user.id}`;
    const later = [...$("#rows").rows].find((other) => Number(other.id.slice(5)) > user.id);
    $("#rows").insertBefore(row, later ?? null);
  }
  people.set(user.id, user);
  [user.id, user.name, user.email].forEach((text, i) => (row.cells[i].textContent = text));
  row.querySelector("[data-edit]").setAttribute("aria-label", `Change ${user.name}`);
  row.querySelector("[data-remove]").setAttribute("aria-label", `Remove ${user.name}`);
  row.classList.toggle("fresh", fresh);
  count();
}

/** Take a user's row away; who used it finds the next one. */
function drop(id) {
  const row = document.getElementById(`user-${id}`);
  const beside = row?.nextElementSibling ?? row?.previousElementSibling;
  row?.remove();
  people.delete(id);
  count();
  (beside?.querySelector("[data-edit]") ?? $("#add-name")).focus();
}

function count() {
  const number = people.size;
  const text = { 0: "Nobody yet. Add the first.", 1: "One user" }[number] ?? `${number} users`;
  $("#count").textContent = next ? `The first ${number} users` : text;
  $("#more").hidden = !next;
}

/** Show what is wrong with what was entered: at its field, or below the form. */
function blame(form, told) {
  clear(form);
  const input = told?.field && form.elements[told.field];
  const detail = (told?.detail ?? "").replace(/^\$[.\w]*: /, "");
  const text = detail.charAt(0).toUpperCase() + detail.slice(1);
  if (!input) {
    const place = form.querySelector("[data-general]");
    return place ? (place.textContent = text) : say(text, true);
  }
  document.getElementById(input.getAttribute("aria-describedby")).textContent = text;
  input.setAttribute("aria-invalid", "true");
  input.focus();
}

function clear(form) {
  for (const fault of form.querySelectorAll(".fault")) fault.textContent = "";
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

// Forms

/** Return what was entered, or nothing when the browser itself knows that it is wrong. */
function entered(form) {
  clear(form);
  for (const name of ["name", "email"]) form.elements[name].value = form.elements[name].value.trim();
  const wrong = [...form.elements].find((input) => !input.checkValidity());
  if (!wrong) return { name: form.elements.name.value, email: form.elements.email.value };
  blame(form, { field: wrong.name, detail: wrong.validationMessage });
}

/** Do something when a form is sent, and not again before it is done. */
function onSend(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type])");
    if (button.disabled) return;
    button.disabled = true;
    say("");
    await work().finally(() => (button.disabled = false));
  });
}

onSend($("#add"), async () => {
  const form = $("#add");
  const user = entered(form);
  if (!user) return;
  const { ok, told } = await ask("POST", "/users", { user });
  if (!ok) return blame(form, told);
  form.reset();
  if (!next) show(told, true);
  say(`${told.name} has the number ${told.id}.`);
  form.elements.name.focus();
});

let chosen = null; // the user that a dialog is about

function open(dialog, id) {
  chosen = people.get(id);
  const form = dialog.querySelector("form");
  clear(form);
  for (const input of form.querySelectorAll("input")) input.value = chosen[input.name];
  const doing = dialog.id === "edit" ? "Change" : "Remove";
  dialog.querySelector("h2").textContent = `${doing} ${chosen.name}`;
  dialog.showModal();
}

/** Somebody was faster: show what there is now, and leave what was entered. */
async function refresh(form) {
  const { ok, status, told } = await ask("GET", `/users/${chosen.id}`);
  if (!ok && status !== 404) return blame(form, told);
  if (!ok) return gone(form);
  chosen = told;
  show(told);
  const detail = `Somebody changed this user meanwhile. It is now: ${told.name}, ${told.email}.`;
  blame(form, { detail });
}

function gone(form) {
  form.closest("dialog").close();
  drop(chosen.id);
  say(`${chosen.name} had been removed already.`);
}

onSend($("#edit form"), async () => {
  const form = $("#edit form");
  const user = entered(form);
  if (!user) return;
  const { ok, status, told } = await ask("PUT", `/users/${chosen.id}`, { user, version: chosen.version });
  if (status === 412) return refresh(form);
  if (status === 404) return gone(form);
  if (!ok) return blame(form, told);
  $("#edit").close();
  show(told, true);
  say(`Number ${told.id} is ${told.name}, ${told.email}.`);
});

onSend($("#remove form"), async () => {
  const form = $("#remove form");
  const { ok, status, told } = await ask("DELETE", `/users/${chosen.id}`, { version: chosen.version });
  if (status === 412) return refresh(form);
  if (status === 404) return gone(form);
  if (!ok) return blame(form, told);
  $("#remove").close();
  drop(chosen.id);
  say(`${chosen.name} is no user any more.`);
});

for (const button of document.querySelectorAll("[data-cancel]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

$("#rows").addEventListener("click", ({ target }) => {
  const id = Number(target.closest("tr").id.slice(5));
  if ("edit" in target.dataset) open($("#edit"), id);
  if ("remove" in target.dataset) open($("#remove"), id);
});

// The table

async function load(path) {
  const { ok, told, link } = await ask("GET", path);
  if (!ok) {
    $("#count").textContent = "";
    return say(told.detail, true);
  }
  next = /<([^>]+)>; rel="next"/.exec(link)?.[1] ?? null;
  told.forEach((user) => show(user));
  count();
}

$("#more").addEventListener("click", () => load(next));
await load("/users");
