// npm "binance" speaks to the Binance box: node judge_binance.js binance|binance_usdm host:port
// Prints one JSON line: rows of history, best bid and ask, the events that streams brought.
// Told: addresses.  Which of USD-M's two paths a stream is on it knows by itself.
const { MainClient, USDMClient, WebsocketClient } = require("binance");

const [venue, address] = process.argv.slice(2);
const spot = venue === "binance";
const told = { klines: 0, bid: "", ask: "", events: [] };
const log = { trace() {}, info() {}, error: (...words) => console.error(...words) };

function watch(topics) {
  const client = new WebsocketClient({ wsUrl: `ws://${address}` }, log);
  client.on("message", (message) => {
    const event = (message.data || message).e;
    if (event && !told.events.includes(event)) told.events.push(event);
    if (told.events.length === topics.length) {
      console.log(JSON.stringify(told));
      process.exit(0);
    }
  });
  client.on("exception", (error) => {
    console.error(error.message || error);
    process.exit(1);
  });
  client.subscribe(topics, spot ? "main" : "usdm");
}

async function main() {
  const Rest = spot ? MainClient : USDMClient;
  const rest = new Rest({ baseUrl: `http://${address}`, disableTimeSync: true });
  const rows = await rest.getKlines({ symbol: "BTCUSDT", interval: "1m", limit: 500 });
  const book = await rest.getOrderBook({ symbol: "BTCUSDT", limit: 100 });
  Object.assign(told, { klines: rows.length, bid: book.bids[0][0], ask: book.asks[0][0] });
  watch(["btcusdt@kline_1m", "btcusdt@aggTrade", "btcusdt@ticker", "btcusdt@depth@100ms"]);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
setTimeout(() => process.exit(2), 15000).unref();
