import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { Command } from 'commander';

import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { realClock } from '../../base/real.ts';
import { parseTopology } from '../../base/topology.ts';
import type { Topology } from '../../base/topology.ts';
import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { FakeBank, startFakeSwitch } from './testing.ts';
import type { FakeSwitch, Fault } from './testing.ts';
import { loadCommand, registerLoad } from './load-command.ts';
import type { LoadFlags } from './load-command.ts';
import { registerSend, sendCommand } from './send.ts';
import type { SendFlags } from './send.ts';
import type { CommandContext } from './usage.ts';

const folder = mkdtempSync(join(tmpdir(), 'send-'));
after(() => {
  rmSync(folder, { recursive: true });
});

const number = '9900010000000019';

function topologyAt(port: number): Topology {
  return parseTopology(
    `
cluster: tiny
sites: [{ id: here }]
nodes: [{ id: n1, site: here, acquirer: { port: ${port} } }, { id: n2, site: here, acquirer: { port: 8582 } }]
brokers: [{ id: b, site: here, client: { port: 7421 }, cluster: { port: 7431 } }]
`,
    'nodes.yaml',
  );
}

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly error: string;
  readonly received: readonly IsoMessage[];
}

/** Runs `command` with a fake switch as n1. */
async function run(
  command: (context: CommandContext) => Promise<number>,
  options: {
    readonly stdin?: string;
    readonly fault?: Fault;
    readonly declines?: string;
    readonly clock?: ManualClock;
  } = {},
): Promise<Ran> {
  const { fault } = options;
  const fake: FakeSwitch = await startFakeSwitch({
    bank: new FakeBank(() => options.declines),
    ...(fault === undefined ? {} : { fault: () => fault }),
  });
  let out = '';
  let error = '';
  async function* stdin(): AsyncGenerator<string> {
    yield* (options.stdin ?? '').match(/.{1,5}/gs) ?? [];
  }
  try {
    const code = await command({
      topology: () => topologyAt(fake.endpoint.port),
      clock: options.clock ?? realClock,
      random: seededRandom(1),
      stdout: { write: (text) => (out += text) },
      stderr: { write: (text) => (error += text) },
      stdin: stdin(),
    });
    return { code, out, error, received: fake.received };
  } finally {
    await fake.close();
  }
}

function send(flags: SendFlags, options: Parameters<typeof run>[1] = {}): Promise<Ran> {
  return run((context) => sendCommand(flags, context), options);
}

test('a purchase is filled in with what an acquirer sends, and the answer is printed by field, masked', async () => {
  const { code, out, error, received } = await send({ to: 'n1', pan: number, amount: '1250' });
  assert.equal(error, '');
  assert.equal(code, 0);
  const [message] = received;
  assert.ok(message);
  assert.equal(message.mti, '0100');
  assert.deepEqual(
    [...message.fields.keys()].sort((left, right) => left - right),
    [2, 3, 4, 7, 11, 12, 13, 18, 22, 25, 32, 37, 41, 42, 43, 49],
  );
  assert.equal(message.fields.get(4), '000000001250');
  assert.match(
    out,
    /^answered by n1 \(127\.0\.0\.1:\d+\) in \d+\.\d ms\nMTI {2}messageTypeIndicator +0110 authorization response\n/,
  );
  assert.match(out, /^ {2}2 {2}primaryAccountNumber +990001\*{6}0019$/m);
  assert.match(out, /^ {2}4 {2}amountTransaction +12\.50 USD$/m);
  assert.match(out, /^ 39 {2}responseCode +00 approved$/m);
  assert.ok(!out.includes(number));
});

test('a decline is an answer: exit 0', async () => {
  const { code, out } = await send({ pan: number }, { declines: '51' });
  assert.equal(code, 0);
  assert.match(out, /51 not sufficient funds/);
});

test('dates come from the clock, in UTC', async () => {
  const { received } = await send(
    { pan: number },
    { clock: new ManualClock({ startWallMs: Date.UTC(2026, 11, 31, 23, 59, 58), soon: 'event-loop' }) },
  );
  assert.deepEqual(
    [7, 12, 13].map((field) => received[0]?.fields.get(field)),
    ['1231235958', '235958', '1231'],
  );
});

test('every flag reaches its field', async () => {
  const { received } = await send({
    mti: '0220',
    pan: number,
    processingCode: '010000',
    amount: '7',
    stan: '000042',
    expiry: '3508',
    rrn: 'ABCDEF123456',
    authorizationCode: 'A1B2C3',
    terminal: 'T1',
    merchant: 'M1',
    currency: 'EUR',
    field: ['32=1234', '55=9F0206000000000007', '52=0123456789abcdef', '43='],
  });
  const fields = received[0]?.fields;
  assert.equal(received[0]?.mti, '0220');
  assert.deepEqual(
    [2, 3, 4, 11, 14, 32, 37, 38, 41, 42, 43, 49].map((field) => fields?.get(field)),
    [
      number,
      '010000',
      '000000000007',
      '000042',
      '3508',
      '1234',
      'ABCDEF123456',
      'A1B2C3',
      'T1      ',
      'M1             ',
      undefined,
      '978',
    ],
  );
  assert.deepEqual(fields?.get(52), Buffer.from('0123456789abcdef', 'hex'));
  assert.deepEqual(fields.get(55), [{ tag: '9F02', value: Buffer.from('000000000007', 'hex') }]);
});

