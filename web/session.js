// A session at the gateway. It outlives its connections: a lost one is resumed, and every event comes once and in order.

const REQUEST_MS = 15_000;
/** How long the server keeps a lost session (docs/protocol.md, section 3). */
const GRACE_MS = 30_000;
const RETRY_MS_MAX = 5_000;
/** Errors that pass: the server is not well just now, or the way to it. */
const PASSING = new Set(["UNREACHABLE", "TEMPORARILY_UNAVAILABLE", "TIMEOUT", "RATE_LIMITED"]);
/** Closes a connection and not its session, as 1000 would (docs/protocol.md, section 3). */
const COMES_AGAIN = 4000;
/** Close codes after which there is no coming back by itself. */
const FINAL = new Map([
  [4003, "Your sign-in is not accepted any more."],
  [4008, "Too many messages in a short time."],
  [4014, "You are banned from this server."],
  [4015, "You went on in another window."],
]);

/** An error of the gateway: what is wrong in words, and its code. */
export class GatewayError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Events: `message` (detail: the message), `state` (detail: `connected`, `resumed`, `renewed`, `lost`, or `over` with a reason).
 * `renewed` is a new session in the old one's place: nothing of the old one holds.
 */
export class Session extends EventTarget {
  #account;
  #socket = null;
  /** The one whose node is about to stop. */
  #leaving = null;
  #identity = null;
  #positions = new Map();
  #recovering = new Set();
  #waiting = new Map();
  #nextRequest = 1;
  #lostAt = null;
  #retries = 0;
  #isOver = false;
  #heartbeat = null;
  #wasHeard = true;
  #silentBeats = 0;

