// npm "okx-api" speaks to trio_feed's OKX dialect: node judge_okx_dialect.js http://H/okx ws://H/okx/...
// Prints one JSON line: rows of history, best bid and ask, the channels that brought data, acks.
// Told: its two URLs.  wsUrl is used whole for public and for business channels.
const { RestClient, WebsocketClient } = require("okx-api");

const [baseUrl, wsUrl] = process.argv.slice(2);
const told = { candles: 0, history: 0, bid: "", ask: "", funding: "", channels: [], acks: 0 };
const log = { trace() {}, info() {}, error: (...words) => console.error(...words) };
const instId = "BTC-USDT-SWAP";
const wanted = [
  "tickers", "trades", "books", "books5", "bbo-tbt", "mark-price", "funding-rate",
  "candle1m", "candle1H", "trades-all",
];

function fail(error) {
  console.error(error);
  process.exit(1);
}

async function main() {
  const rest = new RestClient({ baseUrl });
  told.candles = (await rest.getCandles({ instId, bar: "1m", limit: "300" })).length;
  told.history = (await rest.getHistoricCandles({ instId, bar: "1m", limit: "100" })).length;
  const [book] = await rest.getOrderBook({ instId, sz: "400" });
  const [funding] = await rest.getFundingRate({ instId });
  Object.assign(told, { bid: book.bids[0][0], ask: book.asks[0][0], funding: funding.fundingRate });
  const listed = await rest.getInstruments({ instType: "SWAP" });
  if (!listed.some((row) => row.instId === instId)) fail("instrument is not listed");
  const client = new WebsocketClient({ wsUrl }, log);
  client.on("update", (message) => {
    const channel = message.arg.channel;
    if (!told.channels.includes(channel)) told.channels.push(channel);
    if (told.channels.length === wanted.length && told.acks === wanted.length) {
      console.log(JSON.stringify(told));
      process.exit(0);
    }
  });
  client.on("response", (message) => {
    if (message.event === "subscribe") told.acks += 1;
  });
  client.on("exception", fail);
  client.subscribe(wanted.map((channel) => ({ channel, instId })));
}

main().catch(fail);
setTimeout(() => fail("too late: " + JSON.stringify(told)), 15000).unref();
