// Microphone, camera and screen: what the page captures, and with which devices.

import { $, element } from "./dom.js";

const STORED = "antiphon.devices";
/** How often the level of one's own voice is shown. */
const METER_MS = 60;

/** What went wrong in words that say what to do. */
export function captureProblem(error, what) {
  if (!window.isSecureContext) {
    return `Browsers give a page the ${what} only over HTTPS or on localhost. Open this server by an https:// address. You can listen meanwhile.`;
  }
  switch (error.name) {
    case "NotAllowedError":
      return `The browser does not let this page use the ${what}. Allow it beside the address, then try again.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `There is no ${what}. Plug one in, or choose another under Devices.`;
    case "NotReadableError":
      return `Another program uses the ${what}. Close it there, then try again.`;
    default:
      return `The ${what} does not work: ${error.message}`;
  }
}

/** Chosen devices, kept for the next visit. Events: `changed` (detail: `microphone`, `speaker` or `webcam`). */
export class Devices extends EventTarget {
  #chosen = { processing: true, ...JSON.parse(localStorage.getItem(STORED) ?? "{}") };

  constructor() {
    super();
    for (const which of ["microphone", "speaker", "webcam"]) {
      $(which).addEventListener("change", () => this.#choose(which, $(which).value));
    }
    $("processing").checked = this.#chosen.processing;
    $("processing").addEventListener("change", () => {
      this.#chosen.processing = $("processing").checked;
      this.#choose("microphone", this.#chosen.microphone);
    });
    navigator.mediaDevices?.addEventListener("devicechange", () => $("devices").open && this.list());
  }

  get speaker() {
    return this.#chosen.speaker ?? "";
  }

  /** Shows what there is to choose from. */
  async list() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const kinds = { microphone: "audioinput", speaker: "audiooutput", webcam: "videoinput" };
    for (const [which, kind] of Object.entries(kinds)) {
      const found = all.filter((device) => device.kind === kind && device.deviceId);
      const options = found.map(({ deviceId, label }, at) =>
        element("option", { value: deviceId, textContent: label || `${which} ${at + 1}`, selected: deviceId === this.#chosen[which] }));
      $(which).replaceChildren(element("option", { value: "", textContent: "As the system says" }), ...options);
    }
  }

  microphone() {
    const { microphone, processing } = this.#chosen;
    const audio = { echoCancellation: processing, noiseSuppression: processing, autoGainControl: processing, channelCount: 1 };
    if (microphone) audio.deviceId = microphone;
    return capture({ audio });
  }

  webcam() {
    const video = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
    if (this.#chosen.webcam) video.deviceId = this.#chosen.webcam;
    return capture({ video });
  }

  screen() {
    if (!navigator.mediaDevices?.getDisplayMedia) throw new DOMException("it cannot be shared by this browser", "NotSupportedError");
    return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } } });
  }

  #choose(which, id) {
    this.#chosen[which] = id;
    localStorage.setItem(STORED, JSON.stringify(this.#chosen));
    this.dispatchEvent(new CustomEvent("changed", { detail: which }));
  }
}

function capture(constraints) {
  if (!navigator.mediaDevices) throw new DOMException("no media devices", "NotAllowedError");
  return navigator.mediaDevices.getUserMedia(constraints);
}

/** Shows how loud a microphone's stream is, until it is stopped. */
export class Meter {
  #context = null;
  #timer = null;

  start(stream) {
    this.stop();
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1_024;
    this.#context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.#timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      // -60 dB and less are 0, 0 dB is 1.
      $("level").value = Math.max(0, 1 + (10 * Math.log10(power + 1e-9)) / 60);
    }, METER_MS);
  }

  stop() {
    clearInterval(this.#timer);
    this.#context?.close();
    this.#context = null;
    $("level").value = 0;
  }
}