  constructor(account) {
    super();
    this.#account = account;
    // A sleeping or moving computer tells that its network is back sooner than a timer would.
    window.addEventListener("online", () => this.#isLost() && this.#connect());
  }

  /** Connects; resolves once the server knows who this is. */
  open() {
    this.#connect();
    return new Promise((resolve, reject) => {
      this.addEventListener("state", ({ detail: { state, more } }) => {
        if (state === "over") reject(new GatewayError("CLOSED", more));
        else if (state !== "lost") resolve();
      });
    });
  }

  /** Ends the session: its channels are left at once. */
  close() {
    this.#isOver = true;
    this.#socket?.close(1000);
    this.#fail(new GatewayError("CLOSED", "The connection was closed."));
  }

  /** Forgets where a channel's journal was: it was left. */
  forget(channel) {
    this.#positions.delete(channel);
  }

  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Sends a message and gives its direct answer, or throws its error. */
  request(message) {
    const request_id = `r${this.#nextRequest++}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(request_id);
        reject(new GatewayError("TIMEOUT", "The server does not answer."));
      }, REQUEST_MS);
      this.#waiting.set(request_id, { resolve, reject, timer });
      if (!this.send({ ...message, request_id })) {
        this.#settle(request_id, (waiting) => waiting.reject(new GatewayError("UNREACHABLE", "There is no connection to the server now.")));
      }
    });
  }

  /** Whether the connection to the server was lost and the session is not back yet, whatever ways of voice seem to stand. */
  get isAway() {
    return this.#lostAt !== null;
  }

  #isLost() {
    return !this.#isOver && (this.#socket === null || this.#socket.readyState === WebSocket.CLOSED);
  }

  #connect() {
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return;
    this.#socket = this.#open();
  }

  #open() {
    const url = new URL("/ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#take(JSON.parse(data)));
    socket.addEventListener("close", ({ code, reason }) => socket === this.#socket && this.#closed(code, reason));
    return socket;
  }

  /**
   * The node is about to stop; whoever balances sends the next connection elsewhere. The former goes on until another node greets, which may
   * be never: where there is no other, everything works until this one is gone. The server closes the former once the session goes on there.
   */
  #move(former, tries) {
    const isNeeded = () => !this.#isOver && this.#socket === former && former.readyState === WebSocket.OPEN;
    if (!isNeeded()) return;
    const next = this.#open();
    const timer = setTimeout(() => next.close(), REQUEST_MS);
    next.addEventListener("message", ({ data }) => {
      clearTimeout(timer);
      if (this.#socket === next) return;
      if (!isNeeded()) return next.close(1000);
      this.#socket = next;
      this.#fail(new GatewayError("UNREACHABLE", "The connection moved to another node meanwhile."));
      this.#take(JSON.parse(data));
    });
    next.addEventListener("close", () => {
      clearTimeout(timer);
      if (this.#socket !== next) setTimeout(() => this.#move(former, tries + 1), retryAfterMs(tries));
    });
  }

  #closed(code, reason) {
    clearInterval(this.#heartbeat);
    this.#fail(new GatewayError("UNREACHABLE", "The connection to the server was lost."));
    if (this.#isOver) return;
    if (FINAL.has(code)) {
      this.#isOver = true;
      if (code === 4003) this.#account.forget();
      this.#tell("over", FINAL.get(code));
      return;
    }
    if (isWithoutResume(reason)) this.#identity = null;
    if (this.#lostAt === null) {
      this.#lostAt = Date.now();
      this.#tell("lost");
    }
    if (Date.now() - this.#lostAt > GRACE_MS) this.#identity = null;
    setTimeout(() => this.#isLost() && this.#connect(), retryAfterMs(this.#retries++));
  }

  async #greet(hello) {
    const socket = this.#socket;
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.#beat(), hello.heartbeat_ms);
    this.#wasHeard = true;
    try {
      if (this.#identity) {
        await this.#resume();
      } else {
        await this.#authenticate(socket, hello);
      }
      this.#lostAt = null;
      this.#retries = 0;
    } catch (error) {
      // Another connection may be in its place by now.
      if (socket !== this.#socket) return socket.close(COMES_AGAIN);
      const wasIn = this.#identity !== null || this.#lostAt !== null;
      const passes = PASSING.has(error.code) || error.status >= 500;
      if (error.code === "UNREACHABLE" || (wasIn && passes)) {
        // The next try is by a connection of its own, after a while.
        return socket.close(this.#identity ? COMES_AGAIN : 1000);
      }
      this.#isOver = true;
      socket.close(1000);
      if (error.status === 401 || error.code === "UNAUTHENTICATED") this.#account.forget();
      this.#tell("over", error.message);
    }
  }

  async #resume() {
    const positions = Object.fromEntries(this.#positions);
    try {
      const resumed = await this.request({ type: "Resume", ...this.#identity, positions });
      this.#identity = { session_id: resumed.session_id, resume_token: resumed.resume_token };
      for (const channel of resumed.channels) this.#catchUp(channel);
      this.#tell("resumed", resumed);
    } catch (error) {
      if (PASSING.has(error.code)) throw error;
      // The session is gone. A new connection makes a new one.
      this.#identity = null;
      this.#socket.close(1000);
      throw new GatewayError("UNREACHABLE", error.message);
    }
  }

  async #authenticate(socket, hello) {
    const wasLost = this.#lostAt !== null;
    const token = await this.#account.token();
    if (socket !== this.#socket) throw new GatewayError("UNREACHABLE", "The connection to the server was lost.");
    await this.request({ type: "Authenticate", token });
    this.#identity = { session_id: hello.session_id, resume_token: hello.resume_token };
    this.#positions.clear();
    this.#tell(wasLost ? "renewed" : "connected");
  }

  /** Three heartbeats without an answer are a dead connection, whatever the operating system thinks of it. */
  #beat() {
    this.#silentBeats = this.#wasHeard ? 0 : this.#silentBeats + 1;
    this.#wasHeard = false;
    if (this.#silentBeats >= 3) {
      const socket = this.#socket;
      socket.close(COMES_AGAIN);
      this.#socket = null;
      this.#closed(1006, "");
      return;
    }
    this.send({ type: "Heartbeat" });
  }

  #take(message) {
    this.#wasHeard = true;
    if (message.type === "Hello") {
      this.#greet(message);
      return;
    }
    const isError = message.type === "Error" || message.type === "error";
    const settled = this.#settle(message.request_id, ({ resolve, reject }) => {
      const said = message.payload ?? message.data ?? message;
      if (isError) reject(new GatewayError(said.error_code, said.error ?? said.message));
      else resolve(message);
    });
    if (message.type === "Reconnect") {
      if (this.#leaving !== this.#socket) {
        this.#leaving = this.#socket;
        this.#move(this.#socket, 0);
      }
      return;
    }
    if (settled && isError) return;
    this.#inOrder(message);
  }

  /** Events of a journal come on in its order: what a gap hides is asked for first. */
  #inOrder(message) {
    const said = message.payload ?? message.data ?? message;
    const channel = said.channel_id ?? said.room_id;
    const position = Array.isArray(said) ? undefined : said.position;
    if (!channel || !position) {
      this.#pass(message);
      return;
    }
    const last = this.#positions.get(channel);
    const begins = message.type === "ChannelJoined" || last === undefined;
    const follows = last?.epoch === position.epoch && position.offset === last.offset + 1;
    if (begins || follows) {
      this.#positions.set(channel, position);
      this.#pass(message);
    } else if (last.epoch === position.epoch && position.offset <= last.offset) {
      // Known already.
    } else if (!this.#recovering.has(channel)) {
      this.#recover(channel, last);
    }
  }

  async #recover(channel, position) {
    this.#recovering.add(channel);
    try {
      this.#catchUp(await this.request({ type: "Recover", channel_id: channel, position }));
    } catch {
      // The next event shows the same gap.
    } finally {
      this.#recovering.delete(channel);
    }
  }

  #catchUp({ channel_id, recovered, events, members, position, recording }) {
    if (recovered) {
      for (const event of events ?? []) this.#inOrder(event);
    } else if (members && position) {
      this.#positions.set(channel_id, position);
      this.#pass({ type: "State", channel_id, members, position, recording });
    }
  }

  #pass(message) {
    this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  #settle(id, how) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return false;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    how(waiting);
    return true;
  }

  #fail(error) {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, ({ reject }) => reject(error));
  }

  #tell(state, more) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, more } }));
  }
}

/** When to try again: sooner at first, and not all clients at once. */
function retryAfterMs(tries) {
  return Math.min(RETRY_MS_MAX, 200 * 2 ** tries) * (0.75 + Math.random() / 2);
}

/** Whether a close reason says that the session cannot be resumed. */
function isWithoutResume(reason) {
  try {
    return JSON.parse(reason).resume === false;
  } catch {
    return false;
  }
}
