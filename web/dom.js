// What builds the page. Text from people is only ever text: nothing here parses HTML.

/** The element that the page has under an id. */
export const $ = (id) => document.getElementById(id);

/** An element with properties, `on…` listeners, `data` and `aria` attributes, and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

/**
 * Replaces an element's children. Whoever's focus was in one of them has it in the one with the same `data-key` that took its place: a
 * list that is drawn anew while somebody goes through it by keyboard does not throw them out.
 */
export function redraw(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : undefined;
  container.replaceChildren(...children);
  if (focused) container.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** Of what was said last, so much stays for those who listen to the page. */
const SAID_MAX = 5;

/** Says something to those who listen to the page; others see it anyway. */
export function say(text) {
  $("said").append(element("div", { textContent: text }));
  while ($("said").children.length > SAID_MAX) $("said").firstChild.remove();
}

const NOTICE_MS = 8_000;

/** Tells something, and gives back the box that it is in; errors stay until they are closed. */
export function notice(text, { error = false } = {}) {
  const shown = [...$("notices").children].find((other) => other.firstChild.textContent === text);
  shown?.remove();
  const close = () => box.remove();
  const box = element(
    "div",
    { className: error ? "notice error" : "notice", role: error ? "alert" : undefined },
    element("span", { textContent: text }),
    element("button", { textContent: "✕", "aria-label": "Close", onclick: close }),
  );
  $("notices").append(box);
  if (!error) setTimeout(close, NOTICE_MS);
  return box;
}

/** What went wrong in attempts, and is still shown. */
const failures = new Set();

/** Controls whose act goes on. They are not `disabled`: browsers take the focus from what is. */
const busy = new Set();

/**
 * Runs what a person asked for, with its control doing nothing more meanwhile, and says what went wrong. When it goes right, what went wrong
 * before is no longer news; what is done without a control goes on by itself and says nothing of that.
 */
export async function attempt(control, act) {
  if (busy.has(control)) return undefined;
  const before = [...failures];
  if (control) {
    busy.add(control);
    control.setAttribute("aria-disabled", "true");
  }
  try {
    const outcome = await act();
    if (control) before.forEach(forget);
    return outcome;
  } catch (error) {
    failures.add(notice(error.message, { error: true }));
    return undefined;
  } finally {
    busy.delete(control);
    control?.removeAttribute("aria-disabled");
  }
}

function forget(failure) {
  failure.remove();
  failures.delete(failure);
}
