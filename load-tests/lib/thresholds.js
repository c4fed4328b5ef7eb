// What a run must hold. Milliseconds of an answer; shares of requests that may fail and of arrivals that k6 may drop. Why
// these: ../README.md.
import { planned, stepsOf } from './profiles.js'
import { settings } from './settings.js'

const ingestLimits = {
  smoke: { p95: 200, p99: 500, failed: 0, dropped: 0.005 },
  average: { p95: 200, p99: 500, failed: 0.001, dropped: 0.005 },
  soak: { p95: 200, p99: 500, failed: 0.001, dropped: 0.005 },
  stress: { p95: 500, p99: 1500, failed: 0.01, dropped: 0.02 },
  spike: { p95: 1500, p99: 3000, failed: 0.01, dropped: 0.05 },
  breakpoint: { p95: 500, failed: 0.01, dropped: 0.05 },
}
const queryLimits = {
  smoke: { p95: 1000, p99: 2000, failed: 0, dropped: 0.005 },
  average: { p95: 1000, p99: 2000, failed: 0.001, dropped: 0.005 },
  soak: { p95: 1000, p99: 2000, failed: 0.001, dropped: 0.005 },
  stress: { p95: 2000, p99: 4000, failed: 0.01, dropped: 0.02 },
  spike: { p95: 3000, p99: 6000, failed: 0.01, dropped: 0.05 },
  breakpoint: { p95: 2000, failed: 0.01, dropped: 0.05 },
}

const { scenario, limits: overrides } = settings

export function ingestLimit() {
  const { p95, p99, failed, dropped } = overrides
  return withOverrides(ingestLimits[scenario], { p95, p99, failed, dropped })
}

export function queryLimit() {
  const { queryP95: p95, queryP99: p99, failed, dropped } = overrides
  return withOverrides(queryLimits[scenario], { p95, p99, failed, dropped })
}

function withOverrides(limit, over) {
  const given = Object.entries(over).filter(([, value]) => value !== undefined)
  return { ...limit, ...Object.fromEntries(given) }
}

// What holds in every scenario: an answer 200 is a right one, and nothing is refused. Under the breakpoint it may be that
// an event is given up, which is the break.
export function always() {
  const given = scenario === 'breakpoint' ? {} : { events_given_up: ['count==0'] }
  return { checks: ['rate==1'], events_refused: ['count==0'], ...given }
}

// Of each kind of request by itself: a slow pixel does not hide among many fast batches.
export function ofKind(kind, limit) {
  return {
    ...watched(kind),
    [`http_req_duration{kind:${kind}}`]: [`p(95)<${limit.p95}`, `p(99)<${limit.p99}`],
    [`http_req_failed{kind:${kind}}`]: [`rate<=${limit.failed}`],
  }
}

// Figures without a limit: k6 keeps a kind's figures only where there is a threshold.
export function watched(kind) {
  return {
    [`http_reqs{kind:${kind}}`]: ['count>=0'],
    [`events_accepted{kind:${kind}}`]: ['count>=0'],
    [`http_req_duration{kind:${kind}}`]: ['max>=0'],
    [`http_req_failed{kind:${kind}}`]: ['rate<=1'],
  }
}

export function ofArrivals(k6Scenarios, limit) {
  const rule = (k6Scenario) => `count<=${Math.ceil(planned(k6Scenario) * limit.dropped)}`
  return Object.fromEntries(
    Object.entries(k6Scenarios).map(([name, k6Scenario]) => [
      `dropped_iterations{scenario:${name}}`,
      [{ threshold: rule(k6Scenario), abortOnFail: scenario === 'breakpoint' }],
    ]),
  )
}

// Of the breakpoint: the first step that breaks one of these ends the run.
export function ofSteps(limit) {
  const entries = stepsOf(scenario).flatMap(({ step }) => [
    [`http_req_duration{step:${step}}`, [{ threshold: `p(95)<${limit.p95}`, abortOnFail: true }]],
    [`http_req_failed{step:${step}}`, [{ threshold: `rate<=${limit.failed}`, abortOnFail: true }]],
  ])
  return Object.fromEntries(entries)
}
