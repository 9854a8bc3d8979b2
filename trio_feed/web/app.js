// The page: what is chosen, and who gets which message.

import { CandleChart, Candles } from "./candles.js";
import { Connection } from "./connection.js";
import { byId, compact, decimalsOf, moment, onFrame, price, say } from "./dom.js";
import { Latency, Tape, Top } from "./market.js";
import { startOperators } from "./operators.js";
import { Repairs, showStrip, showTable } from "./repairs.js";

const HISTORY_ROWS = 500;
const OLDER_EVERY_MS = 1500;
const SYMBOLS_EVERY_MS = 3000;
const NOTICE_MS = 10_000;
const OLDER = "older"; // the id of such a question
const UNITS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800, M: 2592000 };

const secondsOf = (interval) => Number.parseInt(interval, 10) * (UNITS[interval.at(-1)] ?? 60);
const badge = (id, shown) => { byId(`badge-${id}`).hidden = !shown; };

let noticeTimer = 0;
function notice(words) {
  say(byId("notice"), words);
  byId("notice").hidden = !words;
  clearTimeout(noticeTimer);
  if (words) noticeTimer = setTimeout(() => notice(""), NOTICE_MS);
}

/** venue -> symbol -> {intervals, channels}, of `/api/v1/symbols`. */
function catalogueOf(series) {
  const venues = new Map();
  for (const { exchange, symbol, channel, interval } of series) {
    if (!venues.has(exchange)) venues.set(exchange, new Map());
    const symbols = venues.get(exchange);
    if (!symbols.has(symbol)) symbols.set(symbol, { intervals: [], channels: new Set() });
    const found = symbols.get(symbol);
    if (channel === "kline") found.intervals.push(interval);
    else found.channels.add(channel);
  }
  for (const symbols of venues.values()) {
    for (const { intervals } of symbols.values()) intervals.sort((a, b) => secondsOf(a) - secondsOf(b));
  }
  return venues;
}

function options(select, names, wanted) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(wanted) ? wanted : names[0] ?? "";
  select.disabled = names.length < 2;
}

/** The three selects and the address' fragment, `#venue/symbol/interval`, which can be shared. */
class Picker {
  #catalogue;
  #onChoice;

  constructor(catalogue, onChoice) {
    this.#catalogue = catalogue;
    this.#onChoice = onChoice;
    byId("picker").hidden = false;
    byId("picker").addEventListener("change", () => this.#choose(this.#shown()));
    byId("picker").addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", () => {
      if (this.#fragment().join() !== this.#shown().join()) this.#choose(this.#fragment());
    });
    this.#choose(this.#fragment());
  }

  #shown() {
    return ["venue", "symbol", "interval"].map((id) => byId(id).value);
  }

  #fragment() {
    try {
      return location.hash.slice(1).split("/").map(decodeURIComponent);
    } catch {
      return []; // no text that was ever encoded
    }
  }

  /** What is asked for and not there is said, not replaced in silence. */
  #lacking([venue, symbol, interval]) {
    const symbols = this.#catalogue.get(venue);
    const found = symbols?.get(symbol);
    if (venue && !symbols) return `venue ${venue}`;
    if (symbol && !found) return `symbol ${symbol} of ${venue}`;
    if (interval && found && !found.intervals.includes(interval)) return `interval ${interval} of ${symbol}`;
    return "";
  }

  #choose(wanted) {
    const [venue, symbol, interval = "1m"] = wanted;
    const lacking = this.#lacking(wanted);
    options(byId("venue"), [...this.#catalogue.keys()], venue);
    const symbols = this.#catalogue.get(byId("venue").value) ?? new Map();
    options(byId("symbol"), [...symbols.keys()], symbol);
    const found = symbols.get(byId("symbol").value);
    const intervals = found?.intervals ?? [];
    options(byId("interval"), intervals, intervals.includes(interval) ? interval : "1m");
    if (!found) return;
    history.replaceState(null, "", `#${this.#shown().map(encodeURIComponent).join("/")}`);
    const [exchange, name, chosen] = this.#shown();
    this.#onChoice({ exchange, symbol: name, interval: chosen, channels: found.channels });
    if (lacking) notice(`There is no ${lacking.slice(0, 80)} here; this is ${this.#shown().join("/")}.`);
  }
}

