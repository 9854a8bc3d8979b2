// Elements, numbers and times as text. What an exchange sends reaches the page as textContent only.

export const byId = (id) => document.getElementById(id);

/** Sets the text, and touches the document only where it changes. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A table's body with as many rows as `rows`, each an array of cells: a text, or
 * `{text, title, className}`. Rows are used again, so a refresh makes no garbage. */
export function fill(tbody, rows) {
  while (tbody.rows.length > rows.length) tbody.deleteRow(-1);
  rows.forEach((cells, number) => {
    const row = tbody.rows[number] ?? tbody.insertRow();
    while (row.cells.length < cells.length) row.insertCell();
    cells.forEach((cell, column) => {
      const { text, title = "", className = "" } = typeof cell === "object" ? cell : { text: cell };
      const td = row.cells[column];
      say(td, String(text));
      if (td.title !== title) td.title = title;
      if (td.className !== className) td.className = className;
    });
  });
}

export const number = (text) => ({ text, className: "n" });

/** Decimals of a JSON number as JavaScript reads it: 85000.1 has 1, 2.5e-9 has 10. */
export function decimalsOf(value) {
  const [mantissa, exponent = "0"] = String(value).split("e");
  const digits = mantissa.split(".")[1]?.length ?? 0;
  return Math.min(16, Math.max(0, digits - Number(exponent)));
}

const grouped = new Map();

/** With thousands apart and a fixed number of decimals. */
export function price(value, decimals) {
  if (!Number.isFinite(value)) return "–";
  if (!grouped.has(decimals)) {
    const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    grouped.set(decimals, new Intl.NumberFormat("en-US", options));
  }
  return grouped.get(decimals).format(value);
}

const compactFormat = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
export const compact = (value) => (Number.isFinite(value) ? compactFormat.format(value) : "–");

const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const whole = (value) => (Number.isFinite(value) ? integers.format(value) : "–");

const pad = (value) => String(value).padStart(2, "0");

/** 12:03:59 of a unix time in ms. */
export function clock(ms) {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

/** The same with the day. */
export function moment(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(ms)}`;
}

export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.max(0, ms).toFixed(ms < 10 ? 1 : 0)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${(ms / 3_600_000).toFixed(1)} h`;
}

/** Calls `draw` once before the next frame however often it is asked; not at all in a hidden tab,
 * where the models go on and stay bounded. */
export function onFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}
