// What is heard and seen: one audio element for each voice, one tile for each picture.

import { $, element } from "./dom.js";

/** Sound and pictures of a room. */
export class Stage {
  #sounds = new Map();
  #tiles = new Map();
  #isDeafened = false;
  #speaker = "";

  /** Shows and plays exactly these: a list of {publisher, kind, track}. `name(id)` is whose they are. */
  show(tracks, name) {
    const keep = new Set();
    for (const { publisher, kind, track } of tracks) {
      const key = `${publisher} ${kind}`;
      keep.add(key);
      if (kind === "audio") this.#hear(key, track);
      else this.#see(key, track, kind, name(publisher), false);
    }
    for (const [key, sound] of this.#sounds) {
      if (!keep.has(key)) this.#end(this.#sounds, key, sound);
    }
    for (const [key, tile] of this.#tiles) {
      if (!keep.has(key) && !tile.isOwn) this.#end(this.#tiles, key, tile.figure);
    }
  }

  /** Shows one's own camera or screen; without a track, no more. */
  showOwn(kind, track) {
    const key = `own ${kind}`;
    const tile = this.#tiles.get(key);
    if (track) this.#see(key, track, kind, "You", true);
    else if (tile) this.#end(this.#tiles, key, tile.figure);
  }

  set deafened(is) {
    this.#isDeafened = is;
    for (const sound of this.#sounds.values()) sound.muted = is;
  }

  /** Plays by another device, where the browser can. */
  set speaker(id) {
    this.#speaker = id;
    for (const sound of this.#sounds.values()) sound.setSinkId?.(id).catch(() => {});
  }

  /** Browsers play sound only after somebody touched the page. */
  play() {
    $("unblock").hidden = true;
    for (const sound of this.#sounds.values()) start(sound);
  }

  clear() {
    this.show([], () => "");
    for (const kind of ["video", "screen"]) this.showOwn(kind, null);
    $("unblock").hidden = true;
  }

  #hear(key, track) {
    const known = this.#sounds.get(key);
    if (known?.srcObject.getTracks()[0] === track) return;
    known?.remove();
    const sound = element("audio", { autoplay: true, muted: this.#isDeafened, srcObject: new MediaStream([track]), "data-of": key });
    if (this.#speaker) sound.setSinkId?.(this.#speaker).catch(() => {});
    this.#sounds.set(key, sound);
    $("sounds").append(sound);
    start(sound);
  }

  #see(key, track, kind, name, isOwn) {
    const known = this.#tiles.get(key);
    if (known?.track === track) return;
    known?.figure.remove();
    const video = element("video", { autoplay: true, muted: true, playsInline: true, srcObject: new MediaStream([track]) });
    const words = kind === "screen" ? `${name} · screen` : name;
    const figure = element("figure", { className: `${kind} ${isOwn ? "own" : ""}`, "data-of": key }, video, element("figcaption", { textContent: words }));
    this.#tiles.set(key, { figure, track, isOwn });
    if (kind === "screen") $("tiles").prepend(figure);
    else $("tiles").append(figure);
  }

  #end(map, key, shown) {
    shown.remove();
    map.delete(key);
  }
}

function start(sound) {
  sound.play().catch((error) => {
    if (error.name === "NotAllowedError") $("unblock").hidden = false;
  });
}
