import pino from "pino";
import { linkServer } from "./server.js";
import { Store } from "./store.js";

const { PORT = "3000", LOG_LEVEL = "info", TOKEN } = process.env;
const log = pino({ level: LOG_LEVEL, base: null });

if (!TOKEN) {
  log.error("TOKEN is missing: who may make links?");
  process.exit(2);
}

const server = linkServer({ store: await Store.open("/data/links.json"), token: TOKEN, log });
server.listen(Number(PORT), () => log.info({ port: server.address().port }, "listening"));
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    log.info({ signal }, "stopping");
    server.close();
    server.closeIdleConnections();
  });
}
