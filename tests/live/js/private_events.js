// The private flow of the user's document 003 under Node: connect, auth with a token in band,
// ping every so often, and get order.update, trade and balance.update as they occur.
// Usage: TOKEN=... node private_events.js ws://host:port/ws NUMBER_OF_EVENTS
// Prints "authenticated", then each event as a line of JSON, and ends after so many of them; exits
// with 4 where the token is refused.
const WebSocket = require("ws");

const [url, wanted] = process.argv.slice(2);
const socket = new WebSocket(url);
let events = 0;
let pongs = 0;

socket.on("open", () => {
  socket.send(JSON.stringify({ type: "auth", token: process.env.TOKEN }));
  setInterval(() => socket.send(JSON.stringify({ type: "ping" })), 200).unref();
});

socket.on("message", (data) => {
  const message = JSON.parse(data.toString());
  switch (message.type) {
    case "auth.success":
      console.log(JSON.stringify({ authenticated: message.user_id }));
      break;
    case "order.update":
    case "trade":
    case "balance.update":
      console.log(JSON.stringify(message));
      events += 1;
      break;
    case "pong":
      pongs += 1;
      break;
    case "error":
      console.error(JSON.stringify(message));
      process.exit(message.code === 1004 ? 4 : 1);
  }
  if (events >= Number(wanted) && pongs > 0) socket.close();
});
socket.on("close", (code) => {
  console.log(JSON.stringify({ closed: code, pongs }));
  process.exit(0);
});
socket.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
setTimeout(() => process.exit(2), 30000).unref();
