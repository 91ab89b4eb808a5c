/** The scripted network without `open`. */
import { defineNetwork } from "../../../backends/net/handler/mod.ts";
import scripted from "./scripted_network.ts";

const { open: _open, ...plain } = scripted;

export default defineNetwork(plain);
