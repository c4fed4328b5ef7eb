// Checks the OLAP front with the official Node client. Argument: the base URL, with the user
// and password of a writer. Exits 0 when all is right.
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { deepStrictEqual, ok, rejects } from 'node:assert'
import { Readable } from 'node:stream'

const url = process.argv[2]
const table = 'clickhouse_node_check'
const log = { level: ClickHouseLogLevel.OFF }
const passed = (name) => console.log(`ok   ${name}`)

const bootstrap = createClient({ url, log })
await bootstrap.command({ query: 'CREATE DATABASE IF NOT EXISTS neonhub' })
await bootstrap.close()

for (const compressed of [false, true]) {
  const client = createClient({
    url,
    log,
    database: 'neonhub',
    compression: { request: compressed, response: compressed },
    clickhouse_settings: { async_insert: 1, wait_for_async_insert: 1 },
  })
  const label = compressed ? 'compressed' : 'plain'
  const rowsOf = async (query, format, more = {}) => (await client.query({ query, format, ...more })).json()

  ok((await client.ping()).success)
  passed(`${label}: ping`)
  await client.command({ query: `DROP TABLE IF EXISTS ${table}` })
  await client.command({
    query: `CREATE TABLE ${table} (id UInt32, name String, properties JSON) ENGINE = MergeTree ORDER BY id`,
  })
  passed(`${label}: command`)

  const values = Array.from({ length: 1000 }, (_, id) => ({ id, name: `it's \\ \n ${id}`, properties: { id } }))
  const inserted = await client.insert({ table, values, format: 'JSONEachRow' })
  deepStrictEqual(inserted.summary.written_rows, '1000')
  passed(`${label}: insert`)
  await client.insert({
    table,
    format: 'JSONCompactEachRow',
    columns: ['id', 'name'],
    values: Readable.from(Array.from({ length: 1000 }, (_, n) => [1000 + n, 'streamed']), { objectMode: true }),
  })
  passed(`${label}: streamed insert`)

  const first = await rowsOf(`SELECT * FROM ${table} ORDER BY id LIMIT 1`, 'JSONEachRow', {
    clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
  })
  deepStrictEqual(first, [{ id: 0, name: values[0].name, properties: { id: 0 } }])
  passed(`${label}: JSONEachRow`)
  const json = await rowsOf(`SELECT number FROM numbers(200000)`, 'JSON')
  deepStrictEqual([json.rows, json.data.length, json.meta[0].name], [200000, 200000, 'number'])
  passed(`${label}: JSON`)

  const bound = await rowsOf('SELECT {a: Array(String)} AS a, {s: String} AS s, {d: DateTime64(3)} AS d', 'JSONEachRow', {
    query_params: { a: ["it's", 'b'], s: 'tab\t line\n \\ \'', d: '2024-03-10 01:02:03.456' },
  })
  deepStrictEqual(bound, [{ a: ["it's", 'b'], s: 'tab\t line\n \\ \'', d: '2024-03-10 01:02:03.456' }])
  passed(`${label}: parameters`)

  let streamed = 0
  const stream = (await client.query({ query: 'SELECT number FROM numbers(300000)', format: 'JSONEachRow' })).stream()
  for await (const rows of stream) streamed += rows.length
  deepStrictEqual(streamed, 300000)
  passed(`${label}: streaming`)

  await rejects(client.query({ query: 'SELECT * FROM no_such_table' }), (error) => error.code === '60')
  await rejects(client.query({ query: 'SELEC 1' }), (error) => error.code === '62')
  await rejects(client.insert({ table, values: [{ id: 'x' }], format: 'JSONEachRow' }), (error) => error.code === '27')
  passed(`${label}: errors`)

  const abort = new AbortController()
  const endless = client.query({
    query: 'SELECT count() FROM numbers(1000000000000)',
    format: 'JSONEachRow',
    abort_signal: abort.signal,
  })
  setTimeout(() => abort.abort(), 300)
  await rejects(endless)
  const running = `SELECT count() AS n FROM system.processes WHERE query LIKE '%1000000000000)%' AND query_id != queryID()`
  const deadline = Date.now() + 10_000
  while ((await rowsOf(running, 'JSONEachRow'))[0].n !== '0' && (await rowsOf(running, 'JSONEachRow'))[0].n !== 0) {
    ok(Date.now() < deadline, 'an aborted query must stop')
  }
  passed(`${label}: abort stops the query`)

  const session = createClient({ url, log, database: 'neonhub', session_id: `node-check-${label}-${process.pid}-${Date.now()}` })
  await session.command({ query: 'CREATE TEMPORARY TABLE kept (n UInt8)' })
  await session.insert({ table: 'kept', values: [{ n: 4 }], format: 'JSONEachRow' })
  deepStrictEqual(await (await session.query({ query: 'SELECT n FROM kept', format: 'JSONEachRow' })).json(), [{ n: 4 }])
  await session.close()
  passed(`${label}: session`)

  await client.command({ query: `DROP TABLE ${table}` })
  await client.close()
}
