import { protocolFeatureNames } from "../../vhost_user/mod.ts";
import { type AnyDevice, hasFeature, nameFeatures } from "../../virtio/mod.ts";
import { RequestError, type RequestHandlers } from "./request_handlers.ts";
import type { SessionRings } from "./rings.ts";
import type { SessionState } from "./state.ts";

/** Requests about negotiation, and about the device as a whole. */
export function featureRequests(state: SessionState, rings: SessionRings): RequestHandlers {
  const { host } = state;
  return {
    GET_FEATURES: () => ({ value: host.offered }),
    SET_FEATURES: ({ value }) => setFeatures(state, rings, value),
    GET_PROTOCOL_FEATURES: () => ({ value: state.offeredProtocol }),
    SET_PROTOCOL_FEATURES({ value }) {
      const extra = value & ~state.offeredProtocol;
      if (extra !== 0n) {
        const names = protocolFeatureNames(extra).join(", ");
        throw new RequestError(`Expected protocol features that are offered, got ${names}`);
      }
      state.protocol = value;
      host.record.protocolFeatures(value);
    },
    GET_QUEUE_NUM: () => ({ value: BigInt(state.rings.length) }),
    SET_OWNER() {},
    // Deprecated; the protocol recommends to disable the rings or ignore it.
    RESET_OWNER: () => rings.enable(state.rings, false),
    SET_STATUS({ value }) {
      state.status = Number(value & 0xffn);
      host.record.status(state.status, "reported");
    },
    GET_STATUS: () => ({ value: BigInt(state.status) }),
    RESET_DEVICE: () => reset(state, rings),
  };
}

async function setFeatures(
  state: SessionState,
  rings: SessionRings,
  features: bigint,
): Promise<void> {
  const { host } = state;
  const names = (mask: bigint) =>
    nameFeatures(mask, host.device.features).map(({ name }) => name).join(", ");
  const extra = features & ~host.offered & ~host.honoured;
  if (extra !== 0n) {
    throw new RequestError(`Expected features that are offered, got ${names(extra)}`);
  }
  const honoured = features & ~host.offered;
  const isChanged = features !== state.features;
  if (honoured !== 0n && isChanged) {
    host.notices.add({
      what: "features from an earlier start",
      why: `the guest goes on with ${names(honoured)}, not offered any more`,
      remedy: "what cannot be done is answered so",
    });
  }
  // The device first: where it throws, nothing has changed.
  host.control.onFeatures?.(featuresByName(host.device, features));
  state.isMisled = false;
  state.features = features;
  host.record.acknowledged(features);
  await host.tell({ kind: "features", bits: features });
  // Rings pick up how they were negotiated when they start.
  if (isChanged) await rings.restart();
  // vhost-user.rst, "Ring states": without the bit rings are enabled from here on, whatever became
  // of the protocol features. QEMU before 7.2 never acknowledges it.
  if (!state.has("PROTOCOL_FEATURES")) await rings.enable(state.rings, true);
}

async function reset(state: SessionState, rings: SessionRings): Promise<void> {
  const { host } = state;
  await rings.stop(state.rings);
  for (const ring of state.rings) {
    ring.started = ring.enabled = false;
    ring.base = undefined;
  }
  state.dropInflight();
  state.status = 0;
  state.features = 0n;
  state.isMisled = false;
  host.record.status(0, "reported");
  await host.reset();
}

/** Which of a device's own features a mask has. */
function featuresByName(device: AnyDevice, mask: bigint): Record<string, boolean> {
  const features = Object.entries(device.features ?? {}) as [string, { bit: number }][];
  return Object.fromEntries(features.map(([name, { bit }]) => [name, hasFeature(mask, bit)]));
}
