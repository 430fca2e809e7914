// How one wants to be told: kinds and ways, quiet hours, addresses, and this browser.

import { $, attempt, element, notice } from "./dom.js";

const PATH = "/api/v1/users/me/notifications";
const KINDS = [
  ["mention", "Somebody mentions me"],
  ["reply", "Somebody answers me"],
  ["direct_message", "Somebody writes to me"],
  ["invitation", "I am made a member"],
];
const WAYS = [
  ["gateway", "Here"],
  ["push", "Browser"],
  ["email", "Mail"],
  ["sms", "SMS"],
];

/** The dialog. */
export class Preferences {
  #account;

  constructor(account) {
    this.#account = account;
    $("preferences-open").onclick = () => attempt($("preferences-open"), () => this.#open());
    $("preferences-form").onsubmit = (event) => {
      event.preventDefault();
      attempt(event.submitter, () => this.#save());
    };
    $("preferences-close").onclick = () => $("preferences").close();
    $("quiet").onchange = () => this.#showQuiet();
    for (const way of ["email", "sms"]) {
      $(`${way}-send`).onclick = () => attempt($(`${way}-send`), () => this.#sendCode(way));
      $(`${way}-confirm`).onclick = () => attempt($(`${way}-confirm`), () => this.#confirm(way));
      $(`${way}-forget`).onclick = () => attempt($(`${way}-forget`), () => this.#forget(way));
    }
    $("push-switch").onclick = () => attempt($("push-switch"), () => this.#switchPush());
  }

  /** Tells the server of this browser's subscription again: push services change them now and then, and servers their key. */
  async renew() {
    const subscription = await currentSubscription();
    if (!subscription) return;
    const { data } = await this.#account.request("GET", `${PATH}/push`);
    if (base64url(subscription.options.applicationServerKey) === data.public_key) {
      await this.#account.request("POST", `${PATH}/push`, subscription.toJSON());
    } else if (data.public_key) {
      await subscription.unsubscribe();
      await this.#subscribe();
    }
  }

  /**
   * Tells nobody anything here any more. The server is told while it knows who asks: it would else go on until the push service
   * refuses what it sends.
   */
  async forgetBrowser() {
    const subscription = await currentSubscription();
    if (!subscription) return;
    try {
      // Subscribing again changes nothing, and says under which id the server knows it.
      const { data } = await this.#account.request("POST", `${PATH}/push`, subscription.toJSON());
      await this.#account.request("DELETE", `${PATH}/push/${data.id}`);
    } finally {
      await subscription.unsubscribe();
    }
  }

  async #open() {
    const [preferences, addresses] = await Promise.all([
      this.#account.request("GET", `${PATH}/preferences`),
      this.#account.request("GET", `${PATH}/addresses`),
    ]);
    this.#showKinds(preferences.data);
    this.#showHours(preferences.data.quiet_hours);
    this.#showAddresses(addresses.data);
    await this.#showPush();
    $("preferences").showModal();
  }

  #showKinds(preferences) {
    const head = element("tr", {}, element("td", {}), ...WAYS.map(([, name]) => element("th", { scope: "col", textContent: name })));
    const rows = KINDS.map(([kind, label]) => element(
      "tr",
      {},
      element("th", { scope: "row", textContent: label }),
      ...WAYS.map(([way, name]) => element("td", {}, element("input", { type: "checkbox", id: `way-${kind}-${way}`, checked: preferences[kind][way], "aria-label": `${label}: ${name}` }))),
    ));
    $("preferences-kinds").replaceChildren(head, ...rows);
  }

  #showHours(hours) {
    $("quiet").checked = hours !== null;
    $("quiet-from").value = hours?.from ?? "22:00";
    $("quiet-to").value = hours?.to ?? "07:00";
    $("quiet-zone").value = hours?.time_zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
    if ($("time-zones").children.length === 0) {
      const zones = Intl.supportedValuesOf?.("timeZone") ?? [];
      $("time-zones").append(...zones.map((value) => element("option", { value })));
    }
    this.#showQuiet();
  }

  #showQuiet() {
    $("quiet-hours").hidden = !$("quiet").checked;
  }

  async #save() {
    const ways = (kind) => Object.fromEntries(WAYS.map(([way]) => [way, $(`way-${kind}-${way}`).checked]));
    const preferences = Object.fromEntries(KINDS.map(([kind]) => [kind, ways(kind)]));
    preferences.quiet_hours = $("quiet").checked
      ? { from: $("quiet-from").value, to: $("quiet-to").value, time_zone: $("quiet-zone").value.trim() }
      : null;
    await this.#account.request("PUT", `${PATH}/preferences`, preferences);
    $("preferences").close();
    notice("Saved.");
  }

  #showAddresses(addresses) {
    for (const way of ["email", "sms"]) {
      const { available, address, pending } = addresses[way];
      $(`${way}-part`).hidden = !available || this.#account.user.is_guest;
      $(`${way}-address`).value = pending ?? address ?? "";
      $(`${way}-state`).textContent = pending ? `A code was sent to ${pending}.` : address ? "Confirmed." : "";
      $(`${way}-code-part`).hidden = !pending;
      $(`${way}-code`).value = "";
      $(`${way}-forget`).hidden = !address && !pending;
    }
    const none = !addresses.email.available && !addresses.sms.available;
    $("addresses-hint").textContent = none ? "" : this.#account.user.is_guest ? "Sign up with a password to be told by mail or in this browser." : "";
  }

