import { assertEquals, assertThrows } from "@std/assert";
import { parseFaults } from "../../backends/blk/faults/fault_plan.ts";
import { OptionError } from "../../src/virtio/mod.ts";

const rulesOf = (text: string) => parseFaults(text, "--faults").rules;

const base = { part: 1, from: 0, to: Infinity, errno: 5, leastMs: 0, mostMs: 0 };

Deno.test("parseFaults() takes the parts of a fault in any order", () => {
  const plan = parseFaults("error=write+flush:1%:ENOSPC:1M-2M,seed=7", "--faults");
  assertEquals(plan.seed, 7);
  const error = { ...base, fault: "error", requests: 0b110, part: 0.01, errno: 28 } as const;
  assertEquals(plan.rules, [{ ...error, from: 2 ** 20, to: 2 ** 21 }]);
  assertEquals(rulesOf("error=1M-2M:ENOSPC:1%:flush+write"), plan.rules);
  assertEquals(rulesOf("delay=read:500us-2s,stuck=flush,torn,short=4096-"), [
    { ...base, fault: "delay", requests: 1, leastMs: 0.5, mostMs: 2000 },
    { ...base, fault: "stuck", requests: 0b100 },
    { ...base, fault: "torn", requests: 0b10 },
    { ...base, fault: "short", requests: 0b11, from: 4096 },
  ]);
  assertEquals(rulesOf("none"), []);
});

const wrong: [text: string, message: string][] = [
  ["", '--faults takes error=, delay=, short=, torn=, stuck=, seed= or none; got ""'],
  ["errors=1%", '--faults takes error=, delay=, short=, torn=, stuck=, seed= or none; got "errors'],
  ["error=101%", "--faults: error takes requests (read+write+flush+discard+zeroes+erase), a part"],
  ["error=EWHAT", 'an error (EIO); got "EWHAT"'],
  ["torn=read", '--faults: torn takes requests (write), a part (1%), a range (1M-2M); got "read"'],
  ["torn=EIO", 'got "EIO"'],
  ["error=5ms", 'got "5ms"'],
  ["delay=read", "--faults: delay needs a time such as delay=5ms or delay=5ms-20ms"],
  ["delay=20ms-5ms", "--faults: delay needs a time"],
  ["delay=61s", "--faults: delay takes up to 60s"],
  ["error=2M-1M", '--faults takes ranges that are not empty, got "2M-1M"'],
  ["error=1%,seed=x", '--faults: seed takes a whole number, got "x"'],
  [Array(17).fill("error").join(), "--faults takes up to 16 faults, got 17"],
];

for (const [text, message] of wrong) {
  Deno.test(`--faults=${text} is refused`, () => {
    assertThrows(() => rulesOf(text), OptionError, message);
  });
}
