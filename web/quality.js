// How well one is connected, from what the browser measures.

import { $ } from "./dom.js";

const EVERY_MS = 2_000;
/** Shares of lost packets from which on it is noticed, and disturbs. */
const LOSS_FAIR = 0.02;
const LOSS_BAD = 0.08;
const ROUND_TRIP_FAIR_MS = 200;
const ROUND_TRIP_BAD_MS = 400;

/** Watches connections, and calls `show` with a state (`good`, `fair`, `bad`) and words. */
export class Quality {
  #timer = null;
  #last = { lost: 0, received: 0 };

  watch(connections, show) {
    this.stop();
    this.#timer = setInterval(async () => {
      const reports = await Promise.all(connections().map((connection) => connection.getStats()));
      const all = reports.flatMap((report) => [...report.values()]);
      const loss = this.#loss(all);
      const trips = all.filter((one) => one.type === "candidate-pair" && one.nominated && one.currentRoundTripTime !== undefined);
      const roundTripMs = trips.length ? 1_000 * Math.max(...trips.map((one) => one.currentRoundTripTime)) : null;
      show(...judge(connections(), loss, roundTripMs));
    }, EVERY_MS);
  }

  stop() {
    clearInterval(this.#timer);
    this.#last = { lost: 0, received: 0 };
  }

  /** The share of sound lost since the last look. */
  #loss(all) {
    const sound = all.filter((one) => one.type === "inbound-rtp" && one.kind === "audio");
    const sum = (name) => sound.reduce((total, one) => total + (one[name] ?? 0), 0);
    const now = { lost: sum("packetsLost"), received: sum("packetsReceived") };
    const lost = Math.max(0, now.lost - this.#last.lost);
    const received = Math.max(0, now.received - this.#last.received);
    this.#last = now;
    return lost + received > 0 ? lost / (lost + received) : 0;
  }
}

/** Shows how one is connected. */
export function showConnection(state, words) {
  $("connection").hidden = false;
  $("connection").dataset.state = state;
  $("connection").textContent = words;
}

/** Where there is nobody to hear or to be heard by, nothing was agreed upon: such a connection waits, it does not connect. */
const isBegun = (connection) => connection.connectionState !== "new" || connection.remoteDescription !== null;

function judge(connections, loss, roundTripMs) {
  const states = connections.filter(isBegun).map((connection) => connection.connectionState);
  if (states.some((state) => state === "failed" || state === "disconnected")) return ["bad", "Connection lost, trying again"];
  if (states.some((state) => state !== "connected")) return ["fair", "Connecting"];
  if (states.length === 0) return ["good", "Connected"];
  const trip = roundTripMs === null ? "" : ` · ${Math.round(roundTripMs)} ms`;
  const lost = loss >= 0.005 ? ` · ${Math.round(loss * 100)} % lost` : "";
  if (loss >= LOSS_BAD || roundTripMs >= ROUND_TRIP_BAD_MS) return ["bad", `Bad connection${trip}${lost}`];
  if (loss >= LOSS_FAIR || roundTripMs >= ROUND_TRIP_FAIR_MS) return ["fair", `Fair connection${trip}${lost}`];
  return ["good", `Good connection${trip}${lost}`];
}
