// The messages of a channel: reading back, writing, changing, answering, searching.

import { $, attempt, element } from "./dom.js";

const PAGE = 50;
/** How often others are told that one writes; they show it twice as long. */
const TYPING_MS = 3_000;
/** This near to an end of the list counts as there. */
const NEAR_PX = 80;
const SIGNS = ["👍", "❤️", "😂", "🎉", "👀"];

/** The panel. It shows one channel at a time. */
export class Chat {
  #session;
  #me;
  #channel = null;
  #known = new Map();
  #oldest = null;
  #isWhole = false;
  #isLoading = false;
  #replyTo = null;
  #unread = 0;
  #typedAt = 0;
  #typing = new Map();

  constructor(session, me) {
    this.#session = session;
    this.#me = me;
    $("messages").onscroll = () => this.#scrolled();
    $("message-form").onsubmit = (event) => {
      event.preventDefault();
      attempt(event.submitter, () => this.#write());
    };
    $("message-text").onkeydown = (event) => submitOnEnter(event, () => $("message-form").requestSubmit());
    $("message-text").oninput = () => this.#tellTyping();
    $("search-form").onsubmit = (event) => {
      event.preventDefault();
      attempt(null, () => this.#search($("search-text").value.trim()));
    };
    $("reply-cancel").onclick = () => this.#answer(null);
    document.addEventListener("visibilitychange", () => this.#read());
  }

  /** Shows a channel's messages. */
  async open(channel) {
    this.close();
    this.#channel = channel.id;
    await this.#session.request({ type: "join", room: channel.id });
    $("chat").hidden = false;
    $("app").classList.remove("without-chat");
    await this.#showNewest();
  }

  /** The session began anew. */
  async renewed() {
    if (this.#channel) await this.open({ id: this.#channel });
  }

  close() {
    if (this.#channel) this.#session.send({ type: "leave_room", room: this.#channel });
    this.#channel = null;
    this.#typing.clear();
    this.#drawTyping();
    this.#answer(null);
    this.#clear();
    this.#unread = 0;
    $("search-form").reset();
    $("chat").hidden = true;
    $("app").classList.add("without-chat");
  }

  /** Follows a message of the session. */
  follow({ type, data, channel_id }) {
    if (type === "State" && channel_id === this.#channel) {
      // The journal did not reach back: what was written meanwhile is in the history.
      attempt(null, () => this.#showNewest());
      return;
    }
    if (data?.channel_id !== this.#channel || this.#channel === null) return;
    switch (type) {
      case "message":
        this.#add(data);
        break;
      case "message_edited":
        this.#change(data.id, { content: data.content, edited_at: data.edited_at });
        break;
      case "message_deleted":
        this.#known.delete(data.id);
        this.#row(data.id)?.remove();
        break;
      case "reactions":
        this.#change(data.id, { reactions: data.reactions });
        break;
      case "typing":
        this.#showTyping(data);
        break;
    }
  }

  #clear() {
    this.#known.clear();
    this.#oldest = null;
    this.#isWhole = false;
    $("messages").replaceChildren();
  }

  async #showNewest() {
    this.#clear();
    await this.#older();
    $("messages").scrollTop = $("messages").scrollHeight;
    this.#read();
  }

  async #older() {
    if (this.#isWhole || this.#isLoading || !this.#channel) return;
    this.#isLoading = true;
    try {
      const channel = this.#channel;
      const ask = { type: "room_history", room: channel, limit: PAGE };
      if (this.#oldest) ask.before = this.#oldest;
      const { data } = await this.#session.request(ask);
      if (channel !== this.#channel) return;
      // A page of long messages has fewer than were asked for.
      this.#isWhole = data.length === 0;
      if (data.length > 0) this.#oldest = data[0].id;
      const list = $("messages");
      const below = list.scrollHeight - list.scrollTop;
      list.prepend(...data.filter(({ id, deleted }) => !deleted && !this.#known.has(id)).map((message) => this.#shown(message)));
      list.scrollTop = list.scrollHeight - below;
    } finally {
      this.#isLoading = false;
    }
  }

  #scrolled() {
    const list = $("messages");
    if (list.scrollTop < NEAR_PX) attempt(null, () => this.#older());
    if (this.#isAtEnd()) this.#read();
  }

  #isAtEnd() {
    const list = $("messages");
    return list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
  }

  #add(message) {
    if (this.#known.has(message.id) || $("search-text").value) return;
    const isOwn = message.fromUser === this.#me.id;
    const follow = isOwn || this.#isAtEnd();
    const later = [...$("messages").children].find((row) => Number(row.dataset.id) > message.id);
    $("messages").insertBefore(this.#shown(message), later ?? null);
    this.#oldest ??= message.id;
    if (follow) $("messages").scrollTop = $("messages").scrollHeight;
    if (!isOwn) this.#count();
    this.#stopTyping(message.username);
  }

  #change(id, change) {
    const message = this.#known.get(id);
    if (!message) return;
    Object.assign(message, change);
    this.#row(id)?.replaceWith(this.#shown(message));
  }

  #row(id) {
    return $("messages").querySelector(`[data-id="${Number(id)}"]`);
  }

  #shown(message) {
    this.#known.set(message.id, message);
    const { id, username, timestamp, content, edited_at, reply_to, mentions } = message;
    const time = new Date(timestamp).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    const answered = reply_to && this.#known.get(reply_to);
    return element(
      "li",
      { "data-id": String(id), className: mentions?.includes(this.#me.id) ? "mention" : "" },
      this.#acts(message),
      element("span", { className: "who", textContent: username }),
      element("time", { dateTime: timestamp, textContent: time }),
      reply_to && element("div", { className: "hint", textContent: answered ? `↳ ${answered.username}: ${answered.content.slice(0, 80)}` : "↳ an earlier message" }),
      element("div", { className: "text" }, ...linked(content), edited_at && element("span", { className: "hint", textContent: " (changed)" })),
      this.#signs(message),
    );
  }

  #acts(message) {
    const isOwn = message.fromUser === this.#me.id;
    const ask = (what) => ({ currentTarget }) => attempt(currentTarget, () => this.#session.request({ id: message.id, ...what }));
    return element(
      "span",
      { className: "acts" },
      ...SIGNS.slice(0, 3).map((emoji) => element("button", { textContent: emoji, "aria-label": `Answer with ${emoji}`, onclick: ask({ type: "react", emoji }) })),
      element("button", { textContent: "Answer", onclick: () => this.#answer(message) }),
      isOwn && element("button", { textContent: "Edit", onclick: () => this.#edit(message) }),
      (isOwn || this.#me.role === "admin") && element("button", { textContent: "Delete", onclick: ask({ type: "delete" }) }),
    );
  }

  #signs({ id, reactions }) {
    if (!reactions?.length) return undefined;
    const buttons = reactions.map(({ emoji, users, count }) => {
      const isMine = users.includes(this.#me.id);
      const act = ({ currentTarget }) => attempt(currentTarget, () => this.#session.request({ type: "react", id, emoji, remove: isMine }));
      return element("button", { textContent: `${emoji} ${count}`, "aria-pressed": String(isMine), onclick: act });
    });
    return element("div", { className: "signs" }, ...buttons);
  }

  async #write() {
    const content = $("message-text").value;
    if (content.trim() === "") return;
    // Sent again after a lost connection, the same nonce makes it one message.
    const message = { type: "message", room: this.#channel, content, nonce: nonce() };
    if (this.#replyTo) message.reply_to = this.#replyTo.id;
    const answer = await again(() => this.#session.request(message));
    $("search-form").reset();
    $("message-text").value = "";
    this.#typedAt = 0;
    this.#answer(null);
    this.follow(answer);
  }

  #answer(message) {
    this.#replyTo = message;
    $("reply").hidden = !message;
    $("reply-to").textContent = message ? `Answer to ${message.username}: ${message.content.slice(0, 60)}` : "";
    if (message) $("message-text").focus();
  }

  #edit(message) {
    const area = element("textarea", { value: message.content, rows: 2, "aria-label": "Change your message" });
    const done = () => this.#change(message.id, {});
    area.onkeydown = (event) => {
      if (event.key === "Escape") done();
      submitOnEnter(event, () => attempt(area, async () => {
        await this.#session.request({ type: "edit", id: message.id, content: area.value });
        done();
      }));
    };
    this.#row(message.id)?.querySelector(".text").replaceChildren(area);
    area.focus();
  }

  async #search(query) {
    if (!query) {
      await this.#showNewest();
      return;
    }
    const { data } = await this.#session.request({ type: "search", query, room: this.#channel });
    this.#clear();
    this.#isWhole = true;
    const found = data.messages.toReversed().map((message) => this.#shown(message));
    $("messages").replaceChildren(...found, ...(found.length ? [] : [element("li", { className: "hint", textContent: "Nothing has these words." })]));
  }

  #tellTyping() {
    if (Date.now() - this.#typedAt < TYPING_MS) return;
    this.#typedAt = Date.now();
    this.#session.send({ type: "typing", room: this.#channel });
  }

  #showTyping({ username, fromUser }) {
    if (fromUser === this.#me.id) return;
    clearTimeout(this.#typing.get(username));
    this.#typing.set(username, setTimeout(() => this.#stopTyping(username), 2 * TYPING_MS));
    this.#drawTyping();
  }

  #stopTyping(username) {
    clearTimeout(this.#typing.get(username));
    this.#typing.delete(username);
    this.#drawTyping();
  }

  #drawTyping() {
    const names = [...this.#typing.keys()];
    const verb = names.length === 1 ? "is" : "are";
    $("typing").textContent = names.length === 0 ? "" : `${names.slice(0, 3).join(", ")} ${verb} writing…`;
  }

  #count() {
    if (document.visibilityState === "visible" && this.#isAtEnd()) {
      this.#read();
      return;
    }
    this.#unread += 1;
    showCount(this.#unread);
  }

  /** What is on the screen of somebody who looks is read. */
  #read() {
    if (document.visibilityState !== "visible" || !this.#channel || !this.#isAtEnd()) return;
    this.#unread = 0;
    showCount(0);
    const newest = Math.max(0, ...this.#known.keys());
    if (newest > 0) this.#session.send({ type: "mark_read", room: this.#channel, id: newest });
  }
}

function showCount(count) {
  const title = document.title.replace(/^\(\d+\) /, "");
  document.title = count > 0 ? `(${count}) ${title}` : title;
}

function submitOnEnter(event, submit) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
}

function nonce() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Once more where the connection broke before the answer came. */
async function again(send) {
  try {
    return await send();
  } catch (error) {
    if (error.code !== "UNREACHABLE" && error.code !== "TIMEOUT") throw error;
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    return send();
  }
}

/** Text with its web addresses as links; everything else is text, whatever it looks like. */
function linked(content) {
  return content.split(/(https?:\/\/[^\s<>"]+)/).map((part, at) =>
    at % 2 === 1 ? element("a", { href: part, textContent: part, target: "_blank", rel: "noopener noreferrer" }) : document.createTextNode(part));
}
