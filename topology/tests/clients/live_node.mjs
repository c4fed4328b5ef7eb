// Follows the live feeds with the unmodified Node clients eventsource and ws while it sends page views, breaks both connections
// off, and goes on where they were; prints what came.
//
// Usage: node live_node.mjs HOST WRITE_KEY API API_KEY MODULES
//   HOST, API  of ingest and of the query API, e.g. http://127.0.0.1:7001 and http://127.0.0.1:7002
//   MODULES    the folder that deploy/fetch-test-clients.sh prints as node=…
// Prints {"sent": […], "event_source": {"values": […], "connections": N, "resumed_after": …}, "web_socket": {…}}: each event as it
// must be in the table `events`, and for each feed how many views it told after each step, how often it connected, and the id
// that it went on after. Exit code 1 if a feed stays silent, tells a revision twice or tells too much.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, writeKey, api, apiKey, modules] = process.argv.slice(2)
if (!modules) {
  console.error('usage: node live_node.mjs HOST WRITE_KEY API API_KEY MODULES')
  process.exit(2)
}

const require = createRequire(join(modules, 'package.json'))
const { EventSource } = require('eventsource')
const WebSocket = require('ws')

const limit = 60_000
const authorization = `Bearer ${apiKey}`
const path = `/live-${process.pid}`
const sent = []

// What a feed told of the path's minute. Epochs of a window add up, the newest revision of each counts.
class Seen {
  #newest = new Map()
  #check = () => {}

  take(window) {
    const known = this.#newest.get(window.epoch)
    if (known && known.revision >= window.revision) fail(`revision ${window.revision} came after ${known.revision}`)
    this.#newest.set(window.epoch, window)
    this.#check()
  }

  get views() {
    return [...this.#newest.values()].reduce((views, window) => views + window.value, 0)
  }

  async until(views) {
    await new Promise((resolve) => {
      this.#check = () => {
        if (this.views > views) fail(`a feed tells ${this.views} views, there were ${views}`)
        if (this.views === views) resolve()
      }
      this.#check()
    })
    return views
  }
}

function fail(reason) {
  console.error(reason)
  process.exit(1)
}

async function view() {
  const row = {
    message_id: `live-node-${process.pid}-${sent.length}`,
    kind: 'page',
    name: 'Live',
    user_id: 'live-user',
    anonymous_id: '',
    group_id: '',
    previous_id: '',
    value: null,
    timestamp: '2025-06-01T00:00:00.000Z',
    properties: { path },
    library: '',
  }
  const { message_id: messageId, name, user_id: userId, timestamp, properties } = row
  const answer = await fetch(`${host}/v1/page`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${writeKey}:`)}`, 'content-type': 'application/json' },
    body: JSON.stringify({ messageId, name, userId, timestamp, properties }),
  })
  if (!answer.ok) fail(`ingest answered ${answer.status}: ${await answer.text()}`)
  sent.push(row)
}

// It comes back by itself.
function followByEventSource(seen) {
  const connections = []
  const source = new EventSource(`${api}/v1/live/metrics?metrics=page_views&grain=minute&filter=path:${path}`, {
    fetch: (url, init) => {
      const cut = new AbortController()
      connections.push({ cut: () => cut.abort(new Error('cut')), resumedAfter: init.headers['Last-Event-ID'] })
      const signal = AbortSignal.any([init.signal, cut.signal])
      return fetch(url, { ...init, headers: { ...init.headers, authorization }, signal })
    },
  })
  source.addEventListener('window', (message) => seen.take(JSON.parse(message.data)))
  source.addEventListener('error', ({ code, message }) => code && fail(`EventSource: ${code} ${message}`))
  const isOpen = new Promise((resolve) => source.addEventListener('open', resolve, { once: true }))
  return { source, connections, isOpen }
}

// Subscribes where `lastEventId` says, and tells the place that it has come to. `isOpen`: it has caught up.
function followByWebSocket(seen, lastEventId) {
  const socket = new WebSocket(`${api.replace('http', 'ws')}/v1/live`, { headers: { authorization } })
  const filters = [{ dimension: 'path', value: path }]
  const subscribe = { id: 'views', metrics: ['page_views'], grain: 'minute', filters, last_event_id: lastEventId }
  const feed = { socket, place: lastEventId }
  socket.on('open', () => socket.send(JSON.stringify({ subscribe })))
  socket.on('error', (error) => fail(`WebSocket: ${error}`))
  feed.isOpen = new Promise((resolve) => {
    socket.on('message', (data) => {
      const { window, id, error } = JSON.parse(data)
      if (error) fail(`WebSocket: ${JSON.stringify(error)}`)
      feed.place = id ?? feed.place
      if (window) seen.take(window)
      else if (id) resolve()
    })
  })
  return feed
}

const deadline = setTimeout(() => fail(`silent for ${limit} ms`), limit)
const [byEventSource, byWebSocket] = [new Seen(), new Seen()]
const events = followByEventSource(byEventSource)
const firstSocket = followByWebSocket(byWebSocket)
await Promise.all([events.isOpen, firstSocket.isOpen])
await view()
const first = await Promise.all([byEventSource.until(1), byWebSocket.until(1)])

// A view that happens while nobody listens.
events.connections[0].cut()
firstSocket.socket.terminate()
await view()
const secondSocket = followByWebSocket(byWebSocket, firstSocket.place)
const second = await Promise.all([byEventSource.until(2), byWebSocket.until(2)])

events.source.close()
secondSocket.socket.close()
clearTimeout(deadline)
const { connections } = events
console.log(
  JSON.stringify({
    sent,
    event_source: { values: [first[0], second[0]], connections: connections.length, resumed_after: connections[1].resumedAfter },
    web_socket: { values: [first[1], second[1]], connections: 2, resumed_after: firstSocket.place },
  }),
)
