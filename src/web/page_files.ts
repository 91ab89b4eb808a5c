/**
 * The files of the page: its modules in TypeScript, whose types are stripped as they are asked for,
 * and the libraries that they import.
 *
 * @module
 */

import { stripTypeScriptTypes } from "node:module";

/** Where vhostd's files are, below which the page has modules by their own paths. */
const ROOT = new URL("../../", import.meta.url);

/** Modules and style sheets of vhostd that the page may have. */
const OWN_FILE = /^(?:src\/web\/client|backends)\/(?:\w+\/)*\w+\.(ts|css)$/;

/** Modules beside a panel from elsewhere. */
const PANEL_FILE = /^panels\/(\d+)\/((?:\w+\/)*\w+\.[tj]s)$/;

const LIBRARY = /^lib\/([\w/]+)\.js$/;

/** A file of the page. */
export interface PageFile {
  type: string;
  text: string;
}

/** Serves the files of one page. */
export class PageFiles {
  /** The page itself. */
  readonly index: PageFile;
  /** The source of the page's one inline script, as its Content-Security-Policy names it. */
  readonly scriptSource: string;
  readonly #modules: Readonly<Record<string, string>>;
  readonly #chartStyle: string;
  /** The folders of panels from elsewhere. */
  readonly #folders: string[] = [];

  private constructor(
    { modules, chartStyle }: typeof import("./libraries.ts"),
    index: PageFile,
    scriptSource: string,
  ) {
    this.#modules = modules;
    this.#chartStyle = chartStyle;
    this.index = index;
    this.scriptSource = scriptSource;
  }

  /**
   * Reads the page, and its libraries from Deno's cache or npm.
   *
   * @throws {Error} When npm cannot be reached and they are not in the cache.
   */
  static async open(): Promise<PageFiles> {
    // Not a name that Deno can see: it would fetch the libraries for every command
    const url = new URL("./libraries.ts", import.meta.url).href;
    let libraries: typeof import("./libraries.ts");
    try {
      libraries = await import(url);
    } catch (cause) {
      const [reason] = (cause as Error).message.split("\n");
      throw new Error(
        `Cannot load the page's libraries (preact, htm, uplot), which come from npm once: ${reason}`,
        { cause },
      );
    }
    const imports = {
      ...Object.fromEntries(
        Object.keys(libraries.modules).map((name) => [name, `./lib/${name}.js`]),
      ),
      "@vhostd/vhostd/web": "./src/web/client/kit.ts",
    };
    const script = JSON.stringify({ imports });
    const page = await (await fetch(new URL("./client/index.html", import.meta.url))).text();
    const text = page.replace(/\s*"IMPORTS"\s*/, () => script);
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(script));
    const index = { type: "text/html", text };
    return new PageFiles(libraries, index, `'sha256-${new Uint8Array(digest).toBase64()}'`);
  }

  /**
   * Makes a panel part of the page.
   *
   * @param url The URL of its module.
   * @returns Its URL relative to the page's; null if it can have none.
   */
  servePanel(url: string): string | null {
    if (url.startsWith(ROOT.href)) {
      const path = url.slice(ROOT.href.length);
      return OWN_FILE.test(path) ? path : null;
    }
    const [, folder, name] = /^(file:\/\/\/.*\/)(\w+\.[tj]s)$/.exec(url) ?? [];
    if (folder === undefined) return null;
    if (!this.#folders.includes(folder)) this.#folders.push(folder);
    return `panels/${this.#folders.indexOf(folder)}/${name}`;
  }

  /** The file at a path; undefined if there is none. */
  async file(path: string): Promise<PageFile | undefined> {
    if (path === "") return this.index;
    if (path === "chart.css") return { type: "text/css", text: this.#chartStyle };
    const [, library] = LIBRARY.exec(path) ?? [];
    if (library !== undefined && Object.hasOwn(this.#modules, library)) {
      return { type: "text/javascript", text: this.#modules[library] };
    }
    const [, folder, name] = PANEL_FILE.exec(path) ?? [];
    if (OWN_FILE.test(path)) return await read(new URL(path, ROOT));
    if (folder === undefined || this.#folders[Number(folder)] === undefined) return undefined;
    return await read(new URL(name, this.#folders[Number(folder)]));
  }
}

async function read(url: URL): Promise<PageFile | undefined> {
  let text: string;
  try {
    text = await (await fetch(url)).text();
  } catch {
    return undefined;
  }
  if (url.pathname.endsWith(".css")) return { type: "text/css", text };
  return {
    type: "text/javascript",
    text: url.pathname.endsWith(".ts") ? stripTypeScriptTypes(text) : text,
  };
}
