// After each request of the collection.
const { statuses } = JSON.parse(pm.collectionVariables.get('declared'))[pm.info.requestName]

pm.test(`${pm.response.code} is one of ${statuses.join(', ')}`, () => pm.expect(statuses).to.include(pm.response.code))
pm.test(`${pm.response.code} is no failure of the server`, () => pm.expect(pm.response.code).to.be.below(500))

// Requests that follow change this key.
if (pm.info.requestName === 'api POST /v1/keys' && pm.response.code === 201) {
  pm.collectionVariables.set('keyId', pm.response.json().key.id)
}