/** One chosen series at a time; messages of the one before are not its own. */
class Market {
  #candles = new Candles();
  #repairs = new Repairs();
  #tape = new Tape();
  #top = new Top();
  #latency = new Latency();
  #frame = onFrame(() => this.#draw());
  #chart = new CandleChart(byId("chart"), () => this.#frame());
  #decimals = 0;
  #choice = null;
  #number = 0; // of the choice; part of every subscription_id
  #stream = "";
  #problem = "";
  #olderAskedAt = -Infinity;
  #connection;

  constructor() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.#connection = new Connection(
      `${scheme}//${location.host}/ws`,
      (message) => this.#take(message),
      (state, waitMs) => this.#connected(state, waitMs),
    );
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => {
      this.#chart.paint();
      this.#frame();
    });
    setInterval(() => {
      if (!document.hidden) this.#latency.show();
    }, 1000);
  }

  choose(choice) {
    for (const id of this.#ids()) this.#connection.unsubscribe(id);
    this.#number += 1;
    this.#choice = choice;
    this.#stream = this.#problem = "";
    this.#decimals = 0;
    this.#olderAskedAt = -Infinity;
    this.#candles.replace([]);
    this.#repairs.begin(secondsOf(choice.interval));
    for (const part of [this.#tape, this.#top, this.#latency]) part.begin();
    this.#chart.begin(0, secondsOf(choice.interval));
    notice("");
    const { exchange, symbol, interval, channels } = choice;
    const [kline, trade, top] = this.#ids();
    if (interval) {
      const history = { limit: HISTORY_ROWS, provisional: true };
      this.#connection.subscribe(kline, { exchange, symbol, interval, ...history });
    }
    if (channels.has("trade")) this.#connection.subscribe(trade, { exchange, symbol, channel: "trade" });
    const channel = this.#topChannel();
    if (channel) this.#connection.subscribe(top, { exchange, symbol, channel });
    this.#frame();
  }

  #ids() {
    return ["kline", "trade", "top"].map((name) => `${name}-${this.#number}`);
  }

  #topChannel() {
    return ["ticker", "book"].find((name) => this.#choice?.channels.has(name)) ?? "";
  }

  #connected(state, waitMs) {
    const words = { connecting: "connecting", open: "connected" }[state] ?? `reconnecting in ${(waitMs / 1000).toFixed(1)} s`;
    const element = byId("badge-connection");
    say(element, words);
    element.className = `badge ${state === "open" ? "good" : "bad"}`;
    document.body.classList.toggle("offline", state !== "open");
    if (state !== "open") this.#upstream("", ""); // nothing is known of it now
    this.#frame();
  }

  #take(message) {
    const { type, data } = message;
    if (type === "error") {
      notice(`${message.code}: ${message.message}`);
      return;
    }
    if (!String(data.subscription_id).endsWith(`-${this.#number}`)) return;
    if (type === "history_data" && message.id === OLDER) this.#older(data);
    else if (type === "history_data") this.#history(data);
    else if (type === "kline_data") this.#kline(data);
    else if (type === "trade_data" && data.data) this.#tape.add(data.data);
    else if (type === "ticker_data" && data.data) this.#top.ticker(data.data);
    else if (type === "book_data" && data.data) this.#top.book(data.data);
    else if (data.interval && type === "subscription_confirmed") this.#confirmed(data, message.timestamp);
    else if (data.interval && type === "stream_status") this.#status(data, message.timestamp);
    // What comes in a repair is old, and says nothing about the way.
    const live = this.#stream === "live" && data.event_time;
    if (live && type.endsWith("_data")) this.#latency.add(data, Date.now());
    this.#frame();
  }

  #history(data) {
    this.#candles.replace(data.data ?? []);
    for (const { open, close } of this.#candles.rows.slice(-50)) this.#refine(open, close);
    this.#chart.begin(this.#decimals, secondsOf(this.#choice.interval));
  }

  /** Asks for what lies before the oldest candle, when somebody looks there. */
  #askOlder() {
    const first = this.#candles.rows[0];
    const now = performance.now();
    if (!first || this.#candles.full || !this.#chart.wantsOlder) return;
    if (now - this.#olderAskedAt < OLDER_EVERY_MS) return;
    this.#olderAskedAt = now;
    const { exchange, symbol, interval } = this.#choice;
    const [id] = this.#ids();
    const question = { exchange, symbol, interval, subscription_id: id, limit: HISTORY_ROWS };
    this.#connection.ask({ type: "history", ...question, to: first.time, id: OLDER });
  }

  #older(data) {
    const number = this.#candles.prepend(data.data ?? []);
    if (number) this.#chart.redrawAll();
    // Where there is no more it may come yet (a service fills its history), but not at once.
    else this.#olderAskedAt = performance.now() + 10 * OLDER_EVERY_MS;
  }

  #kline({ data, received_at: receivedAt }) {
    const candle = this.#candles.put(data);
    if (!candle) return;
    this.#refine(candle.close);
    if (candle.final) this.#repairs.candle(candle, Number(receivedAt) || Date.now());
    if (this.#candles.trim()) this.#chart.redrawAll();
    this.#chart.changed(candle);
  }

  #refine(...values) {
    const decimals = Math.max(this.#decimals, ...values.map(decimalsOf));
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    this.#chart.precision(decimals);
  }

  #upstream(state, problem) {
    this.#stream = String(state ?? "");
    this.#problem = String(problem ?? "");
  }

  #confirmed({ upstream, problem }, at) {
    this.#upstream(upstream, problem);
    if (upstream === "live") this.#repairs.settled(Number(at) || Date.now());
  }

  #status(data, at) {
    const state = String(data.status);
    this.#upstream(state === "repaired" ? "live" : state, data.reason);
    this.#repairs.status(data, Number(at) || Date.now());
  }

  #draw() {
    if (!this.#choice) return;
    this.#chart.draw(this.#candles);
    this.#askOlder();
    this.#tape.show(this.#choice.channels.has("trade"));
    this.#top.show(this.#topChannel() !== "", this.#decimals);
    showTable(this.#repairs);
    showStrip(byId("timeline"), this.#repairs, this.#candles, this.#chart);
    this.#quote();
    this.#badges();
  }

  #quote() {
    const { rows, last } = this.#candles;
    say(byId("last"), last ? price(last.close, this.#decimals) : "–");
    const at = rows.find((row) => row.time === this.#chart.hovered) ?? last;
    const day = Number.isFinite(this.#top.open);
    const before = day ? this.#top.open : rows.at(-2)?.close;
    const change = last && before ? (last.close / before - 1) * 100 : NaN;
    say(byId("change"), Number.isFinite(change) ? `${change >= 0 ? "+" : ""}${change.toFixed(2)} %${day ? " (24 h)" : ""}` : "");
    byId("change").className = `change ${change >= 0 ? "up" : "down"}`;
    byId("change").title = day ? "in 24 hours, by the ticker" : "since the close of the candle before";
    const { symbol } = this.#choice;
    document.title = last ? `${price(last.close, this.#decimals)} ${symbol} · trio_feed` : "trio_feed";
    const show = (value) => price(value, this.#decimals);
    const parts = at && [
      moment(at.time * 1000), `O ${show(at.open)}`, `H ${show(at.high)}`, `L ${show(at.low)}`,
      `C ${show(at.close)}`, `V ${compact(at.volume)}`, at.source,
    ];
    // Only between the parts a line may break.
    const legend = parts?.map((part) => part.replaceAll(" ", "\u00a0")).join("   ");
    say(byId("legend"), legend ?? "Waiting for candles …");
  }

  #badges() {
    const { last } = this.#candles;
    badge("simulated", last?.source === "simulated");
    badge("provisional", last?.provisional);
    badge("incomplete", last?.complete === false);
    badge("stream", this.#stream !== "");
    const element = byId("badge-stream");
    say(element, this.#stream.replaceAll("_", " "));
    const said = this.#stream === "live" ? "" : this.#problem;
    say(byId("problem"), said);
    byId("problem").hidden = !said;
    element.className = `badge ${this.#stream === "live" ? "good" : "bad"}`;
    document.body.dataset.stream = this.#stream;
  }
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
  return answer.json();
}

async function start() {
  const page = await get("/web/page.json");
  startOperators(page);
  byId("badges").hidden = !page.klines;
  if (!page.klines) return;
  let series = [];
  while (!series.length) {
    ({ series } = await get("/api/v1/symbols"));
    if (series.length) break;
    notice("The service has no symbols yet: it waits for an exchange's list, or its settings name none.");
    await new Promise((resolve) => setTimeout(resolve, SYMBOLS_EVERY_MS));
  }
  notice("");
  byId("market").hidden = false;
  const market = new Market();
  new Picker(catalogueOf(series), (choice) => market.choose(choice));
}

start().catch((error) => notice(`The page could not start: ${error.message}`));
