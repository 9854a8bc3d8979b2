// Trades tape, top of book and latency: small bounded models, drawn at most once per frame.

import { byId, clock, compact, decimalsOf, duration, fill, price, say } from "./dom.js";

const TAPE_ROWS = 40;
const SAMPLES = 300;

export class Tape {
  #rows = []; // newest first
  #decimals = 0;
  #quantityDecimals = 0;

  begin() {
    this.#rows = [];
    this.#decimals = this.#quantityDecimals = 0;
  }

  add(trade) {
    const [value, quantity] = [Number(trade.price), Number(trade.quantity)];
    this.#decimals = Math.max(this.#decimals, decimalsOf(value));
    if (Number.isFinite(quantity)) {
      this.#quantityDecimals = Math.max(this.#quantityDecimals, decimalsOf(quantity));
    }
    this.#rows.unshift({ time: Number(trade.time), price: value, quantity, side: trade.side });
    this.#rows.length = Math.min(this.#rows.length, TAPE_ROWS);
  }

  show(available) {
    byId("no-trades").hidden = this.#rows.length > 0;
    say(byId("no-trades"), available ? "No trade yet." : "This venue's trades are not among its channels.");
    byId("tape").hidden = this.#rows.length === 0;
    fill(byId("tape").tBodies[0], this.#rows.map((row) => [
      clock(row.time),
      { text: price(row.price, this.#decimals), className: row.side === "sell" ? "down" : row.side === "buy" ? "up" : "" },
      Number.isFinite(row.quantity) ? price(row.quantity, this.#quantityDecimals) : "–",
    ]));
  }
}

/** Best bid and ask: of the ticker, or the first levels of the book. */
export class Top {
  #bid = NaN;
  #ask = NaN;
  #sizes = [NaN, NaN];
  open = NaN; // 24 hours ago, where the ticker says

  begin() {
    this.open = NaN;
    this.#bid = this.#ask = NaN;
    this.#sizes = [NaN, NaN];
  }

  ticker({ open, bid, bid_size: bidSize, ask, ask_size: askSize }) {
    const read = (value, before) => (value === null || value === undefined ? before : Number(value));
    this.open = read(open, this.open);
    this.#bid = read(bid, this.#bid);
    this.#ask = read(ask, this.#ask);
    this.#sizes = [read(bidSize, this.#sizes[0]), read(askSize, this.#sizes[1])];
  }

  book({ bids, asks, stale }) {
    const [bid, ask] = stale ? [] : [bids?.[0], asks?.[0]];
    this.#bid = Number(bid?.[0] ?? NaN);
    this.#ask = Number(ask?.[0] ?? NaN);
    this.#sizes = [Number(bid?.[1] ?? NaN), Number(ask?.[1] ?? NaN)];
  }

  show(available, decimals) {
    const digits = Math.max(decimals, ...[this.#bid, this.#ask].filter(Number.isFinite).map(decimalsOf));
    const side = (value, size) => (Number.isFinite(value) ? `${price(value, digits)} × ${compact(size)}` : "–");
    say(byId("bid"), side(this.#bid, this.#sizes[0]));
    say(byId("ask"), side(this.#ask, this.#sizes[1]));
    const spread = this.#ask - this.#bid;
    const points = (spread / ((this.#ask + this.#bid) / 2)) * 10_000;
    const text = Number.isFinite(spread) ? `${price(spread, digits)} (${points.toFixed(2)} bp)` : "–";
    say(byId("spread"), available ? text : "needs the ticker channel");
  }
}

/** What each hop takes, over the last live messages. Clocks differ: the two outer hops contain the
 * difference between two machines, and a negative one is no mistake of the page. */
export class Latency {
  #hops = { venue: [], inside: [], page: [] };

  begin() {
    for (const samples of Object.values(this.#hops)) samples.length = 0;
  }

  add(data, now) {
    if (data.snapshot || data.source === "backfill") return;
    const [event, received, sent] = [data.event_time, data.received_at, data.sent_at].map(Number);
    this.#sample("venue", received - event);
    this.#sample("inside", sent - received);
    this.#sample("page", now - sent);
  }

  show() {
    for (const [name, samples] of Object.entries(this.#hops)) {
      const sorted = [...samples].sort((a, b) => a - b);
      const at = (part) => (sorted.length ? ms(sorted[Math.floor((sorted.length - 1) * part)]) : "–");
      say(byId(`hop-${name}`), at(0.5));
      say(byId(`hop-${name}-95`), at(0.95));
    }
  }

  #sample(name, value) {
    if (!Number.isFinite(value)) return;
    const samples = this.#hops[name];
    if (samples.length >= SAMPLES) samples.shift();
    samples.push(value);
  }
}

const ms = (value) => (Math.abs(value) < 1000 ? `${value.toFixed(1)} ms` : `${value < 0 ? "-" : ""}${duration(Math.abs(value))}`);
