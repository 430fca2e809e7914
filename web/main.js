// The page: signing in, the list of channels, and the controls of the one that one is in.

import { Account } from "./api.js";
import { Bell } from "./bell.js";
import { Devices } from "./capture.js";
import { Chat } from "./chat.js";
import { $, attempt, element, notice, redraw, say } from "./dom.js";
import { Preferences } from "./preferences.js";
import { showConnection } from "./quality.js";
import { Room } from "./room.js";
import { Session } from "./session.js";

/** How often the list of channels is asked for while the page is looked at. */
const LIST_MS = 8_000;

const account = new Account();
const devices = new Devices();
const bell = new Bell(account, enterById);
const preferences = new Preferences(account);
let session = null;
let room = null;
let chat = null;
let listing = null;

// Signing in and out.

function showWelcome() {
  $("welcome").hidden = false;
  $("app").hidden = true;
  $("guest-name").focus();
}

async function enter() {
  $("welcome").hidden = true;
  $("app").hidden = false;
  $("me").textContent = account.user.display_name;
  await openSession();
  attempt(null, () => bell.refresh());
  preferences.renew().catch(() => {});
  await useLink();
  await listChannels();
  if (!room) showRoom(null);
  clearInterval(listing);
  listing = setInterval(() => document.visibilityState === "visible" && listChannels().catch(() => {}), LIST_MS);
}

async function openSession() {
  session = new Session(account);
  chat = new Chat(session, account.user);
  session.addEventListener("message", ({ detail }) => {
    room?.follow(detail);
    chat.follow(detail);
    bell.follow(detail);
  });
  session.addEventListener("state", ({ detail }) => stateChanged(detail));
  await session.open();
}

async function stateChanged({ state, more }) {
  const banner = { lost: "Connection lost, trying again", over: more }[state];
  if (banner) {
    showConnection("bad", banner);
    say(`${banner}.`);
  }
  if (state === "resumed" || state === "renewed") {
    bell.refresh().catch(() => {});
    if (!room) stayOutside(more);
  }
  if (state === "over") {
    notice(`${more} Load the page again to come back.`, { error: true });
  } else if (room && state === "resumed") {
    await attempt(null, () => room.resumed());
  } else if (room && state === "renewed") {
    await attempt(null, () => room.renewed());
    await attempt(null, () => chat.renewed());
  }
}

/** The session is back, and the page in no channel: one may have been left, or not quite entered, while there was no connection. */
function stayOutside(resumed) {
  $("connection").hidden = true;
  if (resumed?.channels.length) session.request({ type: "leave", payload: {} }).catch(() => {});
}

async function signOut() {
  await room?.leave();
  session?.close();
  clearInterval(listing);
  await preferences.forgetBrowser().catch(() => {});
  await account.signOut();
  showWelcome();
}

$("guest-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(event.submitter, async () => {
    await account.asGuest($("guest-name").value.trim());
    await enter();
  });
});

$("account-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(event.submitter, async () => {
    const [name, password] = [$("account-name").value.trim(), $("account-password").value];
    await (event.submitter.value === "register" ? account.register(name, password) : account.logIn(name, password));
    $("account-password").value = "";
    await enter();
  });
});

$("sign-out").addEventListener("click", ({ currentTarget }) => attempt(currentTarget, signOut));

// Channels.

async function listChannels() {
  const { data } = await account.request("GET", "/api/channels");
  redraw($("channels"), ...data.map(channelRow));
  if (data.length === 0) $("channels").append(element("li", { className: "hint", textContent: "No channels yet: make the first." }));
}

function channelRow(channel) {
  const { current_users, max_users } = channel;
  return element(
    "li",
    {},
    element(
      "button",
      { "data-key": channel.id, "aria-current": room?.channel.id === channel.id ? "true" : undefined, title: channel.description, onclick: ({ currentTarget }) => attempt(currentTarget, () => join(channel)) },
      element("span", { className: "name", textContent: (channel.is_private ? "🔒 " : "") + channel.name }),
      element("span", { className: "count", "aria-hidden": "true", textContent: `${current_users}/${max_users}` }),
      element("span", { className: "visually-hidden", textContent: `, ${current_users} of ${max_users} people` }),
    ),
  );
}

$("create-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(event.submitter, async () => {
    const body = { name: $("create-name").value.trim(), is_private: $("create-private").checked };
    const { data } = await account.request("POST", "/api/channels", body);
    $("create-form").reset();
    await join(data);
  });
});

async function join(channel) {
  if (room?.channel.id === channel.id) return;
  await room?.leave();
  const joined = new Room({ account, session, channel, devices, actions: moderation });
  joined.addEventListener("left", ({ detail }) => left(joined, detail));
  room = joined;
  showRoom(channel);
  try {
    await joined.join();
  } catch (error) {
    if (room === joined) await joined.leave();
    throw error;
  }
  await attempt(null, () => chat.open(channel));
  await listChannels();
}

