import { assert, assertEquals } from "@std/assert";
import * as codes from "../../backends/input/codes.ts";

const HEADER = "/usr/include/linux/input-event-codes.h";

function hasHeader(): boolean {
  try {
    return Deno.statSync(HEADER).isFile;
  } catch {
    return false;
  }
}

Deno.test({
  name: "every event type and code has the number that the Linux header gives it",
  ignore: !hasHeader(),
  fn() {
    const numbers = new Map(
      [...Deno.readTextFileSync(HEADER).matchAll(/^#define\s+(\w+)\s+(0x[\da-f]+|\d+)\b/gim)]
        .map(([, name, number]) => [name, Number(number)]),
    );
    const { EV, SYN, KEY, REL, ABS, MSC, SW, LED, REP, SND } = codes;
    const named = [EV, SYN, KEY, REL, ABS, MSC, SW, LED, REP, SND]
      .flatMap((table) => Object.entries(table));
    assert(named.length > 300);
    for (const [name, number] of named) {
      // An older header may lack a name
      if (numbers.has(name)) assertEquals(number, numbers.get(name), name);
    }
  },
});

Deno.test("codes have the numbers that every Linux has", () => {
  const { EV, KEY, REL, LED } = codes;
  assertEquals([EV.EV_KEY, EV.EV_LED, EV.EV_REP], [1, 0x11, 0x14]);
  assertEquals([KEY.KEY_A, KEY.KEY_ENTER, KEY.KEY_MICMUTE], [30, 28, 248]);
  assertEquals([KEY.BTN_LEFT, KEY.BTN_MIDDLE], [0x110, 0x112]);
  assertEquals([REL.REL_WHEEL, LED.LED_SCROLLL], [8, 2]);
});

Deno.test("eventName() returns names, or numbers of unnamed codes", () => {
  assertEquals(codes.eventName(1, 30), "EV_KEY KEY_A");
  assertEquals(codes.eventName(1, 0x2ff), "EV_KEY 767");
  assertEquals(codes.eventName(0x1f, 3), "31 3");
});

Deno.test("codeNumber() and typeNumber() know only the tables' names", () => {
  assertEquals(codes.typeNumber("EV_ABS"), 3);
  assertEquals(codes.typeNumber("toString"), undefined);
  assertEquals(codes.codeNumber(3, "ABS_Y"), 1);
  assertEquals(codes.codeNumber(3, "KEY_A"), undefined);
  assertEquals(codes.codeNumber(99, "KEY_A"), undefined);
});
