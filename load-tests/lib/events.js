// Pure: events made of rows of the sample. Rows are replayed as of now, as a shop would send them; their order, campaigns,
// policies, items, visitors and clicks are the real ones.

export function impression(row, messageId, timestamp) {
  return {
    type: 'impression',
    campaign: row.campaign,
    anonymousId: row.visitor,
    messageId,
    timestamp,
    properties: {
      policy: row.policy,
      item_id: row.item,
      position: row.position,
      propensity_score: row.propensity,
    },
  }
}

export function click(row, messageId, timestamp) {
  return { ...impression(row, messageId, timestamp), type: 'click' }
}

// The impressions, and the clicks behind them: how `neonhub replay` posts the sample.
export function impressionsAndClicks(rows, messageIdOf, timestampOf) {
  const impressions = rows.map((row, index) => impression(row, messageIdOf(index), timestampOf(index)))
  const clicks = rows.flatMap((row, index) =>
    row.isClick ? [click(row, messageIdOf(`${index}-click`), timestampOf(index))] : [],
  )
  return [...impressions, ...clicks]
}

export function page(row, messageId, timestamp) {
  const path = `/items/${row.item}`
  return {
    type: 'page',
    name: 'Item',
    anonymousId: row.visitor,
    messageId,
    timestamp,
    properties: { path, url: `https://shop.example${path}`, title: `Item ${row.item}` },
    context: { library: { name: 'analytics.js', version: '5.0.0' }, campaign: { name: row.campaign } },
  }
}

export function track(row, messageId, timestamp, event) {
  return {
    type: 'track',
    event,
    anonymousId: row.visitor,
    messageId,
    timestamp,
    properties: { product_id: String(row.item), position: row.position, list_id: row.campaign, variant: row.policy },
  }
}

export function identify(row, messageId, timestamp) {
  return {
    type: 'identify',
    anonymousId: row.visitor,
    userId: `user-${row.visitor}`,
    messageId,
    timestamp,
    traits: { segment: row.campaign },
  }
}

// What a page's visitor did with the item: looked at it, or also clicked on it.
export function visit(row, messageId, timestamp) {
  return row.isClick ? track(row, messageId, timestamp, 'Product Clicked') : page(row, messageId, timestamp)
}
