import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { endpoints, loadTopology, parseTopology, voters } from './topology.ts';

const sampleFile = new URL('../nodes.yaml', import.meta.url).pathname;
const sample = readFileSync(sampleFile, 'utf8');

const minimal = `
cluster: tiny
sites: [{ id: here }]
nodes: [{ id: only, site: here, acquirer: { port: 8581 } }]
brokers: [{ id: b, site: here, client: { port: 7421 }, cluster: { port: 7431 } }]
`;

/** The sample with one text replaced, which must stand in it. */
function changed(from: string, to: string): string {
  assert.ok(sample.includes(from), `the sample has no ${from}`);
  return sample.replace(from, to);
}

test('the sample nodes.yaml is four nodes at two sites, a witness at a third, a broker at each', () => {
  const topology = loadTopology(sampleFile);
  assert.deepEqual(
    topology.nodes.map((node) => [node.id, node.site, node.acquirer.host, node.acquirer.port]),
    [
      ['n1', 'east', '127.0.0.1', 8581],
      ['n2', 'east', '127.0.0.1', 8582],
      ['n3', 'west', '127.0.0.1', 8583],
      ['n4', 'west', '127.0.0.1', 8584],
    ],
  );
  assert.deepEqual(voters(topology), ['n1', 'n2', 'n3', 'n4', 'w1']);
  assert.deepEqual(
    topology.brokers.map((broker) => [broker.site, broker.client.port, broker.cluster.port]),
    [
      ['east', 7421, 7431],
      ['west', 7422, 7432],
      ['north', 7423, 7433],
    ],
  );
});

test('the sample shows every key of timings, limits, repair and nightly with its default', () => {
  const { timings, limits, repair, nightly } = parseTopology(minimal, 'nodes.yaml');
  const shown = loadTopology(sampleFile);
  assert.deepEqual(shown.timings, timings);
  assert.deepEqual(shown.limits, limits);
  assert.deepEqual([shown.repair, shown.nightly], [repair, nightly]);
  const keys = [timings, limits, repair, nightly].flatMap((section) => Object.keys(section));
  for (const key of keys) assert.ok(sample.includes(`  ${key}:`), key);
});

test('one node with one broker and no witness is a cluster, and so are twenty', () => {
  const one = parseTopology(minimal, 'nodes.yaml');
  assert.deepEqual(voters(one), ['only']);
  assert.equal(one.nodes[0]?.acquirer.host, '127.0.0.1');

  const nodes = Array.from(
    { length: 20 },
    (_, index) => `  - { id: n${index + 1}, site: here, acquirer: { port: ${9000 + index} } }`,
  );
  const twenty = minimal.replace(/nodes: .*/, `nodes:\n${nodes.join('\n')}`);
  assert.equal(voters(parseTopology(twenty, 'nodes.yaml')).length, 20);
});

test('every address has the path of its key', () => {
  assert.deepEqual(
    endpoints(parseTopology(minimal, 'nodes.yaml')).map(({ path, port }) => [path.join(' '), port]),
    [
      ['brokers 0 client', 7421],
      ['brokers 0 cluster', 7431],
      ['nodes 0 acquirer', 8581],
    ],
  );
});

test('a process tells monitoring of itself where nodes.yaml says so, on loopback unless it says otherwise', () => {
  const text = minimal
    .replace('acquirer: { port: 8581 } }', 'acquirer: { port: 8581 }, monitor: { port: 8591 } }')
    .replace('brokers:', 'witness: { id: w1, site: here, monitor: { host: 10.0.0.1, port: 8591 } }\nbrokers:');
  const topology = parseTopology(text, 'nodes.yaml');
  assert.deepEqual(topology.nodes[0]?.monitor, { host: '127.0.0.1', port: 8591 });
  assert.deepEqual(
    endpoints(topology)
      .map(({ path, host, port }) => `${path.join(' ')} ${host}:${port}`)
      .slice(-2),
    ['nodes 0 monitor 127.0.0.1:8591', 'witness monitor 10.0.0.1:8591'],
  );
  assert.equal(parseTopology(minimal, 'nodes.yaml').nodes[0]?.monitor, undefined, 'the key may be left out');
  assert.throws(() => parseTopology(text.replace('port: 8591', 'port: 8581'), 'nodes.yaml'), {
    message: /nodes\[0\]\.monitor: the address 127\.0\.0\.1:8581 is already that of nodes\[0\]\.acquirer/,
  });
  assert.throws(() => parseTopology(text.replace('monitor: { port', 'monitor: { prot'), 'nodes.yaml'), {
    message: /nodes\[0\]\.monitor\.prot: unknown key; did you mean "port"\?/,
  });
});