  async #reloadAddresses() {
    const { data } = await this.#account.request("GET", `${PATH}/addresses`);
    this.#showAddresses(data);
  }

  async #sendCode(way) {
    await this.#account.request("PUT", `${PATH}/addresses/${way}`, { address: $(`${way}-address`).value });
    await this.#reloadAddresses();
    $(`${way}-code`).focus();
  }

  async #confirm(way) {
    await this.#account.request("POST", `${PATH}/addresses/${way}/confirm`, { code: $(`${way}-code`).value });
    await this.#reloadAddresses();
  }

  async #forget(way) {
    await this.#account.request("DELETE", `${PATH}/addresses/${way}`);
    await this.#reloadAddresses();
  }

  async #showPush() {
    const { data } = await this.#account.request("GET", `${PATH}/push`);
    const isAble = Boolean(data.public_key) && "serviceWorker" in navigator && "PushManager" in window;
    $("push-part").hidden = !isAble || this.#account.user.is_guest;
    if (!isAble) return;
    const isOn = Boolean(await currentSubscription());
    $("push-switch").setAttribute("aria-pressed", String(isOn));
    $("push-switch").textContent = isOn ? "Do not tell me in this browser" : "Tell me in this browser";
  }

  async #switchPush() {
    if (await currentSubscription()) {
      await this.forgetBrowser();
    } else {
      await this.#subscribe();
    }
    await this.#showPush();
  }

  async #subscribe() {
    if ((await Notification.requestPermission()) !== "granted") {
      throw new Error("The browser does not let this page tell you: allow notifications in the address bar.");
    }
    const { data } = await this.#account.request("GET", `${PATH}/push`);
    const registration = await worker();
    const subscription = await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: data.public_key });
    await this.#account.request("POST", `${PATH}/push`, subscription.toJSON());
  }
}

function base64url(buffer) {
  const text = btoa(String.fromCharCode(...new Uint8Array(buffer)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The service worker, once it can be subscribed through. */
async function worker() {
  await navigator.serviceWorker.register("/sw.js");
  return navigator.serviceWorker.ready;
}

/** This browser's subscription, if it has one. */
async function currentSubscription() {
  if (!("serviceWorker" in navigator)) return null;
  const registration = await navigator.serviceWorker.getRegistration("/");
  return (await registration?.pushManager?.getSubscription()) ?? null;
}
