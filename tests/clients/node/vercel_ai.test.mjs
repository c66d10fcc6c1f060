// Vercel's AI SDK: its providers for OpenAI's and Anthropic's protocols, over scripted models.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const url = process.env.HYPURA_TEST_URL;
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" });
const providers = { responses: openai.responses, chat: openai.chat, messages: anthropic };

const weather = tool({
  description: "Weather of the coming days",
  inputSchema: z.object({ city: z.string(), days: z.number().int() }),
});

for (const [name, model] of Object.entries(providers)) {
  test(`${name}: an answer, whole and streamed`, async () => {
    const { text } = await generateText({ model: model("thinker"), prompt: "hello" });
    assert.equal(text, "Good morning, human.");
    const stream = streamText({ model: model("thinker"), prompt: "hello" });
    let streamed = "";
    for await (const piece of stream.textStream) streamed += piece;
    assert.equal(streamed, text);
    assert.ok((await stream.usage).inputTokens > 0);
  });

  test(`${name}: a conversation goes on`, async () => {
    const first = await generateText({ model: model("thinker"), prompt: "hello" });
    const messages = [{ role: "user", content: "hello" }, ...first.response.messages, { role: "user", content: "again" }];
    const second = await generateText({ model: model("thinker"), messages });
    assert.equal(second.text, first.text);
    assert.ok(second.usage.inputTokens > first.usage.inputTokens, "what was said before is in the prompt");
  });

  test(`${name}: a call that is asked for, by itself and by force`, async () => {
    for (const toolChoice of ["auto", "required", { type: "tool", toolName: "get_weather" }]) {
      const tools = { get_weather: weather };
      const { toolCalls } = await generateText({ model: model("weather"), prompt: "hello", tools, toolChoice });
      assert.deepEqual(toolCalls.map((call) => [call.toolName, call.input]), [["get_weather", { city: "Paris", days: 2 }]]);
    }
  });

  test(`${name}: an object of a schema`, async () => {
    const schema = z.object({ setup: z.string(), punchline: z.string() });
    const { output } = await generateText({ model: model("joker"), prompt: "A joke", output: Output.object({ schema }) });
    assert.match(output.setup, /lynxes/);
  });
}

test("responses: answers are named by their ids", async () => {
  const first = await generateText({ model: openai.responses("thinker"), prompt: "hello" });
  const previousResponseId = first.providerMetadata.openai.responseId;
  const second = await generateText({
    model: openai.responses("thinker"),
    prompt: "again",
    providerOptions: { openai: { previousResponseId } },
  });
  assert.ok(second.usage.inputTokens > first.usage.inputTokens);
});