function left(which, why) {
  if (room !== which) return;
  room = null;
  chat.close();
  showRoom(null);
  if (why) notice(why, { error: true });
  listChannels().catch(() => {});
}

function showRoom(channel) {
  $("channel-name").textContent = channel?.name ?? "Choose a channel";
  document.title = channel ? `${channel.name} · Antiphon` : "Antiphon";
  for (const id of ["controls", "leave", "invite"]) $(id).hidden = !channel;
  $("stage-hint").hidden = Boolean(channel);
  // Where there is no room for both, whoever is in no channel looks at the list.
  showSidebar(!channel);
  // What was pressed to come here may be gone; this says where one is.
  $("channel-name").focus();
}

function showSidebar(isOpen) {
  $("sidebar").classList.toggle("open", isOpen);
  $("sidebar-open").setAttribute("aria-expanded", String(isOpen));
}

/** What one may do to somebody in the channel: the server decides, and says so when it is not allowed. */
function moderation(person) {
  const { channel } = room;
  const mayModerate = account.user.role === "admin" || channel.owner_id === account.user.id;
  if (!mayModerate) return [];
  const post = (act, body) => attempt(null, () => account.request("POST", `/api/channels/${channel.id}/${act}`, { user_id: person.id, ...body }));
  return [
    { label: person.server_muted ? "Let speak" : "Mute", act: () => post("mute", { muted: !person.server_muted }) },
    { label: "Remove", act: () => post("kick") },
  ];
}

$("leave").addEventListener("click", ({ currentTarget }) => attempt(currentTarget, () => room.leave()));
$("sidebar-open").addEventListener("click", () => {
  showSidebar(true);
  $("sidebar-close").focus();
});
function closeSidebar() {
  showSidebar(false);
  $("sidebar-open").focus();
}
$("sidebar-close").addEventListener("click", closeSidebar);
$("sidebar").addEventListener("keydown", ({ key }) => key === "Escape" && closeSidebar());

// Invites.

/** Enters a channel that is known by its id alone. */
async function enterById(id) {
  const { data } = await account.request("GET", `/api/channels/${encodeURIComponent(id)}`);
  await join(data);
}

// What was pressed in the browser's own notification, while the page was open.
navigator.serviceWorker?.addEventListener("message", ({ data }) => {
  const id = data?.type === "open" && new URLSearchParams(data.hash.slice(1)).get("channel");
  if (id && account.user) attempt(null, () => enterById(id));
});

/** A link that was followed: `#invite=CODE` or `#channel=ID`. */
async function useLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  await attempt(null, async () => {
    if (link.has("invite")) {
      const { data } = await account.request("POST", `/api/invites/${encodeURIComponent(link.get("invite"))}`);
      await join(data);
    } else if (link.has("channel")) {
      await enterById(link.get("channel"));
    }
  });
}

$("invite").addEventListener("click", ({ currentTarget }) =>
  attempt(currentTarget, async () => {
    const { channel } = room;
    let link = `channel=${channel.id}`;
    if (channel.is_private) {
      const { data } = await account.request("POST", `/api/channels/${channel.id}/invites`, { ttl_s: 7 * 86_400 });
      link = `invite=${data.code}`;
    }
    const { data: listen } = await account.request("POST", `/api/channels/${channel.id}/listen`, { ttl_s: 7 * 86_400 });
    $("invite-link").value = `${location.origin}/#${link}`;
    $("listen-link").value = `${location.origin}${listen.url}`;
    $("invite-dialog").showModal();
    $("invite-link").select();
  }));

for (const id of ["invite-copy", "listen-copy"]) {
  $(id).addEventListener("click", async ({ currentTarget }) => {
    const link = $(currentTarget.dataset.copies);
    link.select();
    await navigator.clipboard?.writeText(link.value).then(
      () => notice("Copied."),
      () => notice("The browser does not let the page copy: press Ctrl+C.", { error: true }),
    );
  });
}

// Microphone, camera, keyboard.

$("mute").addEventListener("click", () => attempt(null, () => room.toggleMute()));
$("deafen").addEventListener("click", () => room.toggleDeafen());
$("camera").addEventListener("click", ({ currentTarget }) => attempt(currentTarget, () => room.toggleView("video")));
$("screen").addEventListener("click", ({ currentTarget }) => attempt(currentTarget, () => room.toggleView("screen")));
$("unblock").addEventListener("click", () => room.playSound());
$("settings").addEventListener("click", async () => {
  await devices.list();
  $("devices").showModal();
});
devices.addEventListener("changed", ({ detail }) => room && attempt(null, () => room.deviceChanged(detail)));

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (!room || isTyping || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const key = { m: "mute", d: "deafen" }[event.key.toLowerCase()];
  if (key) $(key).click();
});

// A page that is closed has left; one that the browser kept and shows again begins anew.
window.addEventListener("pagehide", () => session?.close());
window.addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

if (account.user) {
  attempt(null, enter);
} else {
  showWelcome();
}
