/**
 * The process that keeps processors awake: a thread for each, which the scheduler runs only while
 * nothing else wants to (sched(7), SCHED_IDLE).
 */

const SCHED_IDLE = 5; // linux/sched.h

/** What the threads are called: this module is theirs and the process's. */
const THREAD = "keeper";

interface Scope {
  name?: string;
  postMessage(message: string): void;
}
declare const self: Scope;

/** Tells a processor with several threads that this one only waits. */
const { pause } = Atomics as unknown as { pause(): void };

if (self.name === THREAD) {
  keepAwake();
} else {
  let ready = 0;
  const count = navigator.hardwareConcurrency;
  for (let i = 0; i < count; i++) {
    const worker = new Worker(import.meta.url, { type: "module", name: THREAD });
    worker.onmessage = () => {
      if (++ready === count) Deno.stdout.writeSync(new TextEncoder().encode("awake\n"));
    };
  }
}

function keepAwake(): never {
  const { symbols } = Deno.dlopen("libc.so.6", {
    sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" }, // pid, policy, param
  });
  const priority = new Int32Array(new ArrayBuffer(4096), 0, 1);
  // Process 0 is the calling thread.
  if (symbols.sched_setscheduler(0, SCHED_IDLE, priority) !== 0) {
    throw new Error("The kernel refused SCHED_IDLE");
  }
  self.postMessage("awake");
  for (;;) pause();
}
