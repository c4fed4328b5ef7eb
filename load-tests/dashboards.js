// Opens dashboards of twelve widgets against the query API, in the shape that SCENARIO names, while events come in at a
// steady rate. See README.md.
import http from 'k6/http'
import { check, fail, sleep } from 'k6'
import { Trend } from 'k6/metrics'
import { deliver, takesCount } from './lib/deliver.js'
import { impressionsAndClicks, visit } from './lib/events.js'
import { secondsOf, shaped, steady, stepsOf } from './lib/profiles.js'
import { rowsFrom } from './lib/sample.js'
import { settings } from './lib/settings.js'
import { summaryOf } from './lib/summary.js'
import { always, ingestLimit, ofArrivals, ofKind, ofSteps, queryLimit, watched } from './lib/thresholds.js'
import { arrivalsPerSecond, json, post } from './lib/traffic.js'
import { queriesAt } from './lib/widgets.js'

const { scenario, traffic, apiUrl, apiKey, dashboardsPerSecond, historyEvents } = settings
const seconds = secondsOf(scenario, settings.seconds)
const arrivals = arrivalsPerSecond(traffic, settings.eventsPerSecond ?? 500)
const dashboards = shaped('dashboard', {
  scenario,
  seconds,
  perSecond: dashboardsPerSecond,
  busySeconds: 4,
  exec: 'dashboard',
})
const events = Object.assign({}, ...arrivals.map(({ kind, ...arrival }) => steady(kind, { seconds, ...arrival })))
const limit = queryLimit()
const hasSteps = stepsOf(scenario).length > 0
// How fast posts are answered beside the dashboard that breaks is not what the breakpoint asks.
const ofPosts = arrivals.map(({ kind }) => (hasSteps ? watched(kind) : ofKind(kind, ingestLimit())))
const arrivalsOfPosts = hasSteps ? {} : ofArrivals(events, ingestLimit())

// From the first query of a dashboard to the last answer.
const dashboardLoad = new Trend('dashboard_load', true)

export const options = {
  scenarios: { ...events, ...dashboards },
  thresholds: Object.assign(
    {},
    always(),
    hasSteps ? watched('query') : ofKind('query', limit),
    ...ofPosts,
    arrivalsOfPosts,
    ofArrivals(dashboards, limit),
    ofSteps(limit),
  ),
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  systemTags: ['name', 'method', 'status', 'error_code', 'scenario', 'expected_response'],
  setupTimeout: '3m',
}

// An hour's history, so that the widgets have what to show, and the wait until they show it.
export function setup() {
  const now = Date.now()
  const timestampOf = (index) => new Date(now - 3_600_000 * (1 - index / historyEvents)).toISOString()
  for (let first = 0; first < historyEvents; first += HISTORY_BATCH) {
    const rows = rowsFrom(first, Math.min(HISTORY_BATCH, historyEvents - first))
    const id = (source) => (index) => `${settings.run}-history-${source}-${first}-${index}`
    const seen = impressionsAndClicks(rows, id('campaign'), (index) => timestampOf(first + index))
    const done = rows.map((row, index) => visit(row, id('behavior')(index), timestampOf(first + index)))
    deliver('history', { ...json('/v1/campaigns/events', { batch: seen }), events: seen.length })
    deliver('history', { ...json('/v1/batch', { batch: done }), events: done.length })
  }
  for (let attempt = 0; attempt < 120; attempt += 1) {
    const answers = queriesAt(Date.now()).map(({ body }) => http.post(queryUrl, body, parameters('history', 'warm-up')))
    if (answers.every(showsRows)) {
      return
    }
    sleep(0.5)
  }
  fail('the widgets do not show the history')
}
const HISTORY_BATCH = 500

const queryUrl = `${apiUrl}/v1/metrics/query`

function parameters(kind, name) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${apiKey}` }
  return { headers, timeout: '20s', tags: { kind, name } }
}

function showsRows(response) {
  return response.status === 200 && response.json('rows').length > 0
}

// As a browser opens one: all widgets at once, six requests at a time.
export function dashboard() {
  const begun = Date.now()
  const queries = queriesAt(begun)
  const answers = http.batch(queries.map(({ name, body }) => ['POST', queryUrl, body, parameters('query', name)]))
  dashboardLoad.add(Date.now() - begun)
  answers.forEach((answer, index) => {
    if (answer.status === 200) {
      check(answer, { 'a widget has rows': showsRows }, { kind: 'query', name: queries[index].name })
    }
  })
}

export const single = () => post('single')
export const batch = () => post('batch')
export const replay = () => post('replay')
export const pixel = () => post('pixel')
export const beacon = () => post('beacon')

export function handleSummary(data) {
  return summaryOf(data, {
    kinds: ['query', ...arrivals.map(({ kind }) => kind)],
    seconds,
    base: { rate: dashboardsPerSecond, unit: 'dashboards' },
  })
}
