/** The floors of ARCHITECTURE.md: which folder may import from which, without circles. */
import { assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

/** What the files of a folder may import besides their own folder; the longest prefix counts. */
const FLOORS: Readonly<Record<string, readonly string[]>> = {
  "src/linux/": [],
  "src/memory/": ["src/linux/"],
  "src/virtqueue/": ["src/memory/"],
  "src/vhost_user/": [],
  "src/virtio/": ["src/linux/", "src/memory/", "src/virtqueue/", "src/vhost_user/"],
  "src/frontend/": [
    "src/linux/",
    "src/memory/",
    "src/virtqueue/",
    "src/vhost_user/",
    "src/virtio/",
  ],
  "src/runtime/": [
    "src/linux/",
    "src/memory/",
    "src/virtqueue/",
    "src/vhost_user/",
    "src/virtio/",
  ],
  "src/web/": ["src/linux/", "src/virtio/", "src/runtime/"],
  "src/cli/": [
    "src/web/",
    "src/linux/",
    "src/memory/",
    "src/virtqueue/",
    "src/vhost_user/",
    "src/virtio/",
    "src/frontend/",
    "src/runtime/",
  ],
  "mod.ts": ["src/linux/", "src/virtqueue/", "src/virtio/", "src/runtime/"],
  "backends/": ["mod.ts", "src/linux/mod.ts", "src/web/client/kit.ts"],
  "main.ts": ["mod.ts", "src/cli/", "backends/"],
  "tools/test.ts": ["src/", "tools/", "tests/"],
  "tools/": ["src/", "backends/", "mod.ts", "main.ts"],
  "examples/": ["mod.ts", "src/linux/mod.ts", "backends/net/handler/mod.ts"],
};

/** The modules of this project that have a name, by it. */
const NAMED: ReadonlyMap<string, string> = namedModules();

function namedModules(): Map<string, string> {
  const { name, exports } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", ROOT)));
  return new Map(
    Object.entries(exports as Record<string, string>).map(([path, file]) => [
      name + path.slice(1),
      file.slice(2),
    ]),
  );
}

// Comments are skipped: their examples import too.
const STATEMENT =
  /\/\*[^]*?\*\/|^\s*\/\/.*$|^(?:import|export)\b[^;"'`]*?\bfrom\s*"([^"]+)"|^import\s*"([^"]+)"|\bimport\("([^"]+)"\)/gm;

function sourceFiles(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) =>
    isDirectory ? sourceFiles(`${folder}${name}/`) : name.endsWith(".ts") ? [folder + name] : []
  );
}

/** The files of this project that a file imports, types among them. */
function importsOf(file: string): string[] {
  const text = Deno.readTextFileSync(new URL(file, ROOT));
  return [...text.matchAll(STATEMENT)]
    .map((match) => match[1] ?? match[2] ?? match[3])
    .filter((module) => module !== undefined)
    .flatMap((module) =>
      module.startsWith(".")
        ? [new URL(module, new URL(file, ROOT)).pathname.slice(ROOT.pathname.length)]
        : NAMED.get(module) ?? []
    );
}

function floorOf(file: string): string {
  return Object.keys(FLOORS).find((floor) => file.startsWith(floor)) ?? "none";
}

const imports = new Map(
  ["main.ts", "mod.ts", ...["src/", "backends/", "tools/", "examples/"].flatMap(sourceFiles)]
    // Templates become files of others
    .filter((file) => !file.startsWith("src/cli/templates/"))
    .map((file) => [file, importsOf(file)]),
);

Deno.test("each folder imports only from the floors below it", () => {
  const wrong: string[] = [];
  for (const [file, modules] of imports) {
    const floor = floorOf(file);
    const allowed = [floor, ...FLOORS[floor] ?? []];
    for (const module of modules) {
      if (!allowed.some((prefix) => module.startsWith(prefix))) wrong.push(`${file} → ${module}`);
    }
  }
  assertEquals(wrong, []);
});

Deno.test("a device imports nothing of another device", () => {
  const wrong: string[] = [];
  for (const [file, modules] of imports) {
    const [, device] = /^(backends\/[^/]+\/)/.exec(file) ?? [];
    if (device === undefined) continue;
    for (const module of modules) {
      if (module.startsWith("backends/") && !module.startsWith(device)) {
        wrong.push(`${file} → ${module}`);
      }
    }
  }
  assertEquals(wrong, []);
});

Deno.test("no module imports itself through others", () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]) => {
    const at = path.indexOf(file);
    if (at >= 0) circles.push([...path.slice(at), file].join(" → "));
    if (at >= 0 || done.has(file)) return;
    for (const module of imports.get(file) ?? []) visit(module, [...path, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  assertEquals(circles, []);
});

Deno.test("compat/install.json has every module that authors import", () => {
  const read = (file: string) => JSON.parse(Deno.readTextFileSync(new URL(file, ROOT)));
  const { name, exports } = read("deno.json");
  const { "./main": _program, ...modules } = exports as Record<string, string>;
  const { imports } = read("compat/install.json");
  for (const [module, file] of Object.entries(modules)) {
    assertEquals(imports[name + module.slice(1)], `.${file}`);
  }
});
