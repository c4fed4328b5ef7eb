// What a run came to: a table for people, all figures as JSON, and a line for ../run.sh, which counts the tables.
import { stepsOf } from './profiles.js'
import { settings } from './settings.js'

// `kinds` in the order of the table; `base` is the rate that the scenario's shape multiplies.
export function summaryOf(data, { kinds, seconds, base }) {
  const value = (metric, statistic) => data.metrics[metric]?.values[statistic] ?? 0
  const [posted, accepted, refused] = ['posted', 'accepted', 'refused'].map((what) => value(`events_${what}`, 'count'))
  // Neither accepted nor refused: an answer that never came, so that the event may be there or not.
  const unanswered = posted - accepted - refused
  const elapsed = Math.min(seconds, data.state.testRunDurationMs / 1000)
  const breakpoint = breakpointOf(data, base)
  const broken = brokenRules(data).filter(({ metric }) => !isOfSteps(metric))
  if (breakpoint.held < breakpoint.floor) {
    broken.push({ metric: 'rate held', rule: `>= ${breakpoint.floor}` })
  }

  const dropped = value('dropped_iterations', 'count')
  const eventsOf = (kind) => value(`events_accepted{kind:${kind}}`, 'count')
  const eventsInTable = kinds.reduce((sum, kind) => sum + eventsOf(kind), 0)

  const rows = kinds.map((kind) => [
    kind,
    whole(value(`http_reqs{kind:${kind}}`, 'count')),
    (value(`http_reqs{kind:${kind}}`, 'count') / elapsed).toFixed(1),
    whole(eventsOf(kind) / elapsed),
    ...['med', 'p(95)', 'p(99)', 'max'].map((statistic) =>
      value(`http_req_duration{kind:${kind}}`, statistic).toFixed(1),
    ),
    `${(value(`http_req_failed{kind:${kind}}`, 'rate') * 100).toFixed(2)} %`,
  ])
  const lines = [
    ...table(['kind', 'requests', 'a second', 'events/s', 'p50 ms', 'p95 ms', 'p99 ms', 'max ms', 'failed'], rows),
    `events      ${whole(accepted)} accepted of ${whole(posted)} posted, ${whole(eventsInTable / elapsed)} a second` +
      (refused > 0 ? `; ${whole(refused)} refused` : '') +
      (unanswered > 0 ? `; ${whole(unanswered)} without an answer` : ''),
    `dropped     ${whole(dropped)} arrivals of ${whole(dropped + value('iterations', 'count'))}`,
  ]
  if (data.metrics.dashboard_load) {
    const load = (statistic) => `${whole(value('dashboard_load', statistic))} ms`
    lines.push(`dashboards  whole after p50 ${load('med')} · p95 ${load('p(95)')} · p99 ${load('p(99)')}`)
  }
  lines.push(...breakpoint.lines)
  lines.push(...broken.map(({ metric, rule }) => `broken      ${metric} ${rule}`))

  const outputs = { stdout: `\n${lines.join('\n')}\n` }
  if (settings.summaryFile) {
    outputs[settings.summaryFile] = JSON.stringify(data, null, 2)
  }
  if (settings.resultFile) {
    outputs[settings.resultFile] = `${accepted} ${unanswered} ${broken.length === 0 ? 'passed' : 'failed'}\n`
  }
  return outputs
}

function brokenRules(data) {
  return Object.entries(data.metrics).flatMap(([metric, { thresholds }]) =>
    Object.entries(thresholds ?? {})
      .filter(([, { ok }]) => !ok)
      .map(([rule]) => ({ metric, rule })),
  )
}

// `…{step:07}` and `…{scenario:batch_07}`: the breakpoint's own rules, which are there to be broken.
function stepOf(metric) {
  return /\{(?:step:|scenario:\w+_)(\d\d)\}$/.exec(metric)?.[1]
}

function isOfSteps(metric) {
  return stepOf(metric) !== undefined
}

// The last step before the first broken one.
function breakpointOf(data, { rate, unit }) {
  const steps = stepsOf(settings.scenario)
  if (steps.length === 0) {
    return { lines: [] }
  }
  const rules = brokenRules(data).filter(({ metric }) => isOfSteps(metric))
  const first = rules.map(({ metric }) => stepOf(metric)).sort()[0]
  const brokenAt = first === undefined ? steps.length : Number(first) - 1
  const rateOf = (step) => (step < 0 ? 0 : rate * steps[step].multiple)
  const held = rateOf(brokenAt - 1)
  const shown = (number) => (number < 100 ? number.toFixed(1) : whole(number))
  const lines = [`held        ${shown(held)} ${unit} a second`]
  if (first === undefined) {
    lines.push('broke       nothing, up to the last step: a higher base rate would find the limit')
  } else {
    const why = rules.filter(({ metric }) => stepOf(metric) === first).map(({ metric, rule }) => `${metric} ${rule}`)
    lines.push(`broke       at ${shown(rateOf(brokenAt))} a second: ${why.join('; ')}`)
  }
  // A machine that does not hold even the base rate has no breakpoint worth its name.
  return { held, floor: settings.limits.floor ?? rate, lines }
}

function whole(number) {
  return String(Math.round(number))
}

// Columns as wide as their widest cell; the first to the left, numbers to the right.
function table(head, rows) {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((cells) => cells[column].length)))
  return all.map((cells) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(10) : cell.padStart(widths[column]))).join('  '),
  )
}
