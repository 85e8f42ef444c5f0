import { readFile, rename, writeFile } from "node:fs/promises";

/** The links by name, in one file that is replaced as a whole: a killed process leaves the old one. */
export class Store {
  #file;
  #links;
  #last = Promise.resolve();

  constructor(file, links) {
    this.#file = file;
    this.#links = links;
  }

  static async open(file) {
    try {
      return new Store(file, new Map(Object.entries(JSON.parse(await readFile(file, "utf8")))));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      return new Store(file, new Map());
    }
  }

  get(name) {
    return this.#links.get(name);
  }

  /** Keep a link; it is on disk when the promise is kept. One write after the other. */
  put(name, target) {
    this.#links.set(name, target);
    const written = this.#last.then(() => this.#write());
    this.#last = written.catch(() => {});
    return written;
  }

  async #write() {
    await writeFile(`${this.#file}.new`, JSON.stringify(Object.fromEntries(this.#links)));
    await rename(`${this.#file}.new`, this.#file);
  }
}
