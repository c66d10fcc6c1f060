// LangChain for JavaScript: its packages for Ollama and for OpenAI's two protocols, over scripted models.
import assert from "node:assert/strict";
import { test } from "node:test";

import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOllama, OllamaEmbeddings } from "@langchain/ollama";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const url = process.env.HYPURA_TEST_URL;
const demo = "demo-moe-Q4_K_M";
// Some 20,000 tokens, all of them different lines.
const long = Array.from({ length: 1000 }, (_, line) => `Line ${line}: the quick brown fox jumps over the lazy dog.`);

const openai = (model, more) =>
  new ChatOpenAI({ model, apiKey: "none", maxRetries: 0, configuration: { baseURL: `${url}/v1` }, ...more });
const models = {
  ollama: (model, more) => new ChatOllama({ model, baseUrl: url, maxRetries: 0, ...more }),
  chat: (model) => openai(model),
  responses: (model) => openai(model, { useResponsesApi: true }),
};

const weather = tool(async () => "rain", {
  name: "get_weather",
  description: "Weather of the coming days",
  schema: z.object({ city: z.string(), days: z.number().int() }),
});
const joke = z.object({ setup: z.string(), punchline: z.string() });

for (const [name, model] of Object.entries(models)) {
  test(`${name}: an answer, whole and streamed`, async () => {
    const answer = await model("thinker").invoke("hello");
    assert.equal(answer.text, "Good morning, human.");
    let streamed = "";
    for await (const piece of await model("thinker").stream("hello")) streamed += piece.text;
    assert.equal(streamed, answer.text);
    assert.ok(answer.usage_metadata.input_tokens > 0);
  });

  test(`${name}: a call, and its result in the conversation`, async () => {
    const bound = model("weather").bindTools([weather]);
    const first = await bound.invoke("hello");
    const [call] = first.tool_calls;
    assert.deepEqual([call.name, call.args], ["get_weather", { city: "Paris", days: 2 }]);
    const result = await weather.invoke(call);
    assert.ok(result instanceof ToolMessage);
    const second = await bound.invoke([new HumanMessage("hello"), first, result]);
    assert.equal(second.tool_calls.length, 1);
    assert.ok(second.usage_metadata.input_tokens > first.usage_metadata.input_tokens);
  });

  test(`${name}: an object of a schema`, async () => {
    const structured = model("joker").withStructuredOutput(joke, { method: "jsonSchema" });
    assert.match((await structured.invoke("A joke")).setup, /lynxes/);
  });

  test(`${name}: an object of a call that must come`, async () => {
    const schema = weather.schema;
    const structured = model("weather").withStructuredOutput(schema, { method: "functionCalling", name: "get_weather" });
    assert.deepEqual(await structured.invoke("hello"), { city: "Paris", days: 2 });
  });

  test(`${name}: a whole first prompt`, async () => {
    const answer = await model("agent", { numCtx: 32768 }).invoke(long.join("\n"));
    assert.equal(answer.text, "I have read all of it, human.");
    assert.ok(answer.usage_metadata.input_tokens > 20_000, `${answer.usage_metadata.input_tokens}`);
  });
}

test("ollama: embeddings", async () => {
  const vectors = await new OllamaEmbeddings({ model: demo, baseUrl: url }).embedDocuments(["a lynx", "a boot"]);
  assert.deepEqual(vectors.map((vector) => vector.length), [512, 512]);
});

test("ollama: what was thought stays out of the text", async () => {
  const answer = await models.ollama("thinker", { think: true }).invoke([new HumanMessage("hello")]);
  assert.ok(answer instanceof AIMessage);
  assert.match(answer.additional_kwargs.reasoning_content, /greets me/);
});
