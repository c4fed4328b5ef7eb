// Pure: a dashboard of twelve widgets over the last hour, each a body of POST /v1/metrics/query.

const MINUTE_MS = 60_000

const widgets = {
  'totals': { metrics: ['impressions', 'clicks', 'ctr'], grain: 'total', compare: 'previous_period' },
  'impressions by minute': { metrics: ['impressions'], grain: 'minute' },
  'click rate by minute': { metrics: ['impressions', 'clicks', 'ctr'], grain: 'minute' },
  'impressions by minute and campaign': { metrics: ['impressions'], grain: 'minute', group_by: ['campaign'] },
  'clicks by minute and policy': { metrics: ['clicks'], grain: 'minute', group_by: ['policy'] },
  'impressions by quarter and campaign': { metrics: ['impressions'], grain: 'quarter', group_by: ['campaign'] },
  'one campaign by minute': {
    metrics: ['impressions', 'clicks'],
    grain: 'minute',
    filters: [{ dimension: 'campaign', op: 'eq', value: 'men' }],
  },
  'two campaigns by minute': {
    metrics: ['clicks'],
    grain: 'minute',
    group_by: ['campaign'],
    filters: [{ dimension: 'campaign', op: 'in', values: ['men', 'women'] }],
  },
  'top campaigns': {
    metrics: ['impressions', 'clicks'],
    grain: 'total',
    group_by: ['campaign'],
    order: [{ by: 'clicks', direction: 'desc' }],
    limit: 10,
  },
  'best click rates': {
    metrics: ['clicks', 'ctr'],
    grain: 'total',
    group_by: ['campaign', 'policy'],
    order: [{ by: 'ctr', direction: 'desc' }],
    limit: 20,
  },
  'visitors by minute': { metrics: ['visitors', 'sessions'], grain: 'minute' },
  'top pages': {
    metrics: ['page_views'],
    grain: 'total',
    group_by: ['path'],
    order: [{ by: 'page_views', direction: 'desc' }],
    limit: 20,
  },
}

// The name and body of each; the current minute is in it, for the dashboard follows what comes in.
export function queriesAt(nowMs) {
  const to = (Math.floor(nowMs / MINUTE_MS) + 1) * MINUTE_MS
  const range = { from: new Date(to - 60 * MINUTE_MS).toISOString(), to: new Date(to).toISOString() }
  return Object.entries(widgets).map(([name, query]) => ({ name, body: JSON.stringify({ ...query, ...range }) }))
}
