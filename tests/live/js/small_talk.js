// npm ws: pings both ways, a message in fragments and a large one, close codes.
// Usage: node small_talk.js ws://host:port/ws       Prints one JSON line.
const WebSocket = require("ws");

const url = process.argv[2];
const told = { pings: 0, pongs: 0, ids: [], codes: [] };

function fail(error) {
  console.error(error);
  process.exit(1);
}

function small() {
  const socket = new WebSocket(url);
  socket.on("error", fail);
  socket.on("ping", () => {
    told.pings += 1;
    if (told.pings === 3 && told.ids.length === 2) socket.close(1000);
  });
  socket.on("pong", (data) => {
    if (data.toString() !== "marco") fail("another pong");
    told.pongs += 1;
    socket.send(JSON.stringify({ type: "ping", id: 1, pad: "x".repeat(60000) }));
  });
  socket.on("open", () => socket.ping("marco"));
  socket.on("message", (data) => {
    const message = JSON.parse(data.toString());
    if (message.type !== "pong") return;
    told.ids.push(message.id);
    if (message.id === 1) {
      for (const piece of ['{"type":"ping",', '"id":', "2"]) socket.send(piece, { fin: false });
      socket.send("}", { fin: true });
    } else if (told.pings >= 3) {
      socket.close(1000);
    }
  });
  socket.on("close", (code) => {
    told.codes.push(code);
    large();
  });
}

function large() {
  const socket = new WebSocket(url);
  socket.on("error", () => {});
  socket.on("open", () => socket.send("x".repeat(200000)));
  socket.on("close", (code) => {
    told.codes.push(code);
    console.log(JSON.stringify(told));
    process.exit(0);
  });
}

small();
setTimeout(() => fail("too late: " + JSON.stringify(told)), 20000).unref();
