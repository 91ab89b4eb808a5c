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

/** A file of the page. */
export interface PageFile {
  type: string;
  text: string;
}

/** Serves the files of one page. */
export class PageFiles {
  /** The page's inline scripts and style sheets, as its Content-Security-Policy names them. */
  readonly inline: { script: string; style: string };
  /** The page, its modules and the libraries, by their paths. */
  readonly #files: ReadonlyMap<string, PageFile>;
  /** The folders of panels from elsewhere. */
  readonly #folders: string[] = [];

  private constructor(files: ReadonlyMap<string, PageFile>, inline: PageFiles["inline"]) {
    this.#files = files;
    this.inline = inline;
  }

  /**
   * Reads the page with its modules, and its libraries from Deno's cache or npm.
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
    const { modules, chartStyle } = libraries;
    const imports = {
      ...Object.fromEntries(Object.keys(modules).map((name) => [name, `./lib/${name}.js`])),
      "@vhostd/vhostd/web": "./src/web/client/kit.ts",
    };
    const script = JSON.stringify({ imports });
    const text = async (path: string) => await (await fetch(new URL(path, ROOT))).text();
    const style = await text("src/web/client/style.css") + chartStyle;
    const page = (await text("src/web/client/index.html"))
      .replace(/\s*"STYLES"\s*/, () => style).replace(/\s*"IMPORTS"\s*/, () => script);
    const files = new Map<string, PageFile>([["", { type: "text/html", text: page }]]);
    for (const [name, text] of Object.entries(modules)) {
      files.set(`lib/${name}.js`, { type: "text/javascript", text });
    }
    // Browsers do not wait for these to be read
    for (const [, path] of page.matchAll(/"(src\/web\/client\/\w+\.ts)"/g)) {
      files.set(path, (await read(new URL(path, ROOT)))!);
    }
    const [scripts, styles] = ["script", "style"].map((name) => inlineSources(page, name));
    return new PageFiles(files, { script: await scripts, style: await styles });
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
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    const [, folder, name] = PANEL_FILE.exec(path) ?? [];
    if (OWN_FILE.test(path)) return await read(new URL(path, ROOT));
    if (folder === undefined || this.#folders[Number(folder)] === undefined) return undefined;
    return await read(new URL(name, this.#folders[Number(folder)]));
  }
}

/** The sources of the elements with a text, as a Content-Security-Policy names them. */
async function inlineSources(page: string, element: string): Promise<string> {
  const texts = page.matchAll(new RegExp(`<${element}\\b[^>]*>([^<]+)</${element}>`, "g"));
  const sources = await Array.fromAsync(texts, async ([, text]) => {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return `'sha256-${new Uint8Array(digest).toBase64()}'`;
  });
  return sources.join(" ");
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
