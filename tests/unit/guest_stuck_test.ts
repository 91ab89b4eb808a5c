import { assertEquals } from "@std/assert";
import { isStuck } from "../../tools/guest/guest.ts";

/** What QEMU said of a guest that hung at a boot. */
const STUCK = `
CPU#0
RIP=ffffffff85c17a0b RFL=00000212 [----A--] CPL=0 II=0 A20=1 SMM=0 HLT=1
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
CPU#1
RIP=ffffffff8527141a RFL=00000086 [--S--P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]`;

Deno.test("isStuck() knows a kernel that spins without interrupts, and no guest that waits for a device", () => {
  assertEquals(isStuck(STUCK), true);
  assertEquals(isStuck(STUCK.replace("HLT=0", "HLT=1")), false, "all sleep");
  assertEquals(
    isStuck(STUCK.replace("RFL=00000086", "RFL=00000286")),
    false,
    "it takes interrupts",
  );
  assertEquals(isStuck(STUCK.replace("ffffffff8527141a", "000000000000e105")), false, "firmware");
  assertEquals(isStuck(""), false);
});
