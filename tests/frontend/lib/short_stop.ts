/**
 * Serves a disk that has little time to stop: `short_stop.ts SOCKET DISK`.
 *
 * @module
 */

import blk from "../../../backends/blk/mod.ts";
import { serve } from "../../../mod.ts";

const [socketPath, blkFile] = Deno.args;
await using _server = await serve(blk, {
  ...{ socketPath, stopLimitMs: 300, log: console.error },
  options: { blkFile, numQueues: 2 },
});
console.error("serves");
const { promise, resolve } = Promise.withResolvers<void>();
Deno.addSignalListener("SIGTERM", resolve);
await promise;
