// Being in a channel: joining it, one's own microphone, camera and screen, and what the others send.

import { captureProblem, Meter } from "./capture.js";
import { $, notice } from "./dom.js";
import { Publisher, Subscriber } from "./peers.js";
import { People } from "./people.js";
import { Quality, showConnection } from "./quality.js";
import { Stage } from "./stage.js";

/** A stay in one channel. Events: `left` (detail: why, in words, unless one left by oneself). */
export class Room extends EventTarget {
  #account;
  #session;
  #channel;
  #devices;
  #people;
  #stage = new Stage();
  #quality = new Quality();
  #meter = new Meter();
  #publisher = null;
  #subscriber = null;
  #iceServers = [];
  #microphone = null;
  #own = new Map();
  #isMuted = false;
  #isDeafened = false;
  #isOver = false;

  constructor({ account, session, channel, devices, actions }) {
    super();
    this.#account = account;
    this.#session = session;
    this.#channel = channel;
    this.#devices = devices;
    this.#people = new People(account.user.id, actions);
    this.#stage.speaker = devices.speaker;
  }

  get channel() {
    return this.#channel;
  }

  get people() {
    return this.#people;
  }

  /** Comes in, and hears and speaks. */
  async join() {
    await this.#enter();
    await this.#openMicrophone();
  }

