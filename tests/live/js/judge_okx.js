// npm "okx-api" speaks to the OKX box: node judge_okx.js host:port
// Prints one JSON line: rows of history, best bid and ask, the channels that brought data, acks.
// Told: addresses, and of WebSockets the whole URL (it prints port 8443 otherwise, dead since
// 2026-10-31).  That URL replaces all of its URLs, so there is one client for each path.
const { RestClient, WebsocketClient } = require("okx-api");

const [address] = process.argv.slice(2);
const told = { candles: 0, history: 0, bid: "", ask: "", channels: [], acks: 0 };
const log = { trace() {}, info() {}, error: (...words) => console.error(...words) };
const instId = "BTC-USDT-SWAP";
const wanted = {
  public: ["tickers", "trades", "books", "books5", "bbo-tbt"],
  business: ["candle1m", "candle1Dutc", "trades-all"],
};
const all = wanted.public.length + wanted.business.length;

function fail(error) {
  console.error(error);
  process.exit(1);
}

function watch(path) {
  const client = new WebsocketClient({ wsUrl: `ws://${address}/ws/v5/${path}` }, log);
  client.on("update", (message) => {
    const channel = message.arg.channel;
    if (!told.channels.includes(channel)) told.channels.push(channel);
    if (told.channels.length === all && told.acks === all) {
      console.log(JSON.stringify(told));
      process.exit(0);
    }
  });
  client.on("response", (message) => {
    if (message.event === "subscribe") told.acks += 1;
  });
  client.on("exception", fail);
  client.subscribe(wanted[path].map((channel) => ({ channel, instId })));
}

async function main() {
  const rest = new RestClient({ baseUrl: `http://${address}` });
  told.candles = (await rest.getCandles({ instId, bar: "1m", limit: "300" })).length;
  told.history = (await rest.getHistoricCandles({ instId, bar: "1H", limit: "100" })).length;
  const [book] = await rest.getOrderBook({ instId, sz: "400" });
  Object.assign(told, { bid: book.bids[0][0], ask: book.asks[0][0] });
  const listed = await rest.getInstruments({ instType: "SWAP" });
  if (!listed.some((row) => row.instId === instId)) fail("instrument is not listed");
  watch("public");
  watch("business");
}

main().catch(fail);
setTimeout(() => fail("too late: " + JSON.stringify(told)), 15000).unref();
