// The two WebRTC connections of somebody in a room: one that publishes, one that hears and sees.

/** How long a connection may be broken before a new way is looked for. */
const BROKEN_MS = 2_000;
/** How often an answer is sent that the server has no time for, and how long apart. */
const TRIES_MAX = 5;
const TRY_AGAIN_MS = 3_000;

/** Bits per second of the layers of a camera's picture, smallest first; each is twice as wide as the one before. */
const LAYERS = [
  { rid: "q", scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: "h", scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: "f", scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];
/** A screen is to be read: one layer, sharp rather than smooth. */
const SCREEN_BITS_MAX = 2_500_000;

/** Runs steps one after another: descriptions must not cross. */
class Sequence {
  #last = Promise.resolve();

  run(step) {
    const result = this.#last.then(step);
    this.#last = result.catch(() => {});
    return result;
  }
}

/** Publishes voice, camera and screen. */
export class Publisher {
  #session;
  #connection;
  #sequence = new Sequence();
  #transceivers = new Map();

  constructor(session, iceServers) {
    this.#session = session;
    this.#connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#connection.addEventListener("icecandidate", ({ candidate }) => trickle(session, "publisher", candidate));
    onBroken(this.#connection, () => this.#negotiate("audio", { iceRestart: true }));
  }

  get connection() {
    return this.#connection;
  }

  /** Publishes a track as `audio`, `video` or `screen`, in place of the one before. */
  async publish(kind, track) {
    const known = this.#transceivers.get(kind);
    if (known) {
      await known.sender.replaceTrack(track);
      if (known.direction === "sendonly") return;
      known.direction = "sendonly";
    } else {
      this.#transceivers.set(kind, this.#connection.addTransceiver(track, { direction: "sendonly", sendEncodings: encodings(kind) }));
    }
    await this.#negotiate(kind);
  }

  async unpublish(kind) {
    const known = this.#transceivers.get(kind);
    if (!known || known.direction !== "sendonly") return;
    await known.sender.replaceTrack(null);
    known.direction = "inactive";
    await this.#negotiate(kind);
  }

  close() {
    this.#connection.close();
  }

  #negotiate(kind, options) {
    return this.#sequence.run(async () => {
      const connection = this.#connection;
      await connection.setLocalDescription(await connection.createOffer(options));
      const { payload } = await this.#session.request({ type: "publish_offer", payload: { sdp: connection.localDescription.sdp, kind } });
      await connection.setRemoteDescription({ type: "answer", sdp: payload.sdp });
    });
  }
}

function encodings(kind) {
  if (kind === "video") return LAYERS;
  if (kind === "screen") return [{ maxBitrate: SCREEN_BITS_MAX }];
  return undefined;
}

/** Hears and sees what others publish. Events: `tracks` (detail: a list of {publisher, kind, stream}). */
export class Subscriber extends EventTarget {
  #session;
  #connection;
  #sequence = new Sequence();

  constructor(session, iceServers) {
    super();
    this.#session = session;
    this.#connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#connection.addEventListener("icecandidate", ({ candidate }) => trickle(session, "subscriber", candidate));
    onBroken(this.#connection, () => this.subscribe({ ice_restart: true }));
  }

  get connection() {
    return this.#connection;
  }

  /** Asks for everything of everyone, now and later; with `ice_restart`, by a new way. */
  subscribe(options = {}) {
    return this.#session.request({ type: "subscribe", payload: options });
  }

  /** Answers an offer; what it brings is told. */
  offered({ sdp, tracks }) {
    return this.#sequence.run(async () => {
      const connection = this.#connection;
      await connection.setRemoteDescription({ type: "offer", sdp });
      await connection.setLocalDescription(await connection.createAnswer());
      const { sdp: answer } = connection.localDescription;
      await patiently(() => this.#session.request({ type: "subscribe_answer", payload: { sdp: answer } }));
      const byMid = new Map(connection.getTransceivers().map((transceiver) => [transceiver.mid, transceiver]));
      const heard = tracks
        .filter(({ mid }) => byMid.has(mid))
        .map(({ mid, publisher_id, kind }) => ({ publisher: publisher_id, kind, track: byMid.get(mid).receiver.track }));
      this.dispatchEvent(new CustomEvent("tracks", { detail: heard }));
    });
  }

  close() {
    this.#connection.close();
  }
}

/** Sends what nothing goes on without, again where the server has no time for it just now. */
async function patiently(send) {
  for (let tries = 0; ; tries++) {
    try {
      return await send();
    } catch (error) {
      if (tries === TRIES_MAX || !["RATE_LIMITED", "TEMPORARILY_UNAVAILABLE"].includes(error.code)) throw error;
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }
}

function trickle(session, target, candidate) {
  session.send({ type: "trickle_ice", payload: { target, candidate: candidate ?? { candidate: "" } } });
}

/** Calls `mend` when a connection has been broken for a while, and again as long as it stays so. */
function onBroken(connection, mend) {
  let timer = null;
  connection.addEventListener("connectionstatechange", () => {
    clearTimeout(timer);
    const wait = { disconnected: BROKEN_MS, failed: 0 }[connection.connectionState];
    if (wait === undefined) return;
    const again = async () => {
      await Promise.resolve(mend()).catch(() => {});
      timer = setTimeout(() => ["disconnected", "failed"].includes(connection.connectionState) && again(), 2 * BROKEN_MS);
    };
    timer = setTimeout(again, wait);
  });
}
