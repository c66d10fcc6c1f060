// ollama-js: every call of the package, streamed and not, and what it throws.
import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Ollama } from 'ollama'

const url = process.env.HYPURA_TEST_URL
const ollama = new Ollama({ host: url })
const DEMO = 'demo-moe-Q4_K_M'
const QUESTION = 'What is a lynx?'
const options = { temperature: 0, num_predict: 40 }
const hello = [{ role: 'user', content: 'hello' }]
const tools = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Weather of the coming days',
      parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: ['integer', 'null'] } }, required: ['city'] },
    },
  },
]

const collect = async (stream) => {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

test('generate, whole and streamed', async () => {
  const whole = await ollama.generate({ model: DEMO, prompt: QUESTION, options })
  assert.match(whole.response, /wildcat/)
  assert.ok(whole.eval_count > 0 && whole.total_duration > 0 && whole.context.length > 0)
  assert.ok(!Number.isNaN(Date.parse(whole.created_at)))
  const chunks = await collect(await ollama.generate({ model: DEMO, prompt: QUESTION, options, stream: true }))
  assert.equal(chunks.map((chunk) => chunk.response).join(''), whole.response)
  assert.ok(chunks.at(-1).done)
})

test('chat, whole and streamed', async () => {
  const messages = [{ role: 'user', content: QUESTION }]
  const whole = await ollama.chat({ model: DEMO, messages, options })
  assert.match(whole.message.content, /wildcat/)
  const chunks = await collect(await ollama.chat({ model: DEMO, messages, options, stream: true }))
  assert.equal(chunks.map((chunk) => chunk.message.content).join(''), whole.message.content)
})

test('tools come whole', async () => {
  const whole = await ollama.chat({ model: 'caller', messages: hello, tools })
  const chunks = await collect(await ollama.chat({ model: 'caller', messages: hello, tools, stream: true }))
  for (const calls of [whole.message.tool_calls, chunks.flatMap((chunk) => chunk.message.tool_calls ?? [])]) {
    assert.equal(calls.length, 1)
    assert.equal(calls[0].function.name, 'get_weather')
    assert.deepEqual(calls[0].function.arguments, { city: 'Paris', days: 2 })
  }
})

test('thinking is apart', async () => {
  const whole = await ollama.chat({ model: 'thinker', messages: hello, think: true })
  assert.equal(whole.message.content.trim(), 'Good morning, human.')
  assert.match(whole.message.thinking, /So do I/)
  const off = await ollama.chat({ model: 'thinker', messages: hello, think: false })
  assert.ok(!off.message.thinking)
})

test('format', async () => {
  const schema = { type: 'object', properties: { kind: { type: 'boolean' } }, required: ['kind'] }
  const answer = await ollama.chat({ model: DEMO, messages: hello, format: schema, options })
  assert.equal(typeof JSON.parse(answer.message.content).kind, 'boolean')
})

test('embeddings, new and old', async () => {
  const answer = await ollama.embed({ model: DEMO, input: ['a lynx', 'a boot'] })
  assert.equal(answer.embeddings.length, 2)
  const old = await ollama.embeddings({ model: DEMO, prompt: 'a lynx' })
  assert.equal(old.embedding.length, answer.embeddings[0].length)
})

test('version, list, show, ps', async () => {
  assert.match((await ollama.version()).version, /^\d+\.\d+\.\d+$/)
  assert.ok((await ollama.list()).models.some((model) => model.name === 'thinker:latest'))
  const shown = await ollama.show({ model: 'thinker' })
  assert.ok(shown.capabilities.includes('thinking') && shown.model_info['general.architecture'])
  await ollama.generate({ model: DEMO, prompt: '', keep_alive: '5m' })
  assert.ok((await ollama.ps()).models.length > 0)
})

test('copy, create, pull, delete', async () => {
  await ollama.copy({ source: 'thinker', destination: 'js-copy' })
  assert.equal((await ollama.create({ model: 'js-made', from: 'thinker', system: 'Arr.' })).status, 'success')
  assert.equal((await ollama.pull({ model: 'js-made' })).status, 'success')
  assert.equal((await collect(await ollama.pull({ model: 'thinker', stream: true }))).at(-1).status, 'success')
  assert.equal((await ollama.delete({ model: 'js-made' })).status, 'success')
  assert.equal((await ollama.delete({ model: 'js-copy' })).status, 'success')
  await assert.rejects(ollama.show({ model: 'js-copy' }), /not found/)
})

test('pull of a model that is elsewhere', async () => {
  const name = process.env.HYPURA_TEST_REMOTE
  const steps = await collect(await ollama.pull({ model: name, stream: true, insecure: true }))
  assert.equal(steps.at(0).status, 'pulling manifest')
  assert.equal(steps.at(-1).status, 'success')
  const layers = steps.filter((step) => step.digest)
  assert.ok(layers.length > 0 && layers.every((step) => step.completed <= step.total))
  const known = name.replace('http://', '')
  assert.ok((await ollama.list()).models.some((model) => model.name === `${known}:latest`))
  assert.equal((await ollama.pull({ model: name, insecure: true })).status, 'success')
  await ollama.delete({ model: known })
})

test('a model that is not there', async () => {
  for (const stream of [false, true]) {
    await assert.rejects(ollama.chat({ model: 'nobody', messages: hello, stream }), (error) => {
      assert.equal(error.status_code, 404)
      return /not found/.test(error.message)
    })
  }
})

test('abort stops the work', async () => {
  const mine = new Ollama({ host: url })
  const stream = await mine.chat({ model: 'endless', messages: hello, stream: true, options: { num_predict: -1 } })
  let seen = 0
  await assert.rejects(async () => {
    for await (const _ of stream) if (++seen === 3) mine.abort()
  }, /abort/i)
  let busy = '?'
  for (let tries = 0; busy !== '0' && tries < 100; tries++) {
    const text = await (await fetch(`${url}/metrics`)).text()
    busy = text.match(/^llamacpp:requests_processing (\d+)/m)?.[1] ?? 'absent'
    if (busy !== '0') await new Promise((done) => setTimeout(done, 50))
  }
  assert.equal(busy, '0')
})
