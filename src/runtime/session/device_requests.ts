import { DEVICE_REQUESTS, type DeviceRequests } from "../../virtio/device_requests.ts";
import type { DeviceHost } from "../device_host.ts";
import type { RequestHandler, RequestHandlers } from "./request_handlers.ts";

type DeviceRequest = keyof DeviceRequests;

/** Requests that belong to a device type: those that the device handles. */
export function deviceRequests({ control, patience }: DeviceHost): RequestHandlers {
  const requests = control.requests ?? {};
  const names = (Object.keys(DEVICE_REQUESTS) as DeviceRequest[]).filter((name) => requests[name]);
  const handler =
    (name: DeviceRequest): RequestHandler<DeviceRequest> => async (message, { fds }) => {
      const work = (async () => await requests[name]!(message as never, fds))();
      const answer = await patience.within(work);
      if (answer === undefined) {
        throw new Error(`Expected ${name} to be done within ${patience.limitMs / 1000} s`);
      }
      return answer.value as never;
    };
  return Object.fromEntries(names.map((name) => [name, handler(name)]));
}
