// Pure: the scenarios' shapes as data, and what k6 makes of them.
//
// Requests arrive at a given rate, whether earlier ones are answered or not: a slow server gets no fewer of them, so its
// slowness shows.

// A stage is its share of the duration, and the multiple of the base rate that it ends with.
const shapes = {
  smoke: { seconds: 20, begins: 0.1, stages: [[1, 0.1]] },
  average: { seconds: 60, begins: 0, stages: [[0.1, 1], [0.8, 1], [0.1, 0]] },
  stress: { seconds: 120, begins: 0, stages: [[0.1, 1], [0.2, 1], [0.1, 2], [0.2, 2], [0.1, 4], [0.2, 4], [0.1, 0]] },
  spike: { seconds: 90, begins: 0.5, stages: [[0.3, 0.5], [0.03, 3], [0.27, 3], [0.03, 0.5], [0.37, 0.5]] },
  soak: { seconds: 300, begins: 0, stages: [[0.05, 1], [0.9, 1], [0.05, 0]] },
}
// Each step at one rate, the next a third faster, so that a step holds or breaks by itself.
const staircase = { seconds: 150, steps: 10, growth: 1.3 }
const constant = { begins: 1, stages: [[1, 1]] }

export function secondsOf(scenario, override) {
  return override ?? (scenario === 'breakpoint' ? staircase : shapes[scenario]).seconds
}

// The rates of the breakpoint's steps, as multiples of the base rate.
export function stepsOf(scenario) {
  if (scenario !== 'breakpoint') {
    return []
  }
  return Array.from({ length: staircase.steps }, (_, index) => ({
    step: String(index + 1).padStart(2, '0'),
    multiple: staircase.growth ** index,
  }))
}

// The k6 scenarios, by name, that run `exec` with `perSecond` as the base rate. `busySeconds`: how long a run of it may
// keep its virtual user.
export function shaped(name, { scenario, seconds, perSecond, busySeconds, exec }) {
  const steps = stepsOf(scenario)
  if (steps.length === 0) {
    return { [name]: ramping(shapes[scenario], { seconds, perSecond, busySeconds, exec }) }
  }
  const length = seconds / steps.length
  return Object.fromEntries(
    steps.map(({ step, multiple }, index) => [
      `${name}_${step}`,
      {
        executor: 'constant-arrival-rate',
        rate: perMinute(perSecond * multiple),
        timeUnit: '1m',
        startTime: milliseconds(index * length),
        duration: milliseconds(length),
        // Short, for steps that overlap need virtual users of their own.
        gracefulStop: '5s',
        tags: { step },
        exec,
        // Those of all steps are made at the start and cost k6 a megabyte each: half of what others get.
        ...virtualUsers(perSecond * multiple, busySeconds / 2),
      },
    ]),
  )
}

export function steady(name, { seconds, perSecond, busySeconds, exec }) {
  return { [name]: ramping(constant, { seconds, perSecond, busySeconds, exec }) }
}

// Iterations that a k6 scenario is to start.
export function planned({ rate, duration, startRate, stages }) {
  if (rate !== undefined) {
    return (rate * Number.parseInt(duration, 10)) / 60000
  }
  let [previous, total] = [startRate, 0]
  for (const stage of stages) {
    total += (((previous + stage.target) / 2) * Number.parseInt(stage.duration, 10)) / 60000
    previous = stage.target
  }
  return total
}

function ramping({ begins, stages }, { seconds, perSecond, busySeconds, exec }) {
  const fastest = Math.max(begins, ...stages.map(([, multiple]) => multiple))
  return {
    executor: 'ramping-arrival-rate',
    timeUnit: '1m',
    startRate: perMinute(begins * perSecond),
    stages: stages.map(([share, multiple]) => ({
      duration: milliseconds(share * seconds),
      target: perMinute(multiple * perSecond),
    })),
    // Longer than a request may take with its repetitions: one that is cut off could have been accepted or not.
    gracefulStop: '2m',
    exec,
    ...virtualUsers(fastest * perSecond, busySeconds),
  }
}

// A rate is a whole number in k6, so that a few a second need the longer unit.
function perMinute(perSecond) {
  return Math.max(1, Math.round(perSecond * 60))
}

function milliseconds(seconds) {
  return `${Math.round(seconds * 1000)}ms`
}

// As many as are busy at one time (Little's law). Those beyond are made during the run, which costs k6 time.
function virtualUsers(perSecond, busySeconds) {
  const busy = Math.ceil(perSecond * busySeconds)
  return { preAllocatedVUs: busy + 3, maxVUs: 3 * busy + 10 }
}
