// Plays the collection against a NeonHub that runs, and says how each request was answered. Exit code 1 if a test of the
// collection fails; with --strict also if a request is not answered 2xx, or has no example to send.
//
// Usage: INGEST_URL=… API_URL=… WRITE_KEY=… API_KEY=… WEBHOOK_SECRET=… node play.js COLLECTION.json [--strict]   (needs newman)
'use strict'

const { readFileSync } = require('node:fs')
const newman = require('newman')

const [file, strict] = process.argv.slice(2)
const { INGEST_URL, API_URL, WRITE_KEY, API_KEY, WEBHOOK_SECRET } = process.env
const values = { ingestUrl: INGEST_URL, apiUrl: API_URL, writeKey: WRITE_KEY, apiKey: API_KEY, webhookSecret: WEBHOOK_SECRET }
const collection = JSON.parse(readFileSync(file, 'utf8'))
const declared = JSON.parse(collection.variable.find(({ key }) => key === 'declared').value)
const envVar = Object.entries(values).map(([key, value]) => ({ key, value }))

newman.run({ collection, envVar, timeoutRequest: 30_000 }, (error, summary) => {
  if (error) throw error
  const { executions, failures } = summary.run
  for (const { item, response } of executions) {
    const answer = response && response.code >= 400 ? response.text().slice(0, 200) : ''
    console.log(`${response?.code ?? '---'} ${item.name} ${answer}`.trimEnd())
  }
  const unplayed = Object.keys(declared).filter((name) => !executions.some(({ item }) => item.name === name))
  const refused = executions.filter(({ response }) => !(response?.code < 300))
  const bare = Object.keys(declared).filter((name) => declared[name].isBare)
  console.log(`${executions.length} requests, ${executions.length - refused.length} answered 2xx`)
  for (const name of bare) console.log(`its body has no example: ${name}`)
  for (const name of unplayed) console.error(`${name}: declared, and not played`)
  for (const { source, error: { message } } of failures) console.error(`${source.name}: ${message}`)
  const wrong = failures.length + unplayed.length + (strict ? refused.length + bare.length : 0)
  process.exitCode = wrong === 0 ? 0 : 1
})
