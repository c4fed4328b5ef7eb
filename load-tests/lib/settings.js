// What a run is told by its environment; read here and nowhere else. The table in ../README.md explains each.

function text(name, fallback) {
  const value = __ENV[name] || fallback
  if (value === undefined) {
    throw new Error(`${name} is not set: start the scripts by load-tests/run.sh, or see load-tests/README.md`)
  }
  return value
}

function number(name, fallback) {
  const value = __ENV[name] ? Number(__ENV[name]) : fallback
  if (Number.isNaN(value) || value < 0) {
    throw new Error(`${name} = ${__ENV[name]} is no number that would do`)
  }
  return value
}

// '90s', '1m30s', '2h' as seconds.
function seconds(name) {
  const value = __ENV[name]
  if (!value) {
    return undefined
  }
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(value)
  const [, hours = 0, minutes = 0, rest = 0] = parts ?? []
  const total = Number(hours) * 3600 + Number(minutes) * 60 + Number(rest)
  if (total === 0) {
    throw new Error(`${name} = ${value} is no duration that would do: say 90s, 1m30s or 2h`)
  }
  return total
}

export const settings = {
  scenario: text('SCENARIO', 'smoke'),
  seconds: seconds('DURATION'),
  run: text('RUN', `load-${Date.now()}`),
  sampleFolder: text('SAMPLE'),

  ingestUrl: text('INGEST_URL', 'http://127.0.0.1:7001'),
  apiUrl: text('API_URL', 'http://127.0.0.1:7002'),
  writeKey: text('WRITE_KEY'),
  apiKey: text('API_KEY', ''),

  traffic: text('TRAFFIC', 'mix'),
  eventsPerSecond: number('EVENTS_PER_SECOND', undefined),
  eventsPerBatch: number('EVENTS_PER_BATCH', 20),
  dashboardsPerSecond: number('DASHBOARDS_PER_SECOND', 0.5),
  historyEvents: number('HISTORY_EVENTS', 20000),

  // In place of the scenario's own limits.
  limits: {
    p95: number('P95_MS', undefined),
    p99: number('P99_MS', undefined),
    queryP95: number('QUERY_P95_MS', undefined),
    queryP99: number('QUERY_P99_MS', undefined),
    failed: number('FAILED_RATE', undefined),
    dropped: number('DROPPED_RATE', undefined),
    floor: number('FLOOR', undefined),
  },

  summaryFile: text('SUMMARY_FILE', ''),
  resultFile: text('RESULT_FILE', ''),
}