test('the card number can come from standard input, or from track 2', async () => {
  const piped = await send({ pan: '-' }, { stdin: `${number}\n` });
  assert.equal(piped.received[0]?.fields.get(2), number);
  const swiped = await send({ track2: `${number}=3508101000` });
  assert.equal(swiped.received[0]?.fields.get(2), undefined);
  assert.equal(swiped.received[0]?.fields.get(35), `${number}=3508101000`);
  assert.equal(swiped.received[0].fields.get(22), '051');
});

test('a network message needs no card', async () => {
  const { code, received } = await send({ mti: '0800', field: ['70=001'] });
  assert.equal(code, 0);
  assert.deepEqual([...(received[0]?.fields.keys() ?? [])], [7, 11, 70]);
});

test('a JSON message is sent as it is, with the flags over it; only the keys of an answer are filled in', async () => {
  const text = JSON.stringify({ mti: '0100', fields: { 2: number, 3: '000000', 4: '000000000100', 41: 'TERM0009' } });
  const { received } = await send({ message: '-', amount: '200' }, { stdin: text });
  const fields = received[0]?.fields;
  assert.deepEqual(
    [...(fields?.keys() ?? [])].sort((left, right) => left - right),
    [2, 3, 4, 7, 11, 41],
  );
  assert.equal(fields?.get(4), '000000000200');
});

test('--json prints request and answer, masked, and the values that a next message needs', async () => {
  const { out } = await send({ pan: number, json: true, rrn: 'ABCDEF123456' });
  assert.ok(!out.includes(number));
  const result = JSON.parse(out) as Record<string, unknown>;
  assert.equal(result['approved'], true);
  assert.equal(result['responseCode'], '00');
  assert.equal(result['rrn'], 'ABCDEF123456');
  assert.equal(result['authorizationCode'], '000001');
  assert.deepEqual((result['answer'] as { fields: unknown[] }).fields[0], {
    field: 2,
    name: 'primaryAccountNumber',
    value: '990001******0019',
  });
});

test('no answer is exit 1, with what came instead', async () => {
  const hungUp = await send({ pan: number }, { fault: 'hang-up' });
  assert.equal(hungUp.code, 1);
  assert.match(
    hungUp.error,
    /^quadrant send: no answer from n1 \(127\.0\.0\.1:\d+\) before the connection was closed\n$/,
  );
  const silent = await send({ pan: number, timeout: '20ms' }, { fault: 'wrong-stan' });
  assert.equal(silent.code, 1);
  assert.match(
    silent.error,
    /no answer from n1 .* within 20 ms; what came instead: mti 0110 that belongs to no request of ours/,
  );
});

test('a node that is not there is exit 4, with its address and what to do', async () => {
  const { code, error } = await send({ to: '127.0.0.1:1', pan: number });
  assert.equal(code, 4);
  assert.match(error, /^quadrant send: no connection to 127\.0\.0\.1:1: ECONNREFUSED\nLook at `quadrant status`/);
});

const badFlags: readonly (readonly [claim: string, flags: SendFlags, message: RegExp])[] = [
  ['no card', {}, /which card\? --pan NUMBER/],
  ['a short card number', { pan: '1234' }, /--pan: expected 13 to 19 digits/],
  ['an unknown node', { to: 'n3', pan: number }, /no node "n3"; did you mean "n[12]"\? Known: n1, n2/],
  ['an impossible port', { to: 'localhost:70000', pan: number }, /port 70000/],
  ['an amount with a decimal point', { pan: number, amount: '12.50' }, /--amount: expected whole minor units/],
  ['an amount of 13 digits', { pan: number, amount: '1234567890123' }, /--amount/],
  ['a negative amount', { pan: number, amount: '-5' }, /--amount/],
  ['an unknown currency', { pan: number, currency: 'XXQ' }, /--currency: "XXQ" is not a currency/],
  ['an MTI of another edition', { pan: number, mti: '1100' }, /--mti: "1100"/],
  ['a month of 13', { pan: number, expiry: '2613' }, /--expiry: expected YYMM/],
  ['a short processing code', { pan: number, processingCode: '00' }, /--processing-code: expected six digits/],
  ['a long terminal', { pan: number, terminal: 'TERMINAL1' }, /--terminal/],
  ['a field without a value', { pan: number, field: ['37'] }, /--field: expected NUMBER=VALUE/],
  ['a field that does not exist', { pan: number, field: ['65=1'] }, /has no DE 65/],
  [
    'letters in a numeric field',
    { pan: number, field: ['32=ABC'] },
    /the message cannot be sent: DE 32 .*content is not of class n/,
  ],
  ['a binary field that is not hexadecimal', { pan: number, field: ['52=xyz'] }, /DE 52 .* is given in hexadecimal/],
  ['TLV that ends early', { pan: number, field: ['55=9F0206'] }, /DE 55/],
  ['a timeout without a unit', { pan: number, timeout: 'soon' }, /--timeout: "soon" is not a duration/],
  ['two things from standard input', { pan: '-', message: '-' }, /only one of/],
  ['a message that is not JSON', { message: '-' }, /standard input is not JSON/],
];
for (const [claim, flags, message] of badFlags) {
  test(`send refuses ${claim} with exit 2 and a sentence, and sends nothing`, async () => {
    const { code, error, out, received } = await send(flags, { stdin: 'no json' });
    assert.equal(code, 2);
    assert.match(error, message);
    assert.equal(error.trimEnd().split('\n').length, 1);
    assert.equal(out, '');
    assert.equal(received.length, 0);
  });
}

