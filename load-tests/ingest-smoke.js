// Posts batches to /v1/batch at a steady rate, as many SDKs do together, and fails when an answer is wrong or slow.
// How to run it and what the numbers mean: README.md in this folder.
import encoding from 'k6/encoding'
import exec from 'k6/execution'
import http from 'k6/http'
import { check } from 'k6'
import { Counter } from 'k6/metrics'

const ingestUrl = __ENV.INGEST_URL || 'http://127.0.0.1:7001'
const writeKey = __ENV.WRITE_KEY
const batchesPerSecond = Number(__ENV.BATCHES_PER_SECOND || 20)
const eventsPerBatch = Number(__ENV.EVENTS_PER_BATCH || 50)
const duration = __ENV.DURATION || '30s'
const p95Milliseconds = Number(__ENV.P95_MS || 500)

if (!writeKey) {
  throw new Error('WRITE_KEY is not set: k6 run -e WRITE_KEY=… load-tests/ingest-smoke.js')
}

const eventsAccepted = new Counter('events_accepted')

export const options = {
  scenarios: {
    // A constant rate of arrivals: a slow server gets no fewer requests, so that its slowness shows.
    steady: {
      executor: 'constant-arrival-rate',
      rate: batchesPerSecond,
      timeUnit: '1s',
      duration,
      preAllocatedVUs: Math.max(10, batchesPerSecond),
      maxVUs: Math.max(50, batchesPerSecond * 5),
    },
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    http_req_duration: [`p(95)<${p95Milliseconds}`],
    dropped_iterations: ['count==0'],
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
}

// Distinguishes the runs: an id seen before would be dropped as a repeat, and the counts would not add up.
export function setup() {
  return { run: `load-${Date.now()}` }
}

function event(run, number) {
  const messageId = `${run}-${number}`
  const timestamp = new Date().toISOString()
  const who = number % 3 === 0 ? { anonymousId: `visitor-${number % 1000}` } : { userId: `user-${number % 500}` }
  if (number % 5 === 0) {
    const properties = { order_id: messageId, revenue: 19.99, currency: 'EUR', country: number % 2 ? 'de' : 'fr' }
    return { type: 'track', event: 'Order Completed', messageId, timestamp, ...who, properties }
  }
  const path = `/products/${number % 200}`
  return { type: 'page', name: 'Product', messageId, timestamp, ...who, properties: { path, url: `https://shop.example${path}` } }
}

const request = {
  headers: { 'Content-Type': 'application/json', Authorization: `Basic ${encoding.b64encode(`${writeKey}:`)}` },
  timeout: '30s',
  tags: { name: 'POST /v1/batch' },
}

export default function postBatch({ run }) {
  const first = exec.scenario.iterationInTest * eventsPerBatch
  const batch = Array.from({ length: eventsPerBatch }, (_, index) => event(run, first + index))
  const body = JSON.stringify({ batch, sentAt: new Date().toISOString() })

  const response = http.post(`${ingestUrl}/v1/batch`, body, request)

  const accepted = check(response, {
    'status is 200': (answer) => answer.status === 200,
    'success is true': (answer) => answer.status === 200 && answer.json('success') === true,
  })
  if (accepted) {
    eventsAccepted.add(eventsPerBatch)
  }
}

// Plain text for people; with SUMMARY_FILE set, all numbers as JSON for machines.
export function handleSummary(data) {
  const value = (metric, statistic) => data.metrics[metric]?.values[statistic] ?? 0
  const milliseconds = (statistic) => `${value('http_req_duration', statistic).toFixed(1)} ms`
  const broken = Object.entries(data.metrics).flatMap(([name, metric]) =>
    Object.entries(metric.thresholds ?? {})
      .filter(([, threshold]) => !threshold.ok)
      .map(([rule]) => `${name} ${rule}`),
  )
  const lines = [
    `batches   ${value('http_reqs', 'count')} posted, ${value('http_reqs', 'rate').toFixed(1)} a second`,
    `events    ${value('events_accepted', 'count')} accepted, ${value('events_accepted', 'rate').toFixed(0)} a second`,
    `answers   p50 ${milliseconds('med')} · p95 ${milliseconds('p(95)')} · p99 ${milliseconds('p(99)')} · max ${milliseconds('max')}`,
    `failed    ${(value('http_req_failed', 'rate') * 100).toFixed(2)} % · dropped ${value('dropped_iterations', 'count')} batches`,
    broken.length === 0 ? 'result    passed' : `result    FAILED: ${broken.join('; ')}`,
  ]
  const outputs = { stdout: `\n${lines.join('\n')}\n` }
  if (__ENV.SUMMARY_FILE) {
    outputs[__ENV.SUMMARY_FILE] = JSON.stringify(data, null, 2)
  }
  return outputs
}
