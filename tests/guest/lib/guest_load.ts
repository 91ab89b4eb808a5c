/**
 * A load in a guest that verifies every block that it writes. It uses one disk at a time, of
 * {@linkcode LOAD_DISK_BYTES}: /dev/vda, unless a test names another.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Guest } from "../../../tools/guest/guest.ts";
import { ok } from "./helpers.ts";

/** The size of the disk that the load needs. */
export const LOAD_DISK_BYTES = 2 ** 24;

const LANES = 2;

/**
 * A lane of the load: it writes 64 KiB past the cache to its own blocks, reads them back and compares.
 */
const LANE = `
i=0
until [ -e /tmp/stop ]; do
  i=$((i + 1))
  at=$((i % 128 * ${LANES} + $1))
  head -c 65536 /dev/urandom >/tmp/data$1
  dd if=/tmp/data$1 of=/dev/$2 bs=64k seek=$at oflag=direct conv=notrunc 2>/tmp/said$1 &&
  dd if=/dev/$2 bs=64k skip=$at count=1 iflag=direct 2>/tmp/said$1 | cmp - /tmp/data$1 ||
  echo "block $at in round $i: $(cat /tmp/said$1)" >>/tmp/bad
  echo $i >/tmp/round$1
done
touch /tmp/ended$1`;

/** Starts the load. */
export async function startLoad(guest: Guest, disk = "vda"): Promise<void> {
  await ok(
    guest,
    `cat >/tmp/lane <<'END'\n${LANE}\nEND\ntouch /tmp/bad; rm -f /tmp/stop /tmp/ended*`,
  );
  for (let lane = 0; lane < LANES; lane++) {
    await ok(guest, `echo 0 >/tmp/round${lane}; sh /tmp/lane ${lane} ${disk} >/dev/null 2>&1 &`);
  }
}

/** Waits until each lane has made progress, and expects no error. */
export async function expectProgress(guest: Guest): Promise<void> {
  for (let lane = 0; lane < LANES; lane++) {
    await ok(
      guest,
      `n=$(cat /tmp/round${lane}); ` +
        `until [ "$(cat /tmp/round${lane})" -gt $((n + 1)) ] 2>/dev/null; do usleep 20000; done`,
    );
  }
  assertEquals(await ok(guest, "cat /tmp/bad"), "");
}

/** Ends the load, and expects no error. */
export async function endLoad(guest: Guest): Promise<void> {
  await ok(guest, "touch /tmp/stop");
  for (let lane = 0; lane < LANES; lane++) {
    await ok(guest, `until [ -e /tmp/ended${lane} ]; do usleep 20000; done`);
  }
  assertEquals(await ok(guest, "cat /tmp/bad"), "");
}

/** The SHA-256 of the disk as the guest reads it, past its cache. */
export async function diskHash(guest: Guest, disk = "vda"): Promise<string> {
  const hash = await ok(guest, `dd if=/dev/${disk} bs=1M iflag=direct 2>/dev/null | sha256sum`);
  return hash.slice(0, 64);
}
