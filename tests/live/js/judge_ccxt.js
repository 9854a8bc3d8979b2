// npm "ccxt" (with ccxt.pro) speaks to a dialect: node judge_ccxt.js binance|binance_usdm|okx host:port
// Prints one JSON line: candles by pages, best bid and ask of its own book, ids of trades, tickers.
// Told: addresses, as docs/dialects.md says it.
const ccxt = require("ccxt");

const [venue, address] = process.argv.slice(2);
const spot = venue !== "binance_usdm";
const okx = venue === "okx";
const base = `${address}/${venue}`;

function client() {
  if (okx)
    return new ccxt.pro.okx({
      urls: { api: { rest: `http://${base}`, ws: `ws://${base}/ws/v5` } },
      options: { fetchMarkets: { types: ["spot", "swap"] } },
    });
  if (spot)
    return new ccxt.pro.binance({
      urls: { api: { public: `http://${base}/api/v3`, ws: { spot: `ws://${base}/ws/stream` } } },
      options: { fetchMarkets: { types: ["spot"] } },
    });
  return new ccxt.pro.binanceusdm({
    urls: {
      api: {
        fapiPublic: `http://${base}/fapi/v1`,
        ws: { linear: `ws://${base}/ws`, future: `ws://${base}/ws` },
      },
    },
    options: { fetchMarkets: { types: ["linear"] } },
  });
}

async function main() {
  const exchange = client();
  const symbol = spot ? "BTC/USDT" : "BTC/USDT:USDT";
  const other = symbol.replace("BTC", "ETH");
  await exchange.loadHttpProxyAgent(); // it wants this for ws:// to anywhere
  await exchange.loadMarkets();
  const end = Math.floor(Date.now() / 60000) * 60000 - 60000;
  const page = { paginate: true, paginationCalls: 3, maxEntriesPerRequest: 100 };
  const rows = await exchange.fetchOHLCV(symbol, "1m", end - 249 * 60000, 250, page);

  const books = async () => {
    let book;
    for (let n = 0; n < 20; n++) book = await exchange.watchOrderBook(symbol, okx ? 400 : 1000);
    return [book.bids[0][0], book.asks[0][0]];
  };
  const trades = async () => {
    const ids = [];
    while (ids.length < 20)
      ids.push(...(await exchange.watchTrades(symbol)).map((trade) => Number(trade.id)));
    return ids;
  };
  const candles = async () => {
    let found;
    for (let n = 0; n < 3; n++) found = await exchange.watchOHLCV(symbol, "1m");
    return found[found.length - 1];
  };
  const tickers = async () => {
    const found = new Set();
    while (found.size < 2)
      for (const name of Object.keys(await exchange.watchTickers([symbol, other]))) found.add(name);
    return [...found].sort();
  };
  const [book, ids, candle, named] = await Promise.all([books(), trades(), candles(), tickers()]);
  console.log(JSON.stringify({ rows: rows.map((row) => row[0]), book, ids, candle, named }));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
setTimeout(() => process.exit(2), 40000).unref();
