import { teller } from "../lib/tool.ts";

/** Says on stderr what is being done for a guest, since some of it takes a while. */
export const progress = teller("guest");
