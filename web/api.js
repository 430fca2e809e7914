// The HTTP API, and the account that asks.

/** An answer that is an error: what is wrong in words, and its code. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const STORED = "antiphon.account";
/** Before its end, an access token is exchanged for a new one. */
const MARGIN_MS = 30_000;

async function ask(method, path, { body, token } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, "UNREACHABLE", "The server cannot be reached. Is the network there?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new ApiError(response.status, answer.error_code ?? "", answer.error ?? `The server answered ${response.status}.`);
  }
  return answer;
}

/** Who uses the page. Tokens are kept for the next visit, and shared by all tabs. */
export class Account {
  #kept;

  constructor() {
    this.#kept = JSON.parse(localStorage.getItem(STORED) ?? "null");
  }

  /** As the server shows them; null when nobody is signed in. */
  get user() {
    return this.#kept?.user ?? null;
  }

  async asGuest(username) {
    this.#keep(await ask("POST", "/api/users", { body: { username } }));
  }

  async logIn(username, password) {
    this.#keep(await ask("POST", "/api/auth/login", { body: { username, password } }));
  }

  async register(username, password) {
    this.#keep(await ask("POST", "/api/auth/register", { body: { username, password } }));
  }

  async signOut() {
    const refresh_token = this.#kept?.refresh_token;
    this.forget();
    if (refresh_token) await ask("POST", "/api/auth/logout", { body: { refresh_token } }).catch(() => {});
  }

  forget() {
    this.#kept = null;
    localStorage.removeItem(STORED);
  }

  /** Asks as this account. */
  async request(method, path, body) {
    const token = await this.token();
    try {
      return await ask(method, path, { body, token });
    } catch (error) {
      if (error.status !== 401) throw error;
      return ask(method, path, { body, token: await this.token({ not: token }) });
    }
  }

  /** A token that still holds for a while, and is another than `not`. A refresh token works once: one tab at a time uses it. */
  async token({ not } = {}) {
    const usable = () => this.#kept && this.#kept.access_token !== not && Date.now() < this.#kept.ends_at - MARGIN_MS;
    if (usable()) return this.#kept.access_token;
    const refresh = async () => {
      this.#kept = JSON.parse(localStorage.getItem(STORED) ?? "null");
      if (!this.#kept) throw new ApiError(401, "UNAUTHENTICATED", "You are signed out.");
      if (usable()) return;
      const { refresh_token } = this.#kept;
      this.#keep(await ask("POST", "/api/auth/refresh", { body: { refresh_token } }));
    };
    // Locks exist on HTTPS and on localhost only.
    await (navigator.locks ? navigator.locks.request(STORED, refresh) : refresh());
    return this.#kept.access_token;
  }

  #keep({ user, access_token, refresh_token, expires_in }) {
    this.#kept = { user, access_token, refresh_token, ends_at: Date.now() + expires_in * 1_000 };
    localStorage.setItem(STORED, JSON.stringify(this.#kept));
  }
}
