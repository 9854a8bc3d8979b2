// The chart page of the user's document 004, section 8.1, under Node: the DOM-style WebSocket
// interface, a subscription as soon as the server greets, and helpers to subscribe, unsubscribe and
// ask for history.  Usage: node kline_page.js ws://host:port/ws SYMBOL
// Prints one JSON line: what the chart was given, and every kind of message that came.
const WebSocket = require("ws");

const [url, symbol] = process.argv.slice(2);
const interval = "m5";
const chart = { bars: [], updates: 0 };
const told = {
  symbol, kinds: [], confirmed: [], unsubscribed: [], other: 0, asked: 0, opened: false,
};
let step = 0;

function initChart(bars) {
  chart.bars = bars;
}

function updateChart(bar) {
  const last = chart.bars.at(-1);
  if (last && last.time === bar.time) chart.bars[chart.bars.length - 1] = bar;
  else chart.bars.push(bar);
  chart.updates += 1;
}

const socket = new WebSocket(url);

function ask(request) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
}

function subscribeKline(name, length) {
  const id = Date.now().toString();
  ask({ msg_type: "subscribe", symbol: name, interval: length, subscription_id: id });
  return id;
}

function unsubscribeKline(name, length) {
  ask({ msg_type: "unsubscribe", symbol: name, interval: length });
}

function getHistory(name, length, limit = 100) {
  ask({ msg_type: "history", symbol: name, interval: length, limit });
}

// What a visitor does with the page, one thing after the other as the answers come.
function visitor(message) {
  if (step === 0 && message.type === "kline_data") {
    step = 1;
    told.first = chart.bars.slice(0, -1).map((bar) => bar.time);
    told.update = message;
    getHistory(symbol, interval, 3);
  } else if (step === 1 && message.type === "history_data") {
    step = 2;
    told.asked = message.data.data.length;
    told.second = subscribeKline(symbol, "s30");
  } else if (step === 2 && message.type === "kline_data" && message.data.interval === "s30") {
    step = 3;
    unsubscribeKline(symbol, "s30");
  } else if (step === 3 && message.type === "unsubscribe_confirmed") {
    step = 4;
    unsubscribeKline(symbol, interval);
  } else if (step === 4 && message.type === "unsubscribe_confirmed") {
    socket.close();
  }
}

socket.onopen = () => { told.opened = true; };

socket.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (!told.kinds.includes(message.type)) told.kinds.push(message.type);
  switch (message.type) {
    case "connection_success":
      told.greeting = message;
      ask({ msg_type: "subscribe", symbol, interval, subscription_id: "sub_1" });
      break;
    case "history_data":
      if (step === 0) initChart(message.data.data);
      break;
    case "kline_data":
      if (message.data.interval === interval) updateChart(message.data.data);
      break;
    case "subscription_confirmed":
      told.confirmed.push(message.data);
      break;
    case "unsubscribe_confirmed":
      told.unsubscribed.push(message.data);
      break;
    case "error":
      console.error(JSON.stringify(message));
      process.exit(1);
      break;
    default:
      told.other += 1;
  }
  visitor(message);
};

socket.onclose = (event) => {
  told.closed = { code: event.code, reason: event.reason };
  told.updates = chart.updates;
  console.log(JSON.stringify(told));
  process.exit(step === 4 ? 0 : 3);
};

socket.onerror = (error) => {
  console.error(error.message);
  process.exit(1);
};

setTimeout(() => {
  console.error(`too late in step ${step}: ${JSON.stringify(told)}`);
  process.exit(2);
}, 40000).unref();
