/** A network for measuring: returns each frame. */
import { defineNetwork } from "../../../backends/net/handler/mod.ts";

export default defineNetwork({ packet: (frame) => frame });
