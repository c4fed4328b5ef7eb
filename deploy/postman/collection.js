// Makes one Postman collection of both services' OpenAPI documents, so that it can be played from the first request to the last.
//
// Usage: node collection.js INGEST.json API.json COLLECTION.json   (needs openapi-to-postmanv2)
'use strict'

const { readFileSync, writeFileSync } = require('node:fs')
const { join } = require('node:path')
const { promisify } = require('node:util')
const convert = promisify(require('openapi-to-postmanv2').convertV2)

// The live feeds do not end, and a WebSocket is no request: newman would wait for ever.
const IS_LIVE = /^\/v1\/live(\/|$)/
// Of paths. The id is that of the key that `POST /v1/keys` made.
const PLACES = { kind: 'page', platform: 'stripe', name: 'made_by_postman', id: '{{keyId}}' }
// What is made is read, and then deleted.
const TURN = { PUT: 0, POST: 0, GET: 1, DELETE: 2 }
const OPTIONS = { parametersResolution: 'Example', folderStrategy: 'Tags' }

async function folder(service, file, declared) {
  const document = JSON.parse(readFileSync(file, 'utf8'))
  for (const path of Object.keys(document.paths).filter((path) => IS_LIVE.test(path))) delete document.paths[path]
  const operations = {}
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const name = `${service} ${method.toUpperCase()} ${path}`
      operations[name] = operation
      const bare = bodiesWithoutExample(operation, document)
      declared[name] = { statuses: Object.keys(operation.responses).map(Number), isBare: bare.length > 0 }
      // Something made up would be another thing in each run.
      for (const body of bare) body.example = {}
      // Their bodies would be made up, and the collection has no use for them.
      for (const response of Object.values(operation.responses)) delete response.content
    }
  }
  const made = await convert({ type: 'json', data: document }, OPTIONS)
  if (!made.result) throw new Error(`${file}: ${made.reason}`)
  const requests = leaves(made.output[0].data.item).map((item) => request(service, item, operations))
  requests.sort((one, other) => turn(one) - turn(other) || one.name.length - other.name.length)
  return { name: service, item: requests }
}

function leaves(items) {
  return items.flatMap((item) => (item.item ? leaves(item.item) : [item]))
}

function turn(item) {
  return TURN[item.request.method] ?? 1
}

function request(service, item, operations) {
  const { method, url } = item.request
  const path = `/${url.path.join('/')}`.replace(/:(\w+)/g, '{$1}')
  item.name = `${service} ${method} ${path}`
  item.response = []
  url.host = [`{{${service}Url}}`]
  for (const place of url.variable) {
    if (!(place.key in PLACES)) throw new Error(`${item.name}: PLACES does not say what {${place.key}} is`)
    place.value = PLACES[place.key]
  }
  const operation = operations[item.name]
  const given = (operation.parameters ?? []).filter((parameter) => parameter.required || 'example' in parameter)
  const isGiven = ({ key }) => given.some((parameter) => parameter.name === key)
  url.query = url.query.filter(isGiven)
  const { header = [] } = item.request
  item.request.header = header.filter((each) => ['Content-Type', 'Accept'].includes(each.key) || isGiven(each))
  const stated = { basic: [['username', '{{writeKey}}'], ['password', '']], bearer: [['token', '{{apiKey}}']] }
  const type = item.request.auth?.type
  if (type in stated) item.request.auth = { type, [type]: stated[type].map(([key, value]) => ({ key, value, type: 'string' })) }
  // An image's request has no head to put a key into.
  if (path.includes('pixel')) url.query = [...url.query.filter(({ key }) => key !== 'writeKey'), { key: 'writeKey', value: '{{writeKey}}' }]
  if (path.endsWith('/webhook')) item.event = [script('prerequest', 'sign-webhook.js')]
  return item
}

function bodiesWithoutExample(operation, document) {
  return Object.values(operation.requestBody?.content ?? {}).filter(({ schema, example, examples }) => {
    const named = document.components.schemas[schema?.$ref?.split('/').pop()] ?? schema
    return !(example ?? examples ?? named?.example ?? named?.examples)
  })
}

function script(listen, file) {
  return { listen, script: { type: 'text/javascript', exec: readFileSync(join(__dirname, file), 'utf8').split('\n') } }
}

async function main([ingest, api, collection]) {
  const declared = {}
  const item = [await folder('ingest', ingest, declared), await folder('api', api, declared)]
  const values = { ingestUrl: 'http://127.0.0.1:7001', apiUrl: 'http://127.0.0.1:7002', writeKey: '', apiKey: '', webhookSecret: '' }
  const variable = Object.entries({ ...values, declared: JSON.stringify(declared) }).map(([key, value]) => ({ key, value }))
  const schema = 'https://schema.getpostman.com/json/collection/v2.1.0/collection.json'
  const event = [script('test', 'every-request.js')]
  writeFileSync(collection, JSON.stringify({ info: { name: 'NeonHub', schema }, item, event, variable }, null, 2))
}

main(process.argv.slice(2))
