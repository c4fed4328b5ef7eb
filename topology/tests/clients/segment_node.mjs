// Sends events with the unmodified @segment/analytics-node, as a customer's server does, and prints what was sent.
//
// Usage: node segment_node.mjs HOST WRITE_KEY COUNT MODULES
//   HOST     e.g. http://127.0.0.1:7001
//   COUNT    number of events; they take turns: track, page, identify, screen, group, alias
//   MODULES  the folder that deploy/fetch-test-clients.sh prints as node=…
// Prints {"sent": COUNT, "messageIds": […], "byKind": {"track": …, …}}; exit code 1 if an event was not delivered.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, writeKey, countText, modules] = process.argv.slice(2)
const count = Number(countText)
if (!modules || !Number.isInteger(count) || count < 0) {
  console.error('usage: node segment_node.mjs HOST WRITE_KEY COUNT MODULES')
  process.exit(2)
}

// An import statement looks beside this file only; the modules live in the cache folder.
const { Analytics } = createRequire(join(modules, 'package.json'))('@segment/analytics-node')

const firstEventTime = Date.parse('2025-03-01T00:00:00Z')

// Event number n, with fields that a test can compute: user-(n mod 10), one event a second.
const calls = [
  ['track', (n) => ({ event: 'Order Completed', properties: { order_id: `order-${n}`, revenue: 12.5, currency: 'EUR', country: 'de' } })],
  ['page', (n) => ({ category: 'Docs', name: 'Pricing', properties: { url: `https://shop.example/pricing?n=${n}`, path: '/pricing' } })],
  ['identify', (n) => ({ traits: { email: `user-${n % 10}@shop.example`, plan: 'pro' } })],
  ['screen', (n) => ({ name: 'Checkout', properties: { step: n % 3 } })],
  ['group', (n) => ({ groupId: `company-${n % 3}`, traits: { name: `Company ${n % 3}` } })],
  ['alias', (n) => ({ previousId: `visitor-${n}` })],
]

const analytics = new Analytics({ writeKey, host, flushAt: 50, maxRetries: 3 })
const undelivered = []
analytics.on('error', (error) => undelivered.push(`${error.code}: ${error.reason ?? ''}`))

const messageIds = []
const byKind = Object.fromEntries(calls.map(([kind]) => [kind, 0]))
for (let n = 0; n < count; n += 1) {
  const [kind, fields] = calls[n % calls.length]
  const messageId = `segment-node-${process.pid}-${n}`
  const timestamp = new Date(firstEventTime + n * 1000)
  analytics[kind]({ userId: `user-${n % 10}`, messageId, timestamp, ...fields(n) }, (error) => {
    if (error) undelivered.push(`${messageId}: ${error}`)
  })
  messageIds.push(messageId)
  byKind[kind] += 1
}
await analytics.closeAndFlush({ timeout: 30_000 })

if (undelivered.length > 0) {
  console.error(`${undelivered.length} events were not delivered, the first: ${undelivered[0]}`)
  process.exitCode = 1
}
console.log(JSON.stringify({ sent: count, messageIds, byKind }))
