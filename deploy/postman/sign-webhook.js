// As Standard Webhooks 1.0.0 says: HMAC-SHA-256 over id, time and body, under the bytes of the secret.
const secret = CryptoJS.enc.Base64.parse(pm.variables.get('webhookSecret').replace(/^whsec_/, ''))
const id = `msg_${pm.variables.replaceIn('{{$guid}}')}`
const time = String(Math.floor(Date.now() / 1000))
const body = pm.variables.replaceIn(pm.request.body.raw)
const signature = CryptoJS.HmacSHA256(`${id}.${time}.${body}`, secret).toString(CryptoJS.enc.Base64)

pm.request.headers.upsert({ key: 'webhook-id', value: id })
pm.request.headers.upsert({ key: 'webhook-timestamp', value: time })
pm.request.headers.upsert({ key: 'webhook-signature', value: `v1,${signature}` })
