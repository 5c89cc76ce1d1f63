// The Vercel AI SDK: two steps with a tool between them, and a second turn. Prints the answers.
// node ai_sdk.mjs ADDRESS MODEL [STORE]
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, tool } from "ai";
import { z } from "zod";

const [address, model, store] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: address, apiKey: process.env.GATEWAY_KEY });
const number = tool({ description: "The number", inputSchema: z.object({}), execute: async () => "0042" });
const messages = [{ role: "user", content: "What is the number?" }];

async function turn() {
  const { text, response } = await generateText({
    model: openai(model),
    messages,
    tools: { number },
    stopWhen: isStepCount(3),
    maxRetries: 0,
    providerOptions: store === undefined ? {} : { openai: { store: store === "true" } },
  });
  console.log(text);
  messages.push(...response.messages);
}

try {
  await turn();
  messages.push({ role: "user", content: "And now?" });
  await turn();
} catch (error) {
  console.log(error.responseBody ?? error.message);
  process.exitCode = 1;
}
