// A client of MCP, driven by a script as mcp_python.py is: `node mcp_typescript.mjs KIND SCRIPT`. KIND is v1
// (@modelcontextprotocol/sdk), v2-legacy or v2-auto (@modelcontextprotocol/client). MODULES is the folder of the packages.
import { pathToFileURL } from "node:url";

const [kind, text] = process.argv.slice(2);
const { url, key, steps } = JSON.parse(text);
const load = (path) => import(pathToFileURL(`${process.env.MODULES}/@modelcontextprotocol/${path}`));
const info = { name: "matrix", version: "1" };
const options = { capabilities: { elicitation: {} } };
const http = { requestInit: { headers: { authorization: `Bearer ${key}` } } };
const answer = async () => ({ action: "accept", content: { answer: "blue" } });
let client;
if (kind === "v1") {
  const { Client } = await load("sdk/dist/esm/client/index.js");
  const { StreamableHTTPClientTransport } = await load("sdk/dist/esm/client/streamableHttp.js");
  const { ElicitRequestSchema } = await load("sdk/dist/esm/types.js");
  client = new Client(info, options);
  client.setRequestHandler(ElicitRequestSchema, answer);
  await client.connect(new StreamableHTTPClientTransport(new URL(url), http));
} else {
  const { Client, StreamableHTTPClientTransport } = await load("client/dist/index.mjs");
  client = new Client(info, { ...options, versionNegotiation: { mode: kind.slice(3) } });
  client.setRequestHandler("elicitation/create", answer);
  await client.connect(new StreamableHTTPClientTransport(new URL(url), http));
}

const seen = [];
const onprogress = ({ progress }) => seen.push(progress);
const call = (name, given, more) =>
  kind === "v1"
    ? client.callTool({ name, arguments: given }, undefined, more)
    : client.callTool({ name, arguments: given }, more);
const verbs = {
  tools: async () => (await client.listTools()).tools.map((each) => each.name),
  prompts: async () => (await client.listPrompts()).prompts.map((each) => each.name),
  resources: async () => (await client.listResources()).resources.map((each) => each.uri),
  call: async (name, given) => {
    const result = await call(name, given);
    return [result.content[0].text, Boolean(result.isError)];
  },
  progress: async (name, given) => (await call(name, given, { onprogress }), seen.splice(0)),
  prompt: async (name, given) => (await client.getPrompt({ name, arguments: given })).messages[0].content.text,
  read: async (uri) => (await client.readResource({ uri })).contents[0].text,
};
const results = [];
for (const [verb, ...given] of steps) {
  try {
    results.push(await verbs[verb](...given));
  } catch (error) {
    results.push({ error: error.code ?? null, message: String(error.message) });
  }
}
console.log(JSON.stringify(results));
await client.close();
