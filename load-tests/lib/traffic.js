// The ways in which events come: for each its share of all events, and the request that one arrival makes.
import encoding from 'k6/encoding'
import exec from 'k6/execution'
import { identify, impression, impressionsAndClicks, page, track, visit } from './events.js'
import { deliver, takesCount, takesImage } from './deliver.js'
import { rowsFrom } from './sample.js'
import { settings } from './settings.js'

const { ingestUrl, writeKey, eventsPerBatch } = settings
const basic = { 'Content-Type': 'application/json', Authorization: `Basic ${encoding.b64encode(`${writeKey}:`)}` }

export const kinds = {
  // A server without an SDK: a call for each event.
  single: {
    share: 0.05,
    rows: 1,
    request([row], id, now) {
      const calls = [page(row, id(0), now), track(row, id(0), now, 'Product Viewed'), identify(row, id(0), now)]
      const call = calls[exec.scenario.iterationInTest % calls.length]
      return { ...json(`/v1/${call.type}`, call), events: 1 }
    },
  },
  // An SDK that has gathered events.
  batch: {
    share: 0.6,
    rows: eventsPerBatch,
    request(rows, id, now) {
      const batch = rows.map((row, index) => visit(row, id(index), now))
      return { ...json('/v1/batch', { batch, sentAt: now }), events: batch.length }
    },
  },
  // An ad server: the sample's rows as what they are.
  replay: {
    share: 0.3,
    rows: eventsPerBatch,
    request(rows, id, now) {
      const batch = impressionsAndClicks(rows, id, () => now)
      return { ...json('/v1/campaigns/events', { batch, sentAt: now }), events: batch.length }
    },
  },
  // An image in a mail or on a page: the event is the query, the key too.
  pixel: {
    share: 0.025,
    rows: 1,
    request([row], id, now) {
      const { properties, ...event } = impression(row, id(0), now)
      const query = Object.entries({ ...event, ...properties, writeKey }).map(
        ([name, value]) => `${name}=${encodeURIComponent(value)}`,
      )
      return {
        method: 'GET',
        url: `${ingestUrl}/v1/pixel.gif?${query.join('&')}`,
        body: null,
        name: 'GET /v1/pixel.gif',
        events: 1,
        takes: takesImage,
      }
    },
  },
  // navigator.sendBeacon, as a page is left: it sets no headers, so the body is text/plain and has the key in it.
  beacon: {
    share: 0.025,
    rows: 1,
    request([row], id, now) {
      const event = { ...track(row, id(0), now, 'Page Left'), writeKey, sentAt: now }
      const headers = { 'Content-Type': 'text/plain;charset=UTF-8', Origin: 'https://shop.example' }
      return { ...json('/v1/track', event), name: 'POST /v1/track text/plain', headers, events: 1 }
    },
  },
}

export function json(path, value) {
  return {
    method: 'POST',
    url: `${ingestUrl}${path}`,
    body: JSON.stringify(value),
    headers: basic,
    name: `POST ${path}`,
    takes: takesCount,
  }
}

// The wanted kinds, and how many a second of each make `eventsPerSecond`.
export function arrivalsPerSecond(traffic, eventsPerSecond) {
  if (traffic !== 'mix' && !(traffic in kinds)) {
    throw new Error(`TRAFFIC = ${traffic} is unknown: say mix or ${Object.keys(kinds).join(', ')}`)
  }
  const wanted = traffic === 'mix' ? Object.entries(kinds) : [[traffic, { ...kinds[traffic], share: 1 }]]
  return wanted.map(([kind, { share, rows }]) => ({
    kind,
    perSecond: (eventsPerSecond * share) / rows,
    busySeconds: 0.5,
    exec: kind,
  }))
}

// One arrival.
export function post(kind) {
  const { rows, request } = kinds[kind]
  const iteration = exec.scenario.iterationInTest
  // An id seen before would be dropped as a repetition, and the counts would not add up.
  const prefix = `${settings.run}-${exec.scenario.name}-${iteration}`
  deliver(kind, request(rowsFrom(iteration * rows, rows), (index) => `${prefix}-${index}`, new Date().toISOString()))
}
