import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import pino from "pino";
import { linkServer } from "../src/server.js";
import { Store } from "../src/store.js";

let directory, server, address;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "links-"));
  const store = await Store.open(join(directory, "links.json"));
  server = linkServer({ store, token: "open", log: pino({ level: "silent" }) });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${server.address().port}`;
});

after(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true });
});

const make = (body, token = "open") =>
  fetch(`${address}/links`, { method: "POST", headers: { Authorization: `Bearer ${token}` }, body });

test("a link without a name gets one, and is on disk", async () => {
  const answer = await make('{"target": "http://there.example/"}');
  const { name } = await answer.json();
  assert.equal(answer.status, 201);
  assert.match(name, /^[A-Za-z0-9_-]{8}$/);
  assert.equal((await (await fetch(`${address}/links/${name}`)).json()).target, "http://there.example/");
  assert.ok(name in JSON.parse(await readFile(join(directory, "links.json"), "utf8")));
});

test("what is no link is refused", async () => {
  for (const body of ["", "null", "{", '{"target": "ftp://x"}', '{"name": "../x", "target": "http://x"}'])
    assert.equal((await make(body)).status, 400, body);
  assert.equal((await make("x".repeat(20_000))).status, 413);
});

test("a wrong token is refused", async () => {
  assert.equal((await make("{}", "close")).status, 401);
});