  /** Follows a message of the session that concerns the channel. */
  follow(message) {
    const said = message.payload ?? message;
    switch (message.type) {
      case "subscribe_offer":
        this.#subscriber?.offered(said).catch((error) => this.#trouble(error));
        break;
      case "trickle_ice":
        // The server's ways are all in its descriptions.
        break;
      case "publisher_left":
        break;
      case "Removed":
        if (said.channel_id === this.#channel.id) this.#end(removal(said));
        break;
      case "RecordingStarted":
      case "RecordingStopped":
        if (said.channel_id === this.#channel.id) showRecorded(message.type === "RecordingStarted");
        break;
      case "State":
        if (said.channel_id !== this.#channel.id) break;
        showRecorded(Boolean(said.recording));
        this.#people.follow(message);
        break;
      case "VoiceStateChanged":
        if (said.user_id === this.#account.user.id && said.server_muted) notice("A moderator muted you.");
        this.#people.follow(message);
        break;
      default:
        if (said.channel_id === this.#channel.id) this.#people.follow(message);
    }
  }

  /** The session went on by another connection, maybe on another node: sound and pictures need new ways. */
  async resumed() {
    await this.#connect();
  }

  /** The session began anew: the channel is to be joined again. */
  async renewed() {
    await this.#enter();
    await this.#publishAll();
    this.#sendVoiceState();
  }

  async toggleMute() {
    if (!this.#microphone) {
      await this.#openMicrophone();
      return;
    }
    this.#isMuted = !this.#isMuted;
    this.#applyMute();
    this.#sendVoiceState();
  }

  toggleDeafen() {
    this.#isDeafened = !this.#isDeafened;
    this.#stage.deafened = this.#isDeafened;
    press("deafen", this.#isDeafened);
    this.#sendVoiceState();
  }

  /** Shows or hides one's camera (`video`) or `screen`. */
  async toggleView(kind) {
    if (this.#own.has(kind)) {
      await this.#hide(kind);
      return;
    }
    const what = kind === "screen" ? "screen" : "camera";
    let track;
    try {
      const stream = await (kind === "screen" ? this.#devices.screen() : this.#devices.webcam());
      [track] = stream.getVideoTracks();
    } catch (error) {
      // Whoever closes the choice of screens has changed their mind.
      if (kind === "screen" && error.name === "NotAllowedError") return;
      throw new Error(captureProblem(error, what));
    }
    track.contentHint = kind === "screen" ? "detail" : "motion";
    track.addEventListener("ended", () => this.#hide(kind).catch((error) => this.#trouble(error)));
    this.#own.set(kind, track);
    try {
      await this.#ensurePublisher().publish(kind, track);
    } catch (error) {
      this.#own.delete(kind);
      track.stop();
      throw error;
    }
    this.#stage.showOwn(kind, track);
    press(kind === "screen" ? "screen" : "camera", true);
  }

  /** Another device was chosen. */
  async deviceChanged(which) {
    if (which === "speaker") this.#stage.speaker = this.#devices.speaker;
    if (which === "microphone" && this.#microphone) await this.#openMicrophone();
    if (which === "webcam" && this.#own.has("video")) {
      await this.#hide("video");
      await this.toggleView("video");
    }
  }

  playSound() {
    this.#stage.play();
  }

  /** Leaves by oneself. */
  async leave() {
    const left = this.#session.request({ type: "leave", payload: {} }).catch(() => {});
    this.#end(null);
    await left;
  }

  async #enter() {
    const { id } = this.#channel;
    const { payload } = await this.#session.request({ type: "join_room", payload: { room_id: id } });
    this.#iceServers = payload.ice_servers;
    showRecorded(Boolean(payload.recording));
    const { data } = await this.#account.request("GET", `/api/channels/${id}/members?limit=1000`);
    const inVoice = data.filter((entry) => entry.voice);
    this.#people.reset(inVoice.map(({ user, user_id, voice }) => ({ user, user_id, ...voice })));
    await this.#connect(false);
  }

  /** Makes both connections anew. */
  async #connect(publishToo = true) {
    this.#publisher?.close();
    this.#publisher = null;
    this.#subscriber?.close();
    this.#subscriber = new Subscriber(this.#session, this.#iceServers);
    this.#subscriber.addEventListener("tracks", ({ detail }) => this.#stage.show(detail, (id) => this.#people.name(id)));
    const connections = () => [this.#publisher, this.#subscriber].filter(Boolean).map((peer) => peer.connection);
    this.#quality.watch(connections, (...how) => this.#session.isAway || showConnection(...how));
    await this.#subscriber.subscribe();
    if (publishToo) await this.#publishAll();
  }

  async #publishAll() {
    const [voice] = this.#microphone?.getAudioTracks() ?? [];
    if (voice) await this.#ensurePublisher().publish("audio", voice);
    for (const [kind, track] of this.#own) await this.#ensurePublisher().publish(kind, track);
  }

  #ensurePublisher() {
    this.#publisher ??= new Publisher(this.#session, this.#iceServers);
    return this.#publisher;
  }

  async #openMicrophone() {
    try {
      const stream = await this.#devices.microphone();
      stopAll(this.#microphone);
      this.#microphone = stream;
    } catch (error) {
      press("mute", true);
      $("mute").lastChild.textContent = " No microphone: try again";
      notice(captureProblem(error, "microphone"), { error: true });
      return;
    }
    this.#meter.start(this.#microphone);
    this.#applyMute();
    await this.#ensurePublisher().publish("audio", this.#microphone.getAudioTracks()[0]);
  }

  #applyMute() {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !this.#isMuted;
    // Pressed says that it is so: another name would say the opposite to those who hear both.
    $("mute").lastChild.textContent = " Mute";
    press("mute", this.#isMuted);
  }

  #sendVoiceState() {
    this.#session.send({ type: "SetVoiceState", channel_id: this.#channel.id, muted: this.#isMuted, deafened: this.#isDeafened });
  }

  async #hide(kind) {
    this.#own.get(kind)?.stop();
    this.#own.delete(kind);
    this.#stage.showOwn(kind, null);
    press(kind === "screen" ? "screen" : "camera", false);
    await this.#publisher?.unpublish(kind);
  }

  #trouble(error) {
    if (!this.#isOver && error.code !== "UNREACHABLE") notice(error.message, { error: true });
  }

  #end(why) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#quality.stop();
    this.#meter.stop();
    this.#publisher?.close();
    this.#subscriber?.close();
    stopAll(this.#microphone);
    for (const track of this.#own.values()) track.stop();
    this.#stage.clear();
    this.#people.reset([]);
    this.#session.forget(this.#channel.id);
    for (const id of ["mute", "deafen", "camera", "screen"]) press(id, false);
    $("mute").lastChild.textContent = " Mute";
    $("connection").hidden = true;
    $("recorded").hidden = true;
    this.dispatchEvent(new CustomEvent("left", { detail: why }));
  }
}

function stopAll(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

function press(id, is) {
  $(id).setAttribute("aria-pressed", String(is));
}

/** Nobody is to be recorded without seeing it. */
function showRecorded(is) {
  if (is && $("recorded").hidden) notice("This channel is being recorded.");
  $("recorded").hidden = !is;
}

function removal({ reason, message }) {
  const said = message ? `: “${message}”` : ".";
  const words = {
    kicked: "A moderator removed you from the channel",
    banned: "You were banned from the channel",
    replaced: "You joined from somewhere else",
    timeout: "You were away for too long",
  };
  return (words[reason] ?? "You are no longer in the channel") + said;
}
