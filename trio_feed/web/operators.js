// The operators' part: `/api/v1/status`, asked every two seconds while the page is looked at.

import { byId, duration, fill, number, say, whole } from "./dom.js";

const EVERY_MS = 2000;
const WITHIN_MS = 5000;
const MOST_ROWS = 200;
const MOST_NAMES = 30;

const GOOD = new Set(["live", "healthy"]);
const stateCell = (state) => ({ text: state, className: `state ${GOOD.has(state) ? "good" : "bad"}` });
const ageClass = (ms) => (ms > 15_000 ? "n down" : "n");

/** Messages per second of each connection, from one answer to the next. */
class Rates {
  #before = new Map();
  #now = new Map();

  of(key, count, at) {
    this.#now.set(key, { count, at });
    const before = this.#before.get(key);
    if (!before || count < before.count) return NaN; // new, or made anew
    return (count - before.count) / ((at - before.at) / 1000);
  }

  turn() {
    [this.#before, this.#now] = [this.#now, new Map()];
  }
}

function connectionRows(status, rates, serverNow) {
  const at = performance.now();
  const rows = [];
  for (const [venue, { connections = [] }] of Object.entries(status.venues ?? {})) {
    for (const one of connections) {
      const rate = rates.of(`${venue} ${one.id}`, one.message_count, at);
      const age = one.last_message_ms ? Math.max(0, serverNow - one.last_message_ms) : NaN;
      const names = one.streams ?? [];
      const more = names.length > MOST_NAMES ? `\n… ${names.length - MOST_NAMES} more` : "";
      rows.push([
        venue,
        String(one.id),
        String(one.lane ?? "–"),
        { text: one.exit ?? "–", title: String(one.url ?? "") },
        stateCell(String(one.status)),
        { text: one.problem || "–", className: "words" },
        { text: String(names.length), title: names.slice(0, MOST_NAMES).join("\n") + more, className: "n" },
        number(whole(one.message_count)),
        number(Number.isFinite(rate) ? rate.toFixed(1) : "–"),
        { text: Number.isFinite(age) ? whole(age / 1000) : "–", className: ageClass(age) },
        number(whole(one.attempts)),
      ]);
    }
  }
  rates.turn();
  return rows;
}

function proxyRows(status) {
  const of = ([venue, { proxies = [] }]) => proxies.map((proxy) => [
    venue, `${proxy.kind} ${proxy.address}`, stateCell(String(proxy.state)),
    number(whole(proxy.successes)), number(whole(proxy.failures)),
    number(proxy.latency_ms === null ? "–" : duration(proxy.latency_ms)),
    { text: proxy.problem || "–", className: "words" },
  ]);
  return Object.entries(status.venues ?? {}).flatMap(of);
}

/** What clients asked for, the idlest first; null where nothing is on demand. */
function demandRows(status) {
  const asked = Object.entries(status.venues ?? {}).filter(([, { on_demand }]) => on_demand);
  const of = ([venue, { on_demand }]) => Object.entries(on_demand.symbols).map(([symbol, one]) => [
    venue, symbol, { text: one.fed ? "fed" : "starting", className: "state" }, number(whole(one.subscriptions)),
    number(whole(one.since_s)), number(whole(one.idle_s)), one.idle_s,
  ]);
  const rows = asked.flatMap(of).sort((a, b) => b.at(-1) - a.at(-1));
  return asked.length ? rows.map((row) => row.slice(0, -1)) : null;
}

/** All nodes of a cluster; null where this process is alone. */
function nodeRows(status) {
  if (!status.nodes) return null;
  return Object.entries(status.nodes).map(([name, one]) => [
    name, one.roles.join(" "), stateCell(one.ready ? "live" : "not ready"), one.version, number(whole(one.clients)),
    number(whole(one.age_s)), { text: one.shards.join(" "), className: "words" }, { text: one.not_ready || "–", className: "words" },
  ]);
}

/** What no row of a node says. */
function nodesProblem(status) {
  const free = Object.entries(status.shards).filter(([, node]) => !node).map(([shard]) => shard);
  const differing = Object.entries(status.differs ?? {}).map(
    ([name, venues]) => `${name} has other [exchanges] than ${status.node}: ${venues.join(" ")}`);
  const unfed = Object.entries(status.unfed ?? {}).map(
    ([venue, symbols]) => `${status.node} names what nobody feeds of ${venue}: ${symbols.join(" ")}`);
  return [
    status.engine.problem && `engine: ${status.engine.problem}`,
    status.database.problem && `database: ${status.database.problem}`,
    free.length > 0 && `fed by nobody: ${free.join(" ")}`,
    ...differing,
    ...unfed,
  ].filter(Boolean).join("; ");
}

function clientRows(status) {
  const clients = [...(status.clients ?? [])].sort((a, b) => b.queued_bytes - a.queued_bytes);
  return clients.slice(0, MOST_ROWS).map((one) => [
    { text: String(one.client_id).slice(0, 8), title: String(one.client_id) },
    one.peer ?? "",
    number(whole(one.subscriptions)),
    number(whole(one.queued_messages)),
    number(whole(one.queued_bytes)),
    number(duration(one.queued_age_ms)),
    number(whole(one.conflated)),
    number(`${whole(one.bytes_out / 1024)} KiB`),
  ]);
}

function show(status, rates, serverNow) {
  const connections = connectionRows(status, rates, serverNow);
  say(byId("no-connections"), "There is no connection to an exchange.");
  byId("no-connections").hidden = connections.length > 0;
  byId("connections").hidden = connections.length === 0;
  fill(byId("connections").tBodies[0], connections.slice(0, MOST_ROWS));
  const proxies = proxyRows(status);
  byId("proxies-panel").hidden = proxies.length === 0;
  fill(byId("proxies").tBodies[0], proxies.slice(0, MOST_ROWS));
  const demand = demandRows(status);
  byId("demand-panel").hidden = demand === null;
  fill(byId("demand").tBodies[0], (demand ?? []).slice(0, MOST_ROWS));
  const nodes = nodeRows(status);
  byId("nodes-panel").hidden = nodes === null;
  fill(byId("nodes").tBodies[0], (nodes ?? []).slice(0, MOST_ROWS));
  say(byId("nodes-problem"), nodes === null ? "" : nodesProblem(status));
  byId("clients-panel").hidden = false;
  say(byId("clients-number"), String(status.clients?.length ?? 0));
  fill(byId("clients").tBodies[0], clientRows(status));
  say(byId("service"), `trio_feed ${status.version ?? ""}`);
}

function trouble(words) {
  say(byId("no-connections"), words);
  byId("no-connections").hidden = false;
}

async function ask() {
  const answer = await fetch("/api/v1/status", { signal: AbortSignal.timeout(WITHIN_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
  // Ages are measured by the server's clock: the reader's may be wrong.
  const serverNow = Date.parse(answer.headers.get("date") ?? "") || Date.now();
  return [await answer.json(), serverNow];
}

export function startOperators(page) {
  if (!page.operators) {
    trouble(
      "Connections, proxies and clients are shown on the operators' port (server.admin_host), not here.",
    );
    return;
  }
  const rates = new Rates();
  const again = async () => {
    try {
      if (!document.hidden) {
        const [status, serverNow] = await ask();
        show(status, rates, serverNow);
      }
    } catch (error) {
      trouble(`No status: ${error.name === "TimeoutError" ? "no answer" : error.message}. Asked again.`);
    }
    setTimeout(again, EVERY_MS);
  };
  again();
}
