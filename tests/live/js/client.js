// A client that this project did not write speaks to the service: node client.js ws://host:port/ws
// Prints one JSON line: rows of history, number of updates, notation, and whether they overlap.
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2]);
const told = { history: 0, updates: 0, interval: "", overlap: null };
let lastHistory = 0;

socket.on("message", (data) => {
  const message = JSON.parse(data.toString());
  if (message.type === "connection_success") {
    socket.send(JSON.stringify(
      { msg_type: "subscribe", symbol: "BTCUSDT", interval: "m1", subscription_id: "node" }));
  } else if (message.type === "history_data") {
    told.history = message.data.data.length;
    lastHistory = message.data.data.at(-1).time;
  } else if (message.type === "kline_data") {
    told.interval = message.data.interval;
    told.overlap = told.overlap || message.data.data.time <= lastHistory;
    told.updates += 1;
    if (told.updates === 3) {
      console.log(JSON.stringify(told));
      socket.close();
    }
  } else if (message.type === "error") {
    console.error(message.message);
    process.exit(1);
  }
});
setTimeout(() => process.exit(2), 25000).unref();
