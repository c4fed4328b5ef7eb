// What runs in the page that browser_session.mjs opens: a shop with the unmodified @segment/analytics-next and live feeds.
// `settings` is what browser_session.mjs put into the window: { host, writeKey, api, apiKey, name }.
const settings = window.neonhubTest
const apiHost = `${new URL(settings.host).host}/v1`
const apiAddress = new URL(settings.api)

let analytics
const live = { eventSource: [], webSocket: [] }

// `delivery` is the SDK's: one request an event, or a batch. Its settings are here, not on a CDN.
async function loadAnalytics(delivery) {
  const cdnSettings = { integrations: { 'Segment.io': { apiKey: settings.writeKey } } }
  const integrations = { 'Segment.io': { apiHost, protocol: new URL(settings.host).protocol.slice(0, -1), deliveryStrategy: delivery } }
  ;[analytics] = await window.AnalyticsNext.AnalyticsBrowser.load({ writeKey: settings.writeKey, cdnSettings }, { integrations })
}

// An event as it must be in the table `events`.
function row(kind, number, more) {
  return {
    message_id: messageId(number),
    kind,
    name: kind,
    user_id: 'browser-user',
    anonymous_id: analytics.user().anonymousId(),
    group_id: '',
    previous_id: '',
    value: null,
    timestamp: new Date().toISOString(),
    properties: {},
    library: 'analytics.js',
    ...more,
  }
}

function messageId(number) {
  return `${settings.name}-${number}`
}

// Every call that there is. The user is told first: an event that is sent again later would take its user from then.
async function sendAllCalls() {
  const options = (number) => ({ messageId: messageId(number) })
  const order = { order_id: 'order-1', revenue: 42.5, country: 'de' }
  await Promise.all([
    analytics.identify('browser-user', { plan: 'pro' }, options(0)),
    analytics.page('Shop', 'Pricing', { layout: 'wide' }, options(1)),
    analytics.track('Order Completed', order, options(2)),
    analytics.group('company-1', { name: 'Company 1' }, options(3)),
    analytics.screen('Shop', 'Checkout', { step: 2 }, options(4)),
    analytics.alias('browser-user', 'browser-visitor', options(5)),
  ])
  return [
    row('identify', 0, { properties: { plan: 'pro' } }),
    // The SDK adds what it sees of the page.
    row('page', 1, {
      name: 'Pricing',
      campaign: 'spring',
      properties: { category: 'Shop', layout: 'wide', path: location.pathname, url: location.href, title: document.title },
    }),
    row('track', 2, { name: 'Order Completed', value: 42.5, properties: order }),
    row('group', 3, { group_id: 'company-1', properties: { name: 'Company 1' } }),
    row('screen', 4, { name: 'Checkout', properties: { category: 'Shop', step: 2 } }),
    row('alias', 5, { previous_id: 'browser-visitor' }),
  ]
}

// Returns when both feeds are open and follow the log's end.
async function openLiveFeeds() {
  const wanted = 'metrics=page_views&grain=minute'
  const events = new EventSource(`${settings.api}/v1/live/metrics?${wanted}&access_token=${settings.apiKey}`)
  events.addEventListener('window', (message) => live.eventSource.push(JSON.parse(message.data)))
  const socket = new WebSocket(`ws://${apiAddress.host}/v1/live?access_token=${settings.apiKey}`)
  socket.onopen = () => socket.send(JSON.stringify({ subscribe: { id: 'views', metrics: ['page_views'], grain: 'minute' } }))
  await Promise.all([
    new Promise((resolve, reject) => {
      events.onopen = resolve
      events.onerror = () => reject(new Error('the event stream does not open'))
    }),
    new Promise((resolve, reject) => {
      socket.onerror = () => reject(new Error('the WebSocket does not open'))
      socket.onmessage = (message) => {
        const { window, id, error } = JSON.parse(message.data)
        if (error) reject(new Error(JSON.stringify(error)))
        else if (window) live.webSocket.push(window)
        else if (id) resolve()
      }
    }),
  ])
}

// Of a feed: the newest revision of this page's views that counts one.
function seenLive(feed) {
  return live[feed].findLast((window) => window.dimensions.path === location.pathname && window.value >= 1) ?? null
}

// `waits`: until the SDK has it delivered or, with batches, put into one.
async function track(number, name, waits) {
  const taken = analytics.track(name, { on: location.pathname }, { messageId: messageId(number) })
  if (waits) await taken
  return row('track', number, { name, properties: { on: location.pathname } })
}

// How many events the SDK has kept for this page that it could not deliver on the one before.
function keptEvents() {
  return JSON.parse(localStorage.getItem(`persisted-queue:v1:${settings.writeKey}:dest-Segment.io:items`) ?? '[]').length
}

// Two beacons when the page goes, as a site without an SDK sends them: text/plain, with the write key in the query and in the
// body.
function sendBeaconsOnLeaving(firstNumber) {
  const anonymousId = analytics.user().anonymousId()
  const event = (number) => ({ type: 'track', event: 'Page Left', messageId: messageId(number), anonymousId, properties: { on: location.pathname } })
  addEventListener('pagehide', () => {
    const first = JSON.stringify({ batch: [event(firstNumber)] })
    const second = new Blob([JSON.stringify({ ...event(firstNumber + 1), writeKey: settings.writeKey })], { type: 'text/plain' })
    navigator.sendBeacon(`${settings.host}/v1/batch?writeKey=${settings.writeKey}`, first)
    navigator.sendBeacon(`${settings.host}/v1/track`, second)
  })
  // NeonHub knows whose browser it is.
  const sent = { name: 'Page Left', user_id: 'browser-user', properties: { on: location.pathname }, library: '' }
  return [row('track', firstNumber, sent), row('track', firstNumber + 1, sent)]
}
