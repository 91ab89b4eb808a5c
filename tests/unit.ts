/** All unit tests in one isolate: one for each file took three quarters of their time to start. */
const directory = new URL("unit/", import.meta.url);
const names = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
for (const name of names) {
  if (name.endsWith("_test.ts")) await import(new URL(name, directory).href);
}
