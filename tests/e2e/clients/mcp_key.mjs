// Adds the gateway's key to every request of a Node program that offers no option for headers:
// `MCP_KEY=sk-gw-… node --import ./mcp_key.mjs program.js`. UNDICI names the program's copy of undici.
import { createRequire } from "node:module";

const { getGlobalDispatcher, setGlobalDispatcher } = createRequire(import.meta.url)(process.env.UNDICI);
const value = `Bearer ${process.env.MCP_KEY}`;

setGlobalDispatcher(
  getGlobalDispatcher().compose((dispatch) => (options, handler) => {
    const given = options.headers ?? {};
    const headers = Array.isArray(given)
      ? [...given, "authorization", value]
      : { ...(typeof given.entries === "function" ? Object.fromEntries(given.entries()) : given), authorization: value };
    return dispatch({ ...options, headers }, handler);
  }),
);
