import { createHash, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { nanoid } from "nanoid";

const LIMIT = 16 * 1024;
const NAME = /^[A-Za-z0-9_-]{1,64}$/;

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The service, not listening yet; whoever makes links must know `token`. */
export function linkServer({ store, token, log }) {
  return createServer(async (request, response) => {
    const { status, body } = await answer(request, { store, token, log }).catch((error) => {
      if (error instanceof Refusal) return { status: error.status, body: { error: error.message } };
      log.error({ error: error.message }, "failed");
      return { status: 500, body: { error: "internal error" } };
    });
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  });
}

async function answer(request, { store, token, log }) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (request.method === "GET" && pathname === "/healthz") return { status: 200, body: { status: "well" } };
  if (request.method === "POST" && pathname === "/links") {
    if (!same(request.headers.authorization ?? "", `Bearer ${token}`)) throw new Refusal(401, "the token is missing");
    const { name = nanoid(8), target } = await link(request);
    await store.put(name, target);
    log.info({ name }, "made");
    return { status: 201, body: { name, target } };
  }
  const [, name] = /^\/links\/([^/]+)$/.exec(pathname) ?? [];
  const target = request.method === "GET" && name ? store.get(name) : undefined;
  if (target === undefined) throw new Refusal(404, "there is no such page");
  return { status: 200, body: { name, target } };
}

async function link(request) {
  let text = "";
  for await (const part of request.setEncoding("utf8")) {
    text += part;
    if (text.length > LIMIT) throw new Refusal(413, "too much");
  }
  const { name, target } = parsed(text);
  if (name !== undefined && !NAME.test(name)) throw new Refusal(400, "a name has letters, digits, - and _");
  if (!/^https?:\/\/[^\s]+$/.test(target)) throw new Refusal(400, "a target is a web address");
  return { name, target };
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    throw new Refusal(400, "not JSON");
  }
}

/** Compare in a time that tells nothing about where two texts differ. */
function same(one, other) {
  const digest = (text) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(one), digest(other));
}