test('no error message repeats card data', async () => {
  for (const flags of [
    { pan: `${number}99999` },
    { track2: `${number}x` },
    { pan: number, field: [`2:${number}`] },
    { pan: number, field: [`2=${number}x`] },
  ]) {
    const { code, error } = await send(flags);
    assert.equal(code, 2);
    assert.ok(!error.includes(number), error);
  }
});

test('a message file that is not there is exit 1', async () => {
  const { code, error } = await send({ message: join(folder, 'none.json') });
  assert.equal(code, 1);
  assert.match(error, /the message cannot be read from .*none\.json \(ENOENT\)/);
});

function load(flags: LoadFlags): Promise<Ran> {
  return run((context) => loadCommand({ nodes: 'n1', journal: false, ...flags }, context));
}

test('load prints its summary and exits 0 when every answer was right', async () => {
  const journal = join(folder, 'load.jsonl');
  const { code, out, received } = await load({ count: '50', max: true, connections: '2', seed: '7', journal });
  assert.equal(code, 0, out);
  assert.equal(received.length, 50);
  assert.match(out, /^requests +50 in /);
  assert.match(out, /verdict +every request was answered exactly once/);
  const json = await load({ count: '20', max: true, json: true });
  assert.equal((JSON.parse(json.out) as { requests: number }).requests, 20);
});

const missing = join(folder, 'none.csv');
const empty = join(folder, 'empty.csv');
const headless = join(folder, 'headless.csv');
writeFileSync(empty, 'pan,expiry,status,currency,limit\n');
writeFileSync(headless, `${number},3508,active,840,100\n`);

const badLoads: readonly (readonly [claim: string, flags: LoadFlags, code: number, message: RegExp])[] = [
  ['an unknown node', { nodes: 'n1,n7' }, 2, /no node "n7"/],
  ['a rate of zero', { rate: '0' }, 2, /--rate: "0" is not a whole number from 1/],
  ['a rate and --max', { rate: '10', max: true }, 2, /--rate and --max exclude each other/],
  ['--in-flight without --max', { inFlight: '10' }, 2, /--in-flight belongs to --max/],
  ['a bad mix', { mix: 'purchase=x' }, 2, /--mix: "purchase=x" is not of the form/],
  ['a bad duration', { duration: '5 parsecs' }, 2, /--duration/],
  ['a bad count', { count: 'many' }, 2, /--count/],
  ['a bad seed', { seed: '99999999' }, 2, /--seed/],
  ['no connections', { connections: '0' }, 2, /--connections/],
  ['a card file that is not there', { cards: missing }, 1, /the card file .*none\.csv cannot be read \(ENOENT\)/],
  ['a card file without cards', { cards: empty }, 1, /empty\.csv has no good card/],
  ['a card file without a header', { cards: headless }, 1, /expected a header of pan,expiry/],
  [
    'a journal in no folder',
    { journal: join(folder, 'no', 'folder.jsonl') },
    1,
    /the journal .* cannot be written \(ENOENT\)/,
  ],
  [
    'a node that is not there',
    { nodes: 'n2', count: '1' },
    4,
    /no node can be reached: n2 \(127\.0\.0\.1:8582\): ECONNREFUSED/,
  ],
];
for (const [claim, flags, expected, message] of badLoads) {
  test(`load refuses ${claim} with exit ${expected} and a sentence`, async () => {
    const { code, error, out } = await load(flags);
    assert.equal(code, expected);
    assert.match(error, message);
    assert.equal(out, '');
  });
}

test('the help of both commands lists every flag with an example', () => {
  const program = new Command();
  const context = {
    topology: () => topologyAt(1),
    clock: realClock,
    random: seededRandom(1),
    stdout: { write: () => true },
    stderr: { write: () => true },
    stdin: (async function* () {})(),
  };
  registerSend(program, context);
  registerLoad(program, context);
  for (const command of program.commands) {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text) });
    command.outputHelp();
    for (const option of command.options) assert.ok(help.includes(option.long ?? '?'), option.flags);
    assert.match(help, new RegExp(`Examples?.*\\n {2}quadrant ${command.name()} --`, 's'));
    assert.match(help, /Exit code: 0 /);
  }
});
