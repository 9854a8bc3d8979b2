// The candles of one series, bounded and ascending, and the chart that shows them.

import { clock, moment } from "./dom.js";

const MOST = 5000;
const KEPT = 4000;
const OLDER_WITHIN = 30; // candles left of what is to be seen: then older ones are wanted
const SHOWN = 120;
const SHOWN_ON_A_PHONE = 55;

/** What is kept of a candle message; numbers are for drawing only. */
function candleOf(row) {
  const [open, high, low, close] = [row.open, row.high, row.low, row.close].map(Number);
  const time = Number(row.time);
  if (![time, open, high, low, close].every(Number.isFinite)) return null;
  return {
    time, open, high, low, close,
    volume: Number(row.volume) || 0,
    source: String(row.source ?? ""),
    final: row.is_final === true,
    revised: row.update_type === "revision",
    complete: row.complete !== false,
    provisional: row.provisional === true,
  };
}

/** Candles by time. `put` tells where the new one lies; both ends of the array are cheap. */
export class Candles {
  rows = [];

  get last() {
    return this.rows.at(-1);
  }

  replace(rows) {
    this.rows = rows.map(candleOf).filter(Boolean).slice(-KEPT);
  }

  /** Puts older ones before; how many that were. */
  prepend(rows) {
    const first = this.rows[0]?.time ?? Infinity;
    const room = Math.max(0, KEPT - this.rows.length);
    const older = rows.map(candleOf).filter((candle) => candle && candle.time < first);
    const taken = room ? older.slice(-room) : [];
    this.rows = [...taken, ...this.rows];
    return taken.length;
  }

  get full() {
    return this.rows.length >= KEPT;
  }

  /** The candle, or null: it cannot be read, or is older than all that are kept. */
  put(row) {
    const candle = candleOf(row);
    if (!candle) return null;
    let at = this.rows.length;
    while (at > 0 && this.rows[at - 1].time > candle.time) at -= 1;
    if (this.rows[at - 1]?.time === candle.time) {
      candle.revised ||= this.rows[at - 1].revised;
      this.rows[at - 1] = candle;
    } else if (at > 0 || this.rows.length === 0) {
      this.rows.splice(at, 0, candle);
    } else return null;
    return candle;
  }

  /** Forgets the oldest; true where any were. */
  trim() {
    if (this.rows.length <= MOST) return false;
    this.rows = this.rows.slice(-KEPT);
    return true;
  }
}

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** A mark of the time axis in the reader's time zone; the library's own are UTC. `type` 0 to 4:
 * year, month, day, minutes, seconds. */
function tick(time, type) {
  const at = new Date(time * 1000);
  if (type === 0) return String(at.getFullYear());
  if (type === 1) return MONTHS[at.getMonth()];
  if (type === 2) return `${at.getDate()} ${MONTHS[at.getMonth()]}`;
  return type === 3 ? clock(time * 1000).slice(0, 5) : clock(time * 1000);
}

/** A custom property of the style sheet, which knows light and dark. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class CandleChart {
  #chart;
  #prices;
  #volumes;
  #container;
  #colours = {};
  #drawnUntil = -Infinity; // time of the newest candle that the chart has
  #changed = new Set();
  #whole = true;
  #first = true;
  hovered = null; // time under the pointer

  /** `onMove()`: the range of time or the pointer has changed. */
  constructor(container, onMove) {
    this.#container = container;
    const { createChart, CandlestickSeries, HistogramSeries } = window.LightweightCharts;
    this.#chart = createChart(container, {
      autoSize: true,
      // The logo would come with a style element, which our policy forbids; the page has a line.
      layout: { attributionLogo: false, fontSize: 11, fontFamily: "inherit" },
      timeScale: { timeVisible: true, rightOffset: 4, minBarSpacing: 1, maxBarSpacing: 28, tickMarkFormatter: tick },
      crosshair: { mode: 0 },
      localization: { locale: "en-GB", timeFormatter: (time) => moment(time * 1000) },
    });
    this.#prices = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#prices.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.24 } });
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.#volumes.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange(onMove);
    this.#chart.timeScale().subscribeSizeChange(onMove);
    this.#chart.subscribeCrosshairMove((at) => {
      this.hovered = at.time ?? null;
      onMove();
    });
    this.paint();
  }

  /** Takes the colours of the style sheet anew. */
  paint() {
    for (const name of ["up", "down", "up-soft", "down-soft", "text-soft", "line", "panel"]) {
      this.#colours[name] = colour(`--${name}`);
    }
    const { up, down, line, panel } = this.#colours;
    this.#chart.applyOptions({
      layout: { background: { color: panel }, textColor: this.#colours["text-soft"] },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      timeScale: { borderColor: line },
      rightPriceScale: { borderColor: line },
    });
    this.#prices.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#whole = true;
  }

  precision(decimals) {
    this.#prices.applyOptions({
      priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals },
    });
  }

  /** Another series begins: the newest candles are to be seen. */
  begin(decimals, seconds) {
    this.precision(decimals);
    this.#chart.timeScale().applyOptions({ secondsVisible: seconds < 60 });
    this.#whole = true;
    this.#first = true;
  }

  /** Whether its reader is near the oldest candle. */
  get wantsOlder() {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    return range !== null && range.from < OLDER_WITHIN;
  }

  redrawAll() {
    this.#whole = true;
  }

  changed(candle) {
    this.#changed.add(candle.time);
  }

  /** Brings the chart up to date; what lies before its newest candle needs the whole series. */
  draw(candles) {
    const times = [...this.#changed].sort((a, b) => a - b);
    this.#changed.clear();
    if (this.#whole || times.length > 50 || times[0] < this.#drawnUntil) {
      this.#prices.setData(candles.rows.map((row) => this.#bar(row)));
      this.#volumes.setData(candles.rows.map((row) => this.#volume(row)));
      this.#whole = false;
    } else if (times.length) {
      for (const row of candles.rows.slice(-times.length - 1)) {
        if (row.time < times[0]) continue;
        this.#prices.update(this.#bar(row));
        this.#volumes.update(this.#volume(row));
      }
    }
    this.#drawnUntil = candles.last?.time ?? -Infinity;
    if (this.#first && candles.rows.length) {
      this.#first = false;
      const shown = this.#container.clientWidth < 600 ? SHOWN_ON_A_PHONE : SHOWN;
      const to = candles.rows.length;
      this.#chart.timeScale().setVisibleLogicalRange({ from: to - shown, to: to + 4 });
    }
  }

  /** Pixels from the left of a candle's two edges, null: it is not to be seen. */
  edges(time) {
    const scale = this.#chart.timeScale();
    const middle = scale.timeToCoordinate(time);
    if (middle === null) return null;
    const half = Math.max(1, scale.options().barSpacing / 2);
    if (middle + half < 0 || middle - half > scale.width()) return null;
    return { left: middle - half, right: Math.min(scale.width(), middle + half) };
  }

  #bar({ time, open, high, low, close, provisional }) {
    const bar = { time, open, high, low, close };
    if (!provisional) return bar;
    const color = this.#colours[close >= open ? "up-soft" : "down-soft"];
    return { ...bar, color, wickColor: color };
  }

  #volume({ time, open, close, volume }) {
    return { time, value: volume, color: this.#colours[close >= open ? "up-soft" : "down-soft"] };
  }
}