const refusals: readonly (readonly [claim: string, text: string, message: RegExp])[] = [
  [
    'an unknown key near a known one',
    changed('n3, site: west, acquirer:', 'n3, site: west, acqirer:'),
    /^nodes\.yaml, line 23: nodes\[2\]\.acqirer: unknown key; did you mean "acquirer"\?$/m,
  ],
  [
    'an unknown key near none',
    changed('limits:\n', 'limits:\n  colour: 1\n'),
    /limits\.colour: unknown key; known here: acquirerConnections, /,
  ],
  [
    'an unknown key at the top',
    changed('timings:', 'timing:'),
    /^nodes\.yaml, line \d+: timing: unknown key; did you mean "timings"\?$/m,
  ],
  ['a missing key', changed('cluster: quadrant', ''), /: cluster: is missing/],
  [
    'a wrong type',
    changed('port: 8582', 'port: many'),
    /line 22: nodes\[1\]\.acquirer\.port: expected number, found string/,
  ],
  ['a port out of range', changed('port: 8582', 'port: 65536'), /nodes\[1\]\.acquirer\.port: /],
  [
    'a host that is none',
    changed('host: 127.0.0.1, port: 8582', 'host: "a\\"b", port: 8582'),
    /nodes\[1\]\.acquirer\.host: expected a host name/,
  ],
  ['an id that is none', changed('id: n4', 'id: N4'), /nodes\[3\]\.id: expected a lower-case letter/],
  ['a reserved id', changed('id: w1', 'id: config'), /witness\.id: is a reserved name/],
  ['operator as an id', changed('id: n4', 'id: operator'), /nodes\[3\]\.id: is a reserved name/],
  ['two nodes with one id', changed('id: n4', 'id: n1'), /nodes\[3\]\.id: the id n1 is already that of nodes\[0\]\.id/],
  [
    "the witness with a node's id",
    changed('id: w1', 'id: n2'),
    /witness\.id: the id n2 is already that of nodes\[1\]\.id/,
  ],
  ['two brokers with one id', changed('id: b-west', 'id: b-east'), /brokers\[1\]\.id: the id b-east is already/],
  ['two sites with one id', changed('id: north', 'id: east'), /sites\[2\]\.id: the id east is already/],
  [
    'two listeners at one port',
    changed('port: 7433', 'port: 8581'),
    /the address 127\.0\.0\.1:8581 is already that of brokers\[2\]\.cluster/,
  ],
  [
    'localhost at the same port',
    changed('host: 127.0.0.1, port: 8582', 'host: localhost, port: 8581'),
    /nodes\[1\]\.acquirer: the address/,
  ],
  [
    'a node at an unknown site',
    changed('n4, site: west', 'n4, site: wset'),
    /nodes\[3\]\.site: no site "wset"; did you mean "west"\?/,
  ],
  [
    'a broker at an unknown site',
    changed('site: north\n    client', 'site: moon\n    client'),
    /brokers\[2\]\.site: no site "moon"; known: east, west, north/,
  ],
  [
    'a site with no broker',
    changed('site: north\n    client', 'site: west\n    client'),
    /sites\[2\]: site "north" has no broker/,
  ],
  ['no nodes', minimal.replace(/nodes: .*/, 'nodes: []'), /nodes: at least one is needed/],
  [
    'an election timeout under four heartbeats',
    changed('electionTimeoutMs: 600', 'electionTimeoutMs: 399'),
    /timings\.electionTimeoutMs: 399 is less than four heartbeats/,
  ],
  [
    'a deadline that no failover meets',
    changed('requestDeadlineMs: 3000', 'requestDeadlineMs: 600'),
    /timings\.requestDeadlineMs: 600 must be greater/,
  ],
  ['a syntax error', 'cluster: tiny\nsites: [\n', /^nodes\.yaml, line \d+, column \d+: not valid YAML: /],
  ['a key given twice', `${minimal}cluster: again\n`, /line 6, column 1: not valid YAML: Map keys must be unique/],
  ['an empty file', '', /nodes\.yaml: expected object, found nothing/],
  [
    'an alias bomb',
    `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n`,
    /aliases expand/,
  ],
];

for (const [claim, text, message] of refusals) {
  test(`nodes.yaml is refused for ${claim}, with the path`, () => {
    assert.throws(() => parseTopology(text, 'nodes.yaml'), { code: 'CONFIG_INVALID', message });
  });
}

test('a file that is not there is named', () => {
  assert.throws(() => loadTopology('no-such-nodes.yaml'), {
    code: 'CONFIG_INVALID',
    message: 'no-such-nodes.yaml cannot be read (ENOENT)',
  });
});

test('operators who approve repairs have an id and an Ed25519 key each, and are enough', () => {
  const key = 'MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=';
  const other = 'MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=';
  const read = (repair: string): unknown => parseTopology(`${minimal}repair: ${repair}\n`, 'nodes.yaml').repair;
  assert.deepEqual(read('{}'), { approvals: 1, planHours: 24, operators: [] });
  const pem = `"-----BEGIN PUBLIC KEY----- ${key} -----END PUBLIC KEY-----"`;
  assert.deepEqual(read(`{ approvals: 2, operators: [{ id: alice, key: ${pem} }, { id: bob, key: "${other}" }] }`), {
    approvals: 2,
    planHours: 24,
    operators: [
      { id: 'alice', key },
      { id: 'bob', key: other },
    ],
  });
  assert.throws(
    () => read(`{ approvals: 2, operators: [{ id: alice, key: "${key}" }] }`),
    /repair.approvals: 2 approvals are asked for, and 1 operators are named/,
  );
  assert.throws(
    () => read('{ operators: [{ id: alice, key: AAAA }] }'),
    /repair.operators\[0\].key: expected the public key of an Ed25519 pair/,
  );
  assert.throws(
    () => read(`{ operators: [{ id: alice, key: "${key}" }, { id: bob, key: "${key}" }] }`),
    /repair.operators\[1\].key: the key .* is already that of repair.operators\[0\].key/,
  );
  assert.throws(() => read('{ approval: 2 }'), /repair.approval: unknown key; did you mean "approvals"/);
});
