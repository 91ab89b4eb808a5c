import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);
const text = Deno.readTextFileSync(new URL("SECURITY.md", ROOT));

/** The cells of each row of a table under a heading. */
function rowsUnder(heading: string): string[][] {
  const section = text.split(`\n## ${heading}\n`)[1].split("\n## ")[0];
  return section.split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim())).slice(2);
}

/** The value of a constant, as its file declares it. */
function constant(name: string, file: string): number {
  const source = Deno.readTextFileSync(new URL(file, ROOT));
  const [, expression] = new RegExp(`const ${name}(?:: number)? = ([\\d_* ]+);`).exec(source) ?? [];
  assert(expression !== undefined, `Expected ${name} in ${file}`);
  const numbers = expression.replaceAll("_", "").split("**").map(Number);
  return numbers.length === 2 ? numbers[0] ** numbers[1] : numbers[0];
}

Deno.test("SECURITY.md states the limits that the code has", () => {
  const rows = rowsUnder("Limits");
  let compared = 0;
  for (const [what, limit, where] of rows) {
    const [, name, file] = /^`([A-Z_]+)` in `([^`]+)`$/.exec(where) ?? [];
    if (name === undefined) continue;
    const stated = Number(/^[\d,]+/.exec(limit)?.[0].replaceAll(",", "").replace(/,$/, ""));
    assertEquals(stated, constant(name, file), `${what}: ${limit}, ${where}`);
    compared++;
  }
  assert(compared >= 20, `${compared} compared`);
});

Deno.test("SECURITY.md names existing tests and files", () => {
  const tests = ["unit", "frontend", "guest"].flatMap((layer) =>
    [...Deno.readDirSync(new URL(`tests/${layer}`, ROOT))].map(({ name }) => name)
  );
  for (const [layer, _promise, where] of rowsUnder("What each layer promises")) {
    for (const [, file] of layer.matchAll(/`([^`]+)`/g)) Deno.statSync(new URL(file, ROOT));
    for (const [, name] of where.matchAll(/`([^`]+)`/g)) {
      const pattern = new RegExp(`^${name.replaceAll("*", "\\w+")}\\.ts$`);
      assert(tests.some((test) => pattern.test(test)), `Expected a test ${name}`);
    }
  }
});
