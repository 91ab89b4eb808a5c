/**
 * The environment variables that vhostd reads.
 *
 * @module
 */

/** The variables by which systemd passes sockets: sd_listen_fds(3). */
export const ACTIVATION_VARIABLES = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] as const;

/** Prints the stack of an error if it is set and not 0. */
export const TRACE_VARIABLE = "VHOSTD_TRACE";

/** Set by the task `vhostd`. */
const TASK_VARIABLE = "VHOSTD_TASK";

/** Set by npm to the command that it runs; `exec` for npx. */
const NPM_VARIABLE = "npm_command";

/** Whether npx started this process as a task: npx passes no signals on. */
export function isBehindNpx(): boolean {
  return isPermitted(TASK_VARIABLE) && Deno.env.get(TASK_VARIABLE) === "1" &&
    isPermitted(NPM_VARIABLE) && Deno.env.get(NPM_VARIABLE) === "exec";
}

/** Whether this process may read a variable; it never asks at the terminal. */
export function isPermitted(variable: string): boolean {
  return Deno.permissions.querySync({ name: "env", variable }).state === "granted";
}
