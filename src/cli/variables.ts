/**
 * The environment variables that mean something to vhostd.
 *
 * @module
 */

/** The variables by which systemd passes sockets: sd_listen_fds(3). */
export const ACTIVATION_VARIABLES = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] as const;

/** Has the stack of an error printed, when it is set and not 0. */
export const TRACE_VARIABLE = "VHOSTD_TRACE";

/** Set by the task `vhostd`. */
const TASK_VARIABLE = "VHOSTD_TASK";

/** What npm calls what it was asked for; `exec` for npx. */
const NPM_VARIABLE = "npm_command";

/** Whether this process is a task that npx started: then signals to npx do not reach it. */
export function isBehindNpx(): boolean {
  return isPermitted(TASK_VARIABLE) && Deno.env.get(TASK_VARIABLE) === "1" &&
    isPermitted(NPM_VARIABLE) && Deno.env.get(NPM_VARIABLE) === "exec";
}

/** Whether this process may look at a variable; it never asks the person at the terminal. */
export function isPermitted(variable: string): boolean {
  return Deno.permissions.querySync({ name: "env", variable }).state === "granted";
}
