/** Serve the built storefront at http://localhost:4173. */

import { fileURLToPath } from "node:url";

import { serveShop, SERVER } from "./serving.mjs";

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit());
const folder = fileURLToPath(new URL("../../../../build/storefront", import.meta.url));
const { site, server } = await serveShop(folder, { preview: { strictPort: true } });
if (server) console.log(`each frame is a device of its own; they share a profile through xrec-server at ${server.url}`);
else console.log(`there is no xrec-server at ${SERVER}: the frames share one store`);
site.printUrls();
