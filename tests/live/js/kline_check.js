// The integration test of the user's document 004, section 9.2, under Node: connect, subscribe to
// s1 when greeted, and pass once a history and a live update have come, within thirty seconds.
// Usage: node kline_check.js ws://host:port/ws SYMBOL     Exit code 0: passed.
const WebSocket = require("ws");
const assert = require("assert");

const [url, symbol] = process.argv.slice(2);

function check() {
  const socket = new WebSocket(url);
  const came = { history: null, update: null, confirmed: null };

  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      socket.close();
      reject(new Error("not everything came in time"));
    }, 30000);

    function passIfComplete() {
      if (came.history === null || came.update === null) return;
      clearTimeout(late);
      socket.close();
      resolve(came);
    }

    socket.on("open", () => console.log("connection open"));
    socket.on("message", (data) => {
      const message = JSON.parse(data.toString());
      switch (message.type) {
        case "connection_success":
          assert.ok(message.supported_intervals.includes("s1"));
          socket.send(JSON.stringify(
            { msg_type: "subscribe", symbol, interval: "s1", subscription_id: "test_sub_1" }));
          break;
        case "history_data":
          console.log("history:", message.data.data.length, "records");
          came.history = message.data;
          passIfComplete();
          break;
        case "kline_data":
          console.log("update:", JSON.stringify(message.data));
          came.update = message.data;
          passIfComplete();
          break;
        case "subscription_confirmed":
          came.confirmed = message.data;
          break;
        case "error":
          reject(new Error(`the server says: ${message.message}`));
          break;
      }
    });
    socket.on("error", reject);
    socket.on("close", () => console.log("connection closed"));
  });
}

check().then((came) => {
  assert.strictEqual(came.confirmed.subscription_id, "test_sub_1");
  assert.strictEqual(came.confirmed.success, true);
  assert.strictEqual(came.update.subscription_id, "test_sub_1");
  assert.strictEqual(came.update.symbol, symbol);
  for (const bar of [...came.history.data, came.update.data]) {
    for (const name of ["time", "open", "high", "low", "close", "volume", "update_count"]) {
      assert.strictEqual(typeof bar[name], "number", name);
    }
    assert.strictEqual(typeof bar.is_final, "boolean");
  }
  assert.ok(["realtime", "final"].includes(came.update.data.update_type));
  console.log("passed");
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
