// A visit to a shop in a real browser, headless, with the unmodified @segment/analytics-next, beacons, EventSource and
// WebSocket; prints what was sent and what the page saw.
//
// Usage: node browser_session.mjs HOST WRITE_KEY API API_KEY CHROMIUM MODULES
//   HOST, API  of ingest and of the query API, e.g. http://127.0.0.1:7001 and http://127.0.0.1:7002; the API needs
//              NEONHUB_ALLOW_ANY_ORIGIN=true, as the page is on an origin of its own
//   CHROMIUM   the program that deploy/fetch-chromium.sh prints
//   MODULES    the folder that deploy/fetch-test-clients.sh prints as node=…
// Prints {"sent": […], "live": {"event_source": …, "web_socket": …}, "kept": N, "foreign": […], "errors": […]}: each event as it
// must be in the table `events`; the window that each feed pushed; how many events the SDK took along to the next page;
// requests to elsewhere and exceptions in the page, of which there must be none. Exit code 1 if an event does not arrive or a
// feed stays silent.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, writeKey, api, apiKey, program, modules] = process.argv.slice(2)
if (!modules) {
  console.error('usage: node browser_session.mjs HOST WRITE_KEY API API_KEY CHROMIUM MODULES')
  process.exit(2)
}

const { chromium } = createRequire(join(modules, 'package.json'))('playwright-core')
const limit = 60_000

const shop = createServer((request, response) => {
  const files = {
    '/analytics.js': join(modules, 'node_modules/@segment/analytics-next/dist/umd/index.js'),
    '/page.js': new URL('browser_page.js', import.meta.url),
  }
  const file = files[request.url]
  if (file) {
    response.writeHead(200, { 'content-type': 'text/javascript' }).end(readFileSync(file))
    return
  }
  response.writeHead(200, { 'content-type': 'text/html' })
  response.end('<!doctype html><title>The shop</title><script src="/analytics.js"></script><script src="/page.js"></script>')
})
await new Promise((resolve) => shop.listen(0, '127.0.0.1', resolve))
const origin = `http://127.0.0.1:${shop.address().port}`

// Whether the query API knows all these events; then their posts were taken, whatever the page was told.
async function waitUntilKnown(rows) {
  const deadline = Date.now() + limit
  const known = new Set()
  while (rows.some((row) => !known.has(row.message_id))) {
    if (Date.now() > deadline) {
      throw new Error(`not arrived: ${rows.filter((row) => !known.has(row.message_id)).map((row) => row.message_id)}`)
    }
    const answer = await fetch(`${api}/v1/events/query`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        from: new Date(Date.now() - 3_600_000).toISOString(),
        columns: ['message_id'],
        filters: [{ field: 'message_id', op: 'prefix', value: name }],
        limit: 1000,
      }),
    })
    if (!answer.ok) throw new Error(`the query API answered ${answer.status}: ${await answer.text()}`)
    for (const event of (await answer.json()).events) known.add(event.message_id)
  }
}

const name = `browser-${process.pid}`
const foreign = []
const errors = []
const sent = []

// What runs in the page has no limit of its own. The browser ends with this process.
setTimeout(() => {
  console.error(`not done after ${3 * limit} ms`)
  process.exit(1)
}, 3 * limit).unref()
const browser = await chromium.launch({ executablePath: program })
try {
  const context = await browser.newContext()
  context.setDefaultTimeout(limit)
  await context.addInitScript((settings) => (window.neonhubTest = settings), { host, writeKey, api, apiKey, name })
  context.on('request', (request) => {
    if (new URL(request.url()).hostname !== '127.0.0.1') foreign.push(request.url())
  })
  // What the page was told of its single events.
  const answered = new Set()
  context.on('response', (response) => {
    const isPost = response.request().method() === 'POST' && response.url().startsWith(host)
    if (isPost && response.status() === 200) answered.add(response.request().postDataJSON().messageId)
  })
  const waitUntilAnswered = async (rows) => {
    while (rows.some((row) => !answered.has(row.message_id))) await context.waitForEvent('response')
  }
  const page = await context.newPage()
  page.on('pageerror', (error) => errors.push(String(error)))

  // A view that follows its own numbers.
  await page.goto(`${origin}/pricing?utm_source=newsletter&utm_campaign=spring`)
  await page.evaluate(() => loadAnalytics({ strategy: 'standard' }))
  await page.evaluate(() => openLiveFeeds())
  sent.push(...(await page.evaluate(() => sendAllCalls())))
  await waitUntilAnswered(sent)
  const seen = async (feed) => (await page.waitForFunction((feed) => seenLive(feed), feed)).jsonValue()
  const live = { event_source: await seen('eventSource'), web_socket: await seen('webSocket') }

  // A page that goes as soon as its request is answered, or fails: then the SDK keeps the event for the next page.
  await page.goto(`${origin}/leaving`)
  await page.evaluate(() => loadAnalytics({ strategy: 'standard' }))
  sent.push(...(await page.evaluate(() => sendBeaconsOnLeaving(10))))
  const isTrack = (request) => request.method() === 'POST' && request.url().endsWith('/v1/t')
  const ended = Promise.race(['requestfinished', 'requestfailed'].map((event) => page.waitForEvent(event, isTrack)))
  const left = await page.evaluate(() => track(12, 'Left In Flight', false))
  sent.push(left)
  await ended
  await page.goto(`${origin}/returning`)
  const kept = await page.evaluate(() => keptEvents())
  await page.evaluate(() => loadAnalytics({ strategy: 'standard' }))
  await waitUntilAnswered([left])

  // A page that goes with a batch that its timer would have sent much later.
  await page.goto(`${origin}/batching`)
  await page.evaluate(() => loadAnalytics({ strategy: 'batching', config: { size: 100, timeout: 3_600_000 } }))
  for (const number of [13, 14]) {
    sent.push(await page.evaluate((number) => track(number, 'Left In A Batch', true), number))
  }
  await page.goto(`${origin}/gone`)
  await waitUntilKnown(sent)

  console.log(JSON.stringify({ sent, live, kept, foreign, errors }))
} finally {
  await browser.close()
  shop.close()
}
