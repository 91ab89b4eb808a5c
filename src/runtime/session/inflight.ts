import { sealAgainstShrinking } from "../../linux/quarantine.ts";
import type { SessionConfig } from "./config.ts";
import { createInflightFile, InflightArea } from "./inflight_area.ts";
import type { RequestHandlers } from "./request_handlers.ts";
import type { SessionState } from "./state.ts";

/** Requests about in-flight records. */
export function inflightRequests(state: SessionState, config: SessionConfig): RequestHandlers {
  const { host, rings } = state;
  return {
    GET_INFLIGHT_FD(message, { replyFds }) {
      const file = createInflightFile(message, state.isPacked, rings.length);
      replyFds.push(file.fd);
      return file.description;
    },
    async SET_INFLIGHT_FD(message, { fds: [fd] }) {
      for (const { index } of rings) state.stoppedRing(index);
      await sealAgainstShrinking(fd.number, host.quarantine);
      const area = new InflightArea(message, fd.number, state.isPacked, rings.length);
      // Another back-end may have left config space there, if this one had no area yet.
      const kept = area.keptConfig(host.config.layout);
      if (state.inflight === undefined && kept?.isKept) config.restore(kept);
      state.dropInflight();
      state.inflight = area;
      config.keep();
    },
  };
}
