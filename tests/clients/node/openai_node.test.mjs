// openai-node: chat, tools, structured output, embeddings, models, responses, errors.
import { test } from 'node:test'
import assert from 'node:assert/strict'
import OpenAI from 'openai'

const client = new OpenAI({ baseURL: `${process.env.HYPURA_TEST_URL}/v1`, apiKey: 'ollama', maxRetries: 0 })
const DEMO = 'demo-moe-Q4_K_M'
const ask = [{ role: 'user', content: 'What is a lynx?' }]
const hello = [{ role: 'user', content: 'hello' }]
const parameters = { type: 'object', properties: { city: { type: 'string' }, days: { type: 'integer' } }, required: ['city'] }
const tools = [{ type: 'function', function: { name: 'get_weather', description: 'Weather', parameters } }]

test('chat, whole and streamed', async () => {
  const whole = await client.chat.completions.create({ model: DEMO, messages: ask, temperature: 0, max_tokens: 40 })
  assert.match(whole.choices[0].message.content, /wildcat/)
  const stream = await client.chat.completions.create({
    model: DEMO, messages: ask, temperature: 0, max_tokens: 40, stream: true, stream_options: { include_usage: true },
  })
  let text = ''
  let usage
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? ''
    usage = chunk.usage ?? usage
  }
  assert.equal(text, whole.choices[0].message.content)
  // The second one finds the prompt of the first in the cache.
  const counts = ({ prompt_tokens, completion_tokens, total_tokens }) => [prompt_tokens, completion_tokens, total_tokens]
  assert.deepEqual(counts(usage), counts(whole.usage))
  assert.ok(usage.prompt_tokens_details.cached_tokens > 0)
})

test('the streaming helper joins tool calls', async () => {
  const runner = client.chat.completions.stream({ model: 'caller', messages: hello, tools })
  const final = await runner.finalChatCompletion()
  assert.equal(final.choices[0].finish_reason, 'tool_calls')
  const call = final.choices[0].message.tool_calls[0]
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Paris', days: 2 })
})

test('structured output', async () => {
  const string = { type: 'string' }
  const schema = { type: 'object', properties: { setup: string, punchline: string }, required: ['setup', 'punchline'], additionalProperties: false }
  const answer = await client.chat.completions.parse({
    model: 'joker', messages: hello, response_format: { type: 'json_schema', json_schema: { name: 'joke', strict: true, schema } },
  })
  assert.match(JSON.parse(answer.choices[0].message.content).setup, /purr/)
})

test('embeddings are decoded from base64', async () => {
  const answer = await client.embeddings.create({ model: DEMO, input: ['a lynx', 'a boot'] })
  assert.equal(answer.data[1].embedding.length, 512)
  const plain = await client.embeddings.create({ model: DEMO, input: 'a lynx', encoding_format: 'float' })
  assert.ok(Math.abs(plain.data[0].embedding[5] - answer.data[0].embedding[5]) < 1e-5)
})

test('models', async () => {
  const names = []
  for await (const model of client.models.list()) names.push(model.id)
  assert.ok(names.includes('thinker:latest'))
  assert.match((await client.models.retrieve('thinker:latest')).id, /^thinker/)
})

test('responses, whole and streamed', async () => {
  const whole = await client.responses.create({ model: 'thinker', input: 'hello' })
  assert.equal(whole.output_text.trim(), 'Good morning, human.')
  const kinds = []
  for await (const event of await client.responses.create({ model: 'thinker', input: 'hello', stream: true })) kinds.push(event.type)
  assert.equal(kinds[0], 'response.created')
  assert.equal(kinds.at(-1), 'response.completed')
})

test('errors', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'nobody', messages: ask }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError)
    return /not found/.test(error.message)
  })
  await assert.rejects(client.chat.completions.create({ model: DEMO, messages: [] }), OpenAI.BadRequestError)
})
