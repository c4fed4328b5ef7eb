// Runs a client behind a proxy that has bad luck with its first posts, and prints what the client printed and what became of
// its posts.
//
// Usage: node unreliable_network.mjs UPSTREAM STEPS COMMAND [ARGUMENT]...
//   UPSTREAM  e.g. http://127.0.0.1:7001; {host} in an argument becomes the proxy's address
//   STEPS     what happens to the first posts, separated by commas; later ones pass:
//             pass     as it is
//             refuse   answered with 503, not passed on
//             late     passed on, then answered with 503 in place of the answer: a retry is a duplicate
//             cut      passed on, then the connection is cut in place of the answer: a retry is a duplicate
// Prints {"client": …, "posts": […], "delivered_twice": N}: the steps in the order of the posts, and how many message ids
// upstream took with 200 more than once. Exit code: the client's; 1 if it made fewer posts than there are steps.
import { spawn } from 'node:child_process'
import { createServer, request } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { gunzipSync } from 'node:zlib'

const [upstream, stepsText, command, ...commandArguments] = process.argv.slice(2)
const steps = stepsText?.split(',') ?? []
if (!command || steps.some((step) => !['pass', 'refuse', 'late', 'cut'].includes(step))) {
  console.error('usage: node unreliable_network.mjs UPSTREAM STEPS COMMAND [ARGUMENT]...')
  process.exit(2)
}

const posts = []
const deliveries = new Map()

const proxy = createServer(async (incoming, outgoing) => {
  const body = await buffer(incoming)
  // A browser's preflights are not posts.
  const step = incoming.method === 'POST' ? (steps[posts.length] ?? 'pass') : 'pass'
  if (incoming.method === 'POST') posts.push(step)
  if (step === 'refuse') {
    refuse(incoming, outgoing)
    return
  }
  const answer = await passOn(incoming, body)
  if (incoming.method === 'POST' && answer.statusCode === 200) {
    for (const id of messageIds(incoming, body)) deliveries.set(id, (deliveries.get(id) ?? 0) + 1)
  }
  // An answer that nobody reads would hold its connection, and this process.
  answer.resume()
  if (step === 'late') refuse(incoming, outgoing)
  else if (step === 'cut') outgoing.destroy()
  else answer.pipe(outgoing.writeHead(answer.statusCode, answer.rawHeaders))
})

function passOn(incoming, body) {
  const { method, headers, url } = incoming
  return new Promise((resolve, reject) => {
    request(new URL(url, upstream), { method, headers }, resolve).on('error', reject).end(body)
  })
}

// As ingest answers when the log is away.
function refuse(incoming, outgoing) {
  const origin = incoming.headers.origin
  outgoing
    .writeHead(503, {
      'content-type': 'application/problem+json',
      'retry-after': '1',
      ...(origin && { 'access-control-allow-origin': origin, 'access-control-allow-credentials': 'true' }),
    })
    .end(JSON.stringify({ type: 'about:blank', title: 'the log is away', status: 503 }))
}

function messageIds(incoming, body) {
  const text = incoming.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body
  const { batch, messageId } = JSON.parse(text)
  return (batch ?? [{ messageId }]).map((event) => event.messageId)
}

await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve))
const host = `http://127.0.0.1:${proxy.address().port}`
const client = spawn(
  command,
  commandArguments.map((argument) => argument.replaceAll('{host}', host)),
  { stdio: ['ignore', 'pipe', 'inherit'] },
)
let printed = ''
client.stdout.setEncoding('utf8').on('data', (text) => (printed += text))
const code = await new Promise((resolve, reject) => client.on('error', reject).on('close', (code) => resolve(code ?? 1)))
proxy.close()
proxy.closeAllConnections()

const deliveredTwice = [...deliveries.values()].filter((times) => times > 1).length
if (posts.length < steps.length) {
  console.error(`the client made ${posts.length} posts, fewer than the steps ${stepsText}`)
}
process.exitCode = code || (posts.length < steps.length ? 1 : 0)
console.log(JSON.stringify({ client: printed ? JSON.parse(printed) : null, posts, delivered_twice: deliveredTwice }))
