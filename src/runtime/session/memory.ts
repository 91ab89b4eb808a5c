import { type LostMemory, MAX_REGIONS } from "../../memory/mod.ts";
import type { RequestHandlers } from "./request_handlers.ts";
import type { SessionRings } from "./rings.ts";
import type { SessionState } from "./state.ts";

/** What the record calls the loss of guest memory. */
const MEMORY_RULE = "memory";

/** Requests about guest memory. */
export function memoryRequests(
  { host: { memory } }: SessionState,
  rings: SessionRings,
): RequestHandlers {
  return {
    GET_MAX_MEM_SLOTS: () => ({ value: BigInt(MAX_REGIONS) }),
    async SET_MEM_TABLE({ regions }, { fds }) {
      const numbers = fds.map((fd) => fd.number);
      await memory.prepare(numbers);
      // Everything is prepared before a ring stops: a refused request changes nothing.
      using plan = memory.plan(regions, numbers, true);
      await rings.changeMemory(() => memory.commit(plan));
    },
    async ADD_MEM_REG({ region }, { fds: [fd] }) {
      await memory.prepare([fd.number]);
      memory.add(region, fd.number);
      await rings.tellMemory();
      await rings.startWaiting();
    },
    REM_MEM_REG: ({ region }) => rings.changeMemory(() => memory.remove(region)),
  };
}

/** Ends what could continue only with memory that is not the guest's any more. */
export async function dropLostMemory(
  state: SessionState,
  rings: SessionRings,
  { guestAddress, bytes }: LostMemory,
): Promise<void> {
  const message = `Expected guest memory 0x${guestAddress.toString(16)}+0x${
    bytes.toString(16)
  } to stay as long as it is given, got a file without some of its pages`;
  state.host.record.refused(MEMORY_RULE, message);
  // At once, whatever is under way.
  await Promise.allSettled(
    state.rings.filter(({ running }) => running).map(({ engine, index }) =>
      engine.call({ kind: "break", queue: index, rule: MEMORY_RULE, message })
    ),
  );
  await state.exclusively(async () => {
    await rings.stop(state.rings);
    await rings.tellMemory();
    state.host.memory.dropLost();
  });
}
