// The rows of the Open Bandit sample, real ad impressions with their clicks, in order of time; ../../deploy/fetch-demo-data.sh
// fetches it.
import { SharedArray } from 'k6/data'
import { settings } from './settings.js'

const policies = ['random', 'bts']
const campaigns = ['all', 'men', 'women']

// Read once, shared by all virtual users.
const rows = new SharedArray('open bandit', () => {
  const all = []
  for (const policy of policies) {
    for (const campaign of campaigns) {
      const lines = open(`${settings.sampleFolder}/${policy}/${campaign}.csv`).split('\n')
      for (const line of lines.slice(1)) {
        if (line !== '') {
          all.push(row(line, policy, campaign))
        }
      }
    }
  }
  return all.sort((left, right) => (left.time < right.time ? -1 : 1))
})

// The columns behind the tenth are affinities, which no event carries.
function row(line, policy, campaign) {
  const [, time, item, position, click, propensity, ...features] = line.split(',', 10)
  return {
    policy,
    campaign,
    time,
    item: Number(item),
    position: Number(position),
    isClick: click === '1',
    propensity: Number(propensity),
    // There is no id in the sample: who has the same four features is taken for the same visitor, as by
    // docs/replay/open-bandit.toml.
    visitor: features.map((feature) => feature.slice(0, 8)).join('-'),
  }
}

// `count` rows from the `first` on; after the last one comes the first again.
export function rowsFrom(first, count) {
  return Array.from({ length: count }, (_, index) => rows[(first + index) % rows.length])
}
