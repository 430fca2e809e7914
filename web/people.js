// Who is in the channel: a model fed by events, and the list that shows it.

import { $, element, redraw, say } from "./dom.js";

/** Everyone in the channel, by user id. */
export class People {
  #all = new Map();
  #me;
  #actions;

  /** `actions(person)` gives [{label, act}] of what one may do to somebody. */
  constructor(me, actions) {
    this.#me = me;
    this.#actions = actions;
  }

  /** Takes what the server says of all. */
  reset(members) {
    this.#all.clear();
    for (const { user, user_id, ...state } of members) this.#all.set(user_id, { id: user_id, name: user.display_name, ...state });
    this.#show();
  }

  name(id) {
    return this.#all.get(id)?.name ?? "somebody";
  }

  get size() {
    return this.#all.size;
  }

  /** Follows an event of the channel. True when it was about people. */
  follow(message) {
    const { user_id } = message;
    switch (message.type) {
      case "UserJoined":
        this.#all.set(user_id, { id: user_id, name: message.user.display_name });
        say(`${message.user.display_name} came in.`);
        break;
      case "UserLeft":
        say(`${this.name(user_id)} left.`);
        this.#all.delete(user_id);
        break;
      case "AudioStarted":
      case "AudioStopped":
        this.#change(user_id, { speaking: message.type === "AudioStarted" });
        break;
      case "VoiceStateChanged": {
        const { muted, deafened, server_muted } = message;
        this.#change(user_id, { muted, deafened, server_muted });
        break;
      }
      case "State":
        this.reset(message.members);
        return true;
      default:
        return false;
    }
    this.#show();
    return true;
  }

  #change(id, change) {
    const person = this.#all.get(id);
    if (person) Object.assign(person, change);
  }

  #show() {
    const list = [...this.#all.values()].sort((a, b) => a.name.localeCompare(b.name));
    redraw($("people"), ...list.map((person) => this.#row(person)));
  }

  #row(person) {
    const badges = [
      person.id === this.#me && "you",
      person.server_muted ? "muted by a moderator" : person.muted && "muted",
      person.deafened && "deafened",
    ].filter(Boolean);
    const actions = person.id === this.#me ? [] : this.#actions(person);
    return element(
      "li",
      { className: person.speaking ? "speaking" : "", "data-user": person.id },
      element("span", { className: "name", textContent: person.name }),
      badges.length > 0 && element("span", { className: "badge", textContent: badges.join(", ") }),
      person.speaking && element("span", { className: "visually-hidden", textContent: "speaks" }),
      ...actions.map(({ label, act }) => element("button", { className: "icon", textContent: label, "aria-label": `${label}: ${person.name}`, "data-key": `${label} ${person.id}`, onclick: act })),
    );
  }
}
