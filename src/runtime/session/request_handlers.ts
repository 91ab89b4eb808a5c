/**
 * How a session carries out requests: a handler per request, in tables by subject.
 *
 * @module
 */

import { Fd, isEventfd, setNonblocking } from "../../linux/mod.ts";
import type {
  FrontendMessageNamed,
  FrontendReply,
  FrontendReplyRequest,
  FrontendRequest,
} from "../../vhost_user/mod.ts";

/** A request that cannot be granted. */
export class RequestError extends Error {
  override name = "RequestError";
}

/** Descriptors of a request; those that are still open after its reply are closed. */
export interface RequestDescriptors {
  /** Those that came with the request. */
  readonly fds: readonly Fd[];
  /** Takes those that go with the reply. */
  readonly replyFds: Fd[];
}

/** What a handler returns: the body of the request's own reply, where it has one. */
type Outcome<R extends FrontendRequest> = R extends FrontendReplyRequest ? FrontendReply<R> : void;

/** Carries out a request, whose message is decoded and whose protocol feature is negotiated. */
export type RequestHandler<R extends FrontendRequest> = (
  message: FrontendMessageNamed<R>,
  descriptors: RequestDescriptors,
) => Outcome<R> | Promise<Outcome<R>>;

/** Handlers by request; other requests are refused. */
export type RequestHandlers = { readonly [R in FrontendRequest]?: RequestHandler<R> };

/** A descriptor that outlives its request. */
export function kept(fd: Fd): Fd {
  // A descriptor that blocks would stop its queue's thread.
  setNonblocking(fd.number, true);
  return new Fd(fd.release());
}

/** A descriptor for signals that outlives its request; undefined where none came. */
export function keptSignal(fd: Fd | undefined): Fd | undefined {
  if (fd === undefined) return undefined;
  if (!isEventfd(fd.number)) {
    throw new RequestError("Expected an eventfd, got another kind of file");
  }
  return kept(fd);
}
