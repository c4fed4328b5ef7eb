// Posts events in every way that ingest takes them, in the shape that SCENARIO names. See README.md.
import { arrivalsPerSecond, post } from './lib/traffic.js'
import { secondsOf, shaped, stepsOf } from './lib/profiles.js'
import { settings } from './lib/settings.js'
import { summaryOf } from './lib/summary.js'
import { always, ingestLimit, ofArrivals, ofKind, ofSteps, watched } from './lib/thresholds.js'

const { scenario, traffic } = settings
const eventsPerSecond = settings.eventsPerSecond ?? 1000
const seconds = secondsOf(scenario, settings.seconds)
const arrivals = arrivalsPerSecond(traffic, eventsPerSecond)
const scenarios = Object.assign(
  {},
  ...arrivals.map(({ kind, ...arrival }) => shaped(kind, { scenario, seconds, ...arrival })),
)
const limit = ingestLimit()
const hasSteps = stepsOf(scenario).length > 0
const ofEachKind = arrivals.map(({ kind }) => (hasSteps ? watched(kind) : ofKind(kind, limit)))

export const options = {
  scenarios,
  thresholds: Object.assign({}, always(), ...ofEachKind, ofArrivals(scenarios, limit), ofSteps(limit)),
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  // Without `url`: each pixel has another.
  systemTags: ['name', 'method', 'status', 'error_code', 'scenario', 'expected_response'],
}

// A scenario's function is named by an export.
export const single = () => post('single')
export const batch = () => post('batch')
export const replay = () => post('replay')
export const pixel = () => post('pixel')
export const beacon = () => post('beacon')

export function handleSummary(data) {
  return summaryOf(data, {
    kinds: arrivals.map(({ kind }) => kind),
    seconds,
    base: { rate: eventsPerSecond, unit: 'events' },
  })
}
