// The WebSocket: subscriptions that outlive connections. Each remembers the offset of its last
// message and asks for what followed it (`since`) when a new connection is made.

const PING_MS = 10_000;
const SILENT_MS = 25_000; // pings are answered, so this is a dead connection
const FIRST_DELAY_MS = 300;
const LONGEST_DELAY_MS = 10_000;

export class Connection {
  #url;
  #onMessage;
  #onState;
  #socket = null;
  #subscriptions = new Map(); // subscription_id -> {request, since}
  #failures = 0;
  #heardAt = 0;
  #retryTimer = 0;

  /** `onMessage(message)` gets every message of a present subscription and every error;
   * `onState(state, waitMs)` "connecting", "open" or "waiting". */
  constructor(url, onMessage, onState) {
    this.#url = url;
    this.#onMessage = onMessage;
    this.#onState = onState;
    this.#connect();
    setInterval(() => this.#watch(), PING_MS);
    const retry = () => {
      if (this.#retryTimer && !document.hidden) this.#connect();
    };
    addEventListener("online", retry);
    document.addEventListener("visibilitychange", retry);
  }

  subscribe(id, request) {
    const subscription = { request: { ...request, subscription_id: id }, since: null };
    this.#subscriptions.set(id, subscription);
    this.#send({ type: "subscribe", ...subscription.request });
  }

  unsubscribe(id) {
    const found = this.#subscriptions.get(id);
    if (!found || !this.#subscriptions.delete(id)) return;
    const { limit: _limit, provisional: _provisional, ...rest } = found.request;
    this.#send({ type: "unsubscribe", ...rest });
  }

  /** A question that is not asked again after a reconnect. */
  ask(request) {
    this.#send(request);
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#onState("connecting", 0);
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#heardAt = performance.now();
    socket.onopen = () => {
      this.#onState("open", 0);
      for (const { request, since } of this.#subscriptions.values()) {
        this.#send({ type: "subscribe", ...request, ...(since && { since }) });
      }
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = () => this.#lost(socket);
  }

  #lost(socket, afterMs = null) {
    if (socket !== this.#socket) return; // a later one is there
    this.#socket = null;
    // Doubled and spread, so that the pages of a service that restarts do not all come at once.
    const most = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    const waitMs = afterMs ?? most * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.#connect(), waitMs);
    this.#onState("waiting", waitMs);
  }

  #watch() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#send({ type: "ping" });
    if (this.#socket && performance.now() - this.#heardAt > SILENT_MS) {
      const silent = this.#socket;
      this.#lost(silent); // its own close may take the kernel minutes
      silent.close();
    }
  }

  #send(request) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  #receive(text) {
    this.#heardAt = performance.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // nothing of ours; the next message is
    }
    if (message.type === "reconnect") {
      const leaving = this.#socket;
      this.#lost(leaving, Number(message.after_ms) || 0);
      leaving?.close();
      return;
    }
    if (message.type === "error") {
      this.#onMessage(message);
      return;
    }
    const data = message.data;
    const subscription = this.#subscriptions.get(data?.subscription_id);
    if (!subscription) return;
    this.#failures = 0;
    // A confirmation repeats the offset that was asked from, or tells a new beginning.  The answer
    // to a question (`id`) is of its own time.
    if (Number.isInteger(data.offset) && message.id === undefined) subscription.since = { epoch: data.epoch, offset: data.offset };
    this.#onMessage(message);
  }
}
