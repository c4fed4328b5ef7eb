// One request over TLS, by Node's own HTTP/1.1 or HTTP/2 client, which trusts one certificate alone.
//
// Usage: node over_tls.mjs CERTIFICATE '{"version": "2", "port": 7001, "method": "GET", "path": "/health/ready", "headers": {}, "body": ""}'
// Prints {"status": 200, "body": "…"}; exit code 1 if nobody answers whom the certificate names.
import { readFileSync } from 'node:fs'
import { connect } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import { text } from 'node:stream/consumers'

const [certificate, wish] = process.argv.slice(2)
const { version, port, method, path, headers, body } = JSON.parse(wish)
const trust = { ca: readFileSync(certificate), servername: 'localhost' }

async function overHttp2() {
  const session = connect(`https://127.0.0.1:${port}`, trust)
  const failed = new Promise((_, reject) => session.once('error', reject))
  const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream: body === '' })
  if (body !== '') {
    stream.end(body)
  }
  const answered = new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject))
  const status = (await Promise.race([answered, failed]))[':status']
  const answer = { status, body: await text(stream) }
  session.close()
  return answer
}

async function overHttp1() {
  const request = httpsRequest({ host: '127.0.0.1', port, method, path, headers, ...trust, ALPNProtocols: ['http/1.1'], agent: false })
  const answered = new Promise((resolve, reject) => request.once('response', resolve).once('error', reject))
  request.end(body)
  const response = await answered
  return { status: response.statusCode, body: await text(response) }
}

setTimeout(() => process.exit(1), 20_000).unref()
try {
  console.log(JSON.stringify(await (version === '2' ? overHttp2() : overHttp1())))
} catch (error) {
  console.error(String(error))
  process.exit(1)
}
