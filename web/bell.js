// What one is told of: the bell, its list, and what is read of it.

import { $, attempt, element, notice } from "./dom.js";

const PATH = "/api/v1/users/me/notifications";
const PAGE = 30;

const SENTENCES = {
  mention: ({ username, room }) => `${username} mentions you in ${room}`,
  reply: ({ username, room }) => `${username} answers you in ${room}`,
  direct_message: ({ username }) => `${username} writes to you`,
  invitation: ({ username, room }) => `${username} made you a member of ${room}`,
};

/** The bell. `go(channelId)` enters a channel. */
export class Bell {
  #account;
  #go;
  #oldest = null;
  #latest = null;
  #told = new Set();

  constructor(account, go) {
    this.#account = account;
    this.#go = go;
    $("bell").onclick = () => attempt($("bell"), () => this.#open());
    $("bell-more").onclick = () => attempt($("bell-more"), () => this.#older());
    $("bell-read").onclick = () => attempt($("bell-read"), () => this.#readAll());
  }

  /** Asks how much is unread: on coming, and after a time without connection. */
  async refresh() {
    const { data } = await this.#account.request("GET", `${PATH}?limit=1`);
    this.#count(data.unread);
    if ($("bell-dialog").open) await this.#showNewest();
  }

  /** Follows a message of the session. */
  follow({ type, data }) {
    if (type === "notifications_read") {
      this.#count(data.unread);
    } else if (type === "notification" && !this.#told.has(data.id)) {
      // It may come twice, with the same id.
      this.#told.add(data.id);
      if (data.kind !== "direct_message" && document.visibilityState === "visible") notice(SENTENCES[data.kind](data));
      attempt(null, () => this.refresh());
    }
  }

  #count(unread) {
    $("bell-count").textContent = unread > 99 ? "99+" : String(unread);
    $("bell-count").hidden = unread === 0;
    $("bell").setAttribute("aria-label", unread === 0 ? "Notifications" : `Notifications, ${unread} unread`);
  }

  async #open() {
    await this.#showNewest();
    if (!$("bell-dialog").open) $("bell-dialog").showModal();
  }

  #showNewest() {
    return this.#load(null);
  }

  #older() {
    return this.#load(this.#oldest);
  }

  /** Of several that are asked for at once the last is shown: none comes twice. */
  async #load(before) {
    const mine = Symbol("load");
    this.#latest = mine;
    const { data } = await this.#account.request("GET", `${PATH}?limit=${PAGE}${before ? `&before=${before}` : ""}`);
    this.#count(data.unread);
    if (this.#latest !== mine) return;
    if (!before) $("bell-list").replaceChildren();
    $("bell-list").append(...data.notifications.map((found) => this.#row(found)));
    this.#oldest = data.notifications.at(-1)?.id ?? before;
    $("bell-more").hidden = data.notifications.length < PAGE;
    if ($("bell-list").children.length === 0) {
      $("bell-list").append(element("li", { className: "hint", textContent: "Nothing yet. You are told when somebody mentions you with @ and your name, answers you, writes to you, or makes you a member." }));
    }
  }

  #row(found) {
    const time = new Date(found.created_at).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    const failed = found.deliveries.filter(({ state }) => state === "given_up").map(({ way }) => way);
    const button = element(
      "button",
      { type: "button", onclick: () => attempt(button, () => this.#follow(found)) },
      element("span", { className: "who", textContent: SENTENCES[found.kind](found) }),
      element("time", { dateTime: found.created_at, textContent: time }),
      found.content && element("span", { className: "text", textContent: found.content }),
      failed.length > 0 && element("span", { className: "hint", textContent: `Could not be sent by ${failed.join(", ")}.` }),
      !found.read_at && element("span", { className: "visually-hidden", textContent: "unread" }),
    );
    return element("li", { className: found.read_at ? "" : "unread", "data-id": found.id }, button);
  }

  /** Reads one, and goes where it is. */
  async #follow({ id, channel_id }) {
    await this.#account.request("POST", `${PATH}/read`, { id });
    $("bell-list").querySelector(`[data-id="${CSS.escape(id)}"]`)?.classList.remove("unread");
    if (!channel_id) return;
    $("bell-dialog").close();
    await this.#go(channel_id);
  }

  async #readAll() {
    const newest = $("bell-list").querySelector("[data-id]")?.dataset.id;
    if (!newest) return;
    await this.#account.request("POST", `${PATH}/read`, { up_to: newest });
    await this.#showNewest();
  }
}
