// Gaps and repairs of the shown series: what was missing, when it came, from where. The model is
// made of `stream_status` messages and the final candles between them; the view is a strip under
// the chart, at the chart's time, and a table.

import { byId, clock, duration, fill, moment } from "./dom.js";

const MOST = 50; // entries kept
const MOST_MARKS = 400; // marks in the strip
const OPEN = new Set(["stale", "repairing"]);

export class Repairs {
  entries = []; // newest first
  #intervalS = 60;

  begin(intervalS) {
    this.entries = [];
    this.#intervalS = intervalS;
  }

  get open() {
    return this.entries.find((entry) => OPEN.has(entry.state)) ?? null;
  }

  /** A `stream_status`, with the unix ms at which the service said it. */
  status(data, at) {
    const state = String(data.status ?? "");
    const open = this.open;
    const [from, to] = [Number(data.from), Number(data.to)];
    const span = Number.isFinite(from) && Number.isFinite(to) ? { from, to } : {};
    if (state === "stale") {
      if (open) Object.assign(open, { reason: String(data.reason ?? "") });
      else this.#add({ state, began: at, reason: String(data.reason ?? "") });
    } else if (state === "repairing") {
      Object.assign(open ?? this.#add({ began: at }), { state, ...span });
    } else if (state === "repaired" || state === "unrepairable") {
      const entry = open ?? this.#add({ began: at });
      Object.assign(entry, { state, ended: at, ...span });
      if (data.reason) entry.reason = String(data.reason);
    } else if (state === "live" && open?.state === "stale") {
      Object.assign(open, { state: "live again", ended: at });
    }
  }

  /** The stream is live, by a confirmation: whatever was said meanwhile went past this page. */
  settled(at) {
    const { open } = this;
    if (open) Object.assign(open, { state: "live again", ended: at });
  }

  /** A closed candle, received at `at` by the service: it may be what was missing. */
  candle(candle, at) {
    if (candle.revised) {
      const more = { from: candle.time, to: candle.time, came: 1, sources: [candle.source] };
      this.#add({ state: "revised", began: at, ended: at, ...more });
      return;
    }
    const entry = this.entries.find(({ from, to }) => from <= candle.time && candle.time <= to);
    if (!entry || entry.state === "revised") return;
    entry.came += 1;
    entry.cameAt = at;
    if (candle.source && !entry.sources.includes(candle.source)) entry.sources.push(candle.source);
  }

  /** Candles that the span of an entry has. */
  size({ from, to }) {
    return from === undefined ? 0 : Math.round((to - from) / this.#intervalS) + 1;
  }

  #add(entry) {
    const whole = { came: 0, cameAt: null, sources: [], reason: "", ended: null, ...entry };
    this.entries.unshift(whole);
    this.entries.length = Math.min(this.entries.length, MOST);
    return whole;
  }
}

const CLASS = {
  stale: "bad", repairing: "bad", unrepairable: "bad", repaired: "good", "live again": "good", revised: "info",
};

function missing(repairs, entry) {
  const size = repairs.size(entry);
  if (!size) return entry.state === "stale" ? "not known yet" : "no closed candle";
  const [from, to] = [moment(entry.from * 1000), moment(entry.to * 1000)];
  return size === 1 ? `1 candle, ${from}` : `${size} candles, ${from} to ${to.slice(11)}`;
}

export function showTable(repairs) {
  const { entries } = repairs;
  byId("no-repairs").hidden = entries.length > 0;
  byId("repairs").hidden = entries.length === 0;
  fill(byId("repairs").tBodies[0], entries.map((entry) => [
    moment(entry.began),
    { text: entry.state, className: `state ${CLASS[entry.state] ?? ""}` },
    missing(repairs, entry),
    entry.cameAt ? `${entry.came} at ${clock(entry.cameAt)}` : "–",
    entry.sources.join(", ") || "–",
    entry.ended && entry.state !== "revised" ? duration(entry.ended - entry.began) : "–",
    { text: entry.reason || "–", className: "words" },
  ]));
}

/** The strip: one mark per candle that was missing, is missing, was fetched or revised. */
export function showStrip(strip, repairs, candles, chart) {
  const marks = [];
  const mark = (time, kind, title) => {
    const edges = chart.edges(time);
    if (edges && marks.length < MOST_MARKS) marks.push({ ...edges, kind, title });
  };
  for (const { time, source, revised, complete } of candles.rows) {
    const what = revised ? "revised" : source === "backfill" ? "fetched" : complete ? "" : "missing";
    if (what) mark(time, what, `${moment(time * 1000)}: ${complete ? `${what}, source ${source}` : "trades are missing"}`);
  }
  for (const entry of repairs.entries) {
    const kind = { repaired: "repaired", repairing: "missing", unrepairable: "missing" }[entry.state];
    if (!kind) continue;
    for (const { time } of candles.rows) {
      if (time >= entry.from && time <= entry.to) mark(time, kind, `${moment(time * 1000)}: ${entry.state}`);
    }
  }
  if (repairs.open?.state === "stale" && candles.last) mark(candles.last.time, "missing", "stale");
  while (strip.childElementCount > marks.length) strip.lastElementChild.remove();
  marks.forEach(({ left, right, kind, title }, at) => {
    const element = strip.children[at] ?? strip.appendChild(document.createElement("span"));
    element.className = kind;
    element.title = title;
    element.style.left = `${left}px`; // by a script's hand, which the policy lets pass
    element.style.width = `${Math.max(2, right - left)}px`;
  });
}
