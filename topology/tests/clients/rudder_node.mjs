// Sends events with the unmodified @rudderstack/rudder-sdk-node, as a customer's server does, and prints what was sent.
//
// Usage: node rudder_node.mjs HOST WRITE_KEY COUNT MODULES
//   HOST     e.g. http://127.0.0.1:7001
//   COUNT    number of events; they take turns: track, page, identify, screen, group, alias
//   MODULES  the folder that deploy/fetch-test-clients.sh prints as node=…
// Prints {"sent": [{"message_id": …, "kind": …, "name": …, …}, …]}, each event as it must be in the table `events`, with
// those of its properties that must be there; exit code 1 if an event was not delivered.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, writeKey, countText, modules] = process.argv.slice(2)
const count = Number(countText)
if (!modules || !Number.isInteger(count) || count < 0) {
  console.error('usage: node rudder_node.mjs HOST WRITE_KEY COUNT MODULES')
  process.exit(2)
}

// An import statement looks beside this file only; the modules live in the cache folder.
const Analytics = createRequire(join(modules, 'package.json'))('@rudderstack/rudder-sdk-node')

const firstEventTime = Date.parse('2025-04-01T00:00:00Z')

// What is given to the SDK for event number n, one event a second.
const calls = [
  ['track', (n) => ({ event: 'Order Completed', properties: { order_id: `order-${n}`, revenue: 7.25, country: 'nl' } })],
  ['page', (n) => ({ category: 'Docs', name: 'Pricing', properties: { path: '/pricing', url: `https://shop.example/pricing?n=${n}` } })],
  ['identify', (n) => ({ traits: { email: `rudder-${n % 10}@shop.example`, plan: 'pro' } })],
  ['screen', (n) => ({ name: 'Checkout', properties: { step: n % 3 } })],
  ['group', (n) => ({ groupId: `company-${n % 3}`, traits: { name: `Company ${n % 3}` } })],
  ['alias', (n) => ({ previousId: `visitor-${n}` })],
]

function row(kind, call) {
  return {
    message_id: call.messageId,
    kind,
    name: call.event ?? call.name ?? kind,
    user_id: call.userId,
    anonymous_id: call.anonymousId ?? '',
    group_id: call.groupId ?? '',
    previous_id: call.previousId ?? '',
    value: call.properties?.revenue ?? null,
    timestamp: call.timestamp.toISOString(),
    properties: call.properties ?? call.traits ?? {},
    library: 'analytics-node',
  }
}

const undelivered = []
const analytics = new Analytics(writeKey, {
  dataPlaneUrl: host,
  retryCount: 3,
  // It logs each answer that is not a good one, which is what some tests are about.
  logLevel: 'none',
  errorHandler: (error) => undelivered.push(String(error)),
})

const sent = []
const answers = []
for (let n = 0; n < count; n += 1) {
  const [kind, fields] = calls[n % calls.length]
  const call = {
    userId: `user-${n % 10}`,
    messageId: `rudder-node-${process.pid}-${n}`,
    timestamp: new Date(firstEventTime + n * 1000),
    ...(kind === 'alias' ? {} : { anonymousId: `device-${n % 10}` }),
    ...fields(n),
  }
  answers.push(new Promise((resolve) => analytics[kind](call, resolve)))
  sent.push(row(kind, call))
}
// What is left in its queue goes when its timer says so; this is sooner.
await analytics.flush()
const failures = (await Promise.all(answers)).filter(Boolean)

if (undelivered.length > 0 || failures.length > 0) {
  console.error(`${failures.length} events were not delivered: ${undelivered[0] ?? failures[0]}`)
  process.exitCode = 1
}
console.log(JSON.stringify({ sent }))
