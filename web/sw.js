// What goes on while the page is closed: what a push service brings is shown, and leads to the page.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => event.waitUntil(show(event.data)));

async function show(data) {
  let said;
  try {
    said = data.json();
  } catch {
    return;
  }
  // A page that is looked at shows it itself; browsers let that pass where a page is visible. One that was not loaded yet when the
  // worker began is not under its control until it is loaded anew.
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (pages.some((page) => page.visibilityState === "visible")) return;
  // The same tag replaces, so that what comes twice is shown once.
  await self.registration.showNotification(said.title, { body: said.body, tag: said.id, icon: "/icon.svg", data: { path: said.path } });
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.path));
});

async function open(path) {
  const url = new URL(path ?? "/", self.location.origin);
  if (url.origin !== self.location.origin) return;
  const [page] = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (page) {
    page.postMessage({ type: "open", hash: url.hash });
    await page.focus();
  } else {
    await self.clients.openWindow(url);
  }
}

// Push services renew subscriptions now and then; the page tells the server of the new one when it is next open.
