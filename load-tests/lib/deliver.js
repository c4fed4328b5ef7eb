// Posts a request as an SDK does: one that was not answered, or with 408, 429 or 5xx, is repeated with the same message
// ids. So every event's fate is known in the end, and the tables can be counted against it.
import http from 'k6/http'
import { check, sleep } from 'k6'
import { Counter } from 'k6/metrics'

const eventsPosted = new Counter('events_posted')
const eventsAccepted = new Counter('events_accepted')
const eventsRefused = new Counter('events_refused')
const eventsGivenUp = new Counter('events_given_up')

const ATTEMPTS = 5
const FIRST_PAUSE_SECONDS = 0.25

export function deliver(kind, { method, url, body, headers, name, events, takes }) {
  const parameters = { headers, timeout: '20s', tags: { kind, name } }
  eventsPosted.add(events)
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const response = http.request(method, url, body, parameters)
    if (response.status === 200) {
      const taken = takes(response)
      check(taken, { 'an answer 200 takes every event': (count) => count === events }, { kind })
      eventsAccepted.add(taken, { kind })
      eventsRefused.add(events - taken)
      return
    }
    if (!isWorthRepeating(response.status)) {
      eventsRefused.add(events)
      return
    }
    if (attempt < ATTEMPTS) {
      sleep(Number(response.headers['Retry-After']) || FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    }
  }
  eventsGivenUp.add(events)
}

// 0 is k6's status of a request that was not answered.
function isWorthRepeating(status) {
  return status === 0 || status === 408 || status === 429 || status >= 500
}

export function takesCount(response) {
  const { success, accepted } = response.json()
  return success === true ? accepted : 0
}

// A pixel's answer is an image whatever it carried; the status says that the event is durable.
export function takesImage(response) {
  return response.headers['Content-Type'] === 'image/gif' ? 1 : 0
}
