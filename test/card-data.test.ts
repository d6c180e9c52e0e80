import assert from 'node:assert/strict';
import { once } from 'node:events';
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { connect, nkeyAuthenticator } from '@nats-io/transport-node';
import type { NatsConnection } from '@nats-io/transport-node';

import { Pan } from '../base/pan.ts';
import { realRandom } from '../base/real.ts';
import { readAcquirerCards } from '../cli/acquirer/cards.ts';
import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import { textOf, transmissionDateAndTime } from '../cli/acquirer/message-parts.ts';
import { auditorId, operatorId, readSecrets } from '../cli/cluster/secrets.ts';
import { frame, length2 } from '../switch/iso8583/framing.ts';
import type { FieldValue } from '../switch/iso8583/codec.ts';
import { CardDataScanner, cardNumber } from './card-data-scanner.ts';
import type { Secret } from './card-data-scanner.ts';
import {
  ask,
  Cleanups,
  connectTo,
  firstCards,
  load,
  nextStan,
  purchase,
  quadrant,
  startTestCluster,
  until,
  withCheckDigit,
} from './harness.ts';
import type { CommandResult, Place, SampleCard, TestCluster } from './harness.ts';

const cleanups = new Cleanups();
let cluster: TestCluster;
let cards: readonly SampleCard[];

/** Everything that went over the brokers: subjects and payloads, from before the first card came in. */
const overheard: { readonly subject: string; readonly payload: Buffer }[] = [];
/** What commands printed. */
const printed: string[] = [];
const secrets: Secret[] = [];

/** A card number that is used from now on and must be nowhere afterwards. */
function secretCard(label: string, digits: string): string {
  secrets.push(...cardNumber(label, digits));
  return digits;
}

function randomDigits(count: number): string {
  return Array.from({ length: count }, () => String(realRandom.below(10))).join('');
}

function secretBytes(label: string, count: number): Buffer {
  const bytes = realRandom.bytes(count);
  secrets.push({ label, bytes });
  return bytes;
}

/** DE 35, of which the part after the number is as secret as the whole. */
function secretTrack2(digits: string, expiry: string): string {
  const rest = `=${expiry}201${randomDigits(36 - digits.length - 8)}`;
  secrets.push({ label: 'track 2', text: digits + rest }, { label: 'track 2 after the number', text: rest });
  return digits + rest;
}

async function connectToBroker(place: Place, id: string): Promise<NatsConnection> {
  const seed = new TextEncoder().encode(readSecrets(place.dataFolder, id).nkeySeed);
  const connection = await connect({
    servers: `127.0.0.1:${place.topology.brokers[0]?.client.port ?? 0}`,
    authenticator: nkeyAuthenticator(seed),
    reconnect: false,
  });
  cleanups.after(() => connection.close());
  return connection;
}

async function overhear(place: Place): Promise<void> {
  const auditor = await connectToBroker(place, auditorId);
  auditor.subscribe('>', {
    callback: (error, message) => {
      if (error === null) overheard.push({ subject: message.subject, payload: Buffer.from(message.data) });
    },
  });
  await auditor.flush();
}

async function run(args: readonly string[], input = ''): Promise<CommandResult> {
  const result = await quadrant(cluster, args, input);
  printed.push(result.stdout, result.stderr);
  return result;
}

before(async () => {
  cards = await firstCards();
  for (const { line, pan } of await readAcquirerCards(sampleCardFile)) secretCard(`card of line ${line}`, pan.reveal());
  cluster = await startTestCluster(cleanups, { onStarted: overhear });
});

after(() => cleanups.run());

test('the scanner finds card data in every form that it is written in, and nothing in masked numbers', () => {
  const digits = '9900011234567890123';
  const pin = Buffer.from('7434f67813bae545', 'hex');
  const scanner = new CardDataScanner([...cardNumber('card', digits), { label: 'PIN block', bytes: pin }]);
  const forms: readonly (string | Buffer)[] = [
    digits,
    Buffer.from(digits, 'utf16le'),
    Buffer.from(`${digits}f`, 'hex'),
    Buffer.from(`0${digits}`, 'hex'),
    Buffer.from(digits).toString('hex'),
    ...['', 'a', 'ab', 'abc'].map((before) => Buffer.from(`${before}${digits}=`).toString('base64')),
    ...['', 'a', 'ab', 'abc'].map((before) => Buffer.from(`${before}${digits}=`).toString('base64url')),
    pin,
    pin.toString('hex'),
    pin.toString('hex').toUpperCase(),
    ...['', 'a', 'ab'].map((before) => Buffer.concat([Buffer.from(before), pin, pin]).toString('base64')),
  ];
  for (const form of forms) {
    for (const surroundings of ['', 'x', 'a longer text 990001 ']) {
      const bytes = Buffer.concat([Buffer.from(surroundings), Buffer.from(form), Buffer.from(surroundings)]);
      assert.notDeepEqual(scanner.scan(bytes), [], String(form));
    }
  }
  const masked = [
    '990001*********0123',
    '9900011234',
    '4567890123',
    randomDigits(12),
    pin.toString('hex').slice(0, 15),
  ];
  assert.deepEqual(scanner.scan(Buffer.from(masked.join(' '))), []);
});

test('a mixed load, card files, changes, questions and faulty messages go through the cluster', async () => {
  await importCards();
  await askAndChange();
  const summary = await load(cluster, { count: 600, journalFile: join(cluster.folder, 'load.journal.jsonl') });
  assert.ok(summary.clean, JSON.stringify(summary));
  await sendSensitiveFields();
  await sendFaultyMessages();
  for (const args of [['status', '--json'], ['compare'], ['config', 'list', '--all-nodes']]) {
    assert.equal((await run(args)).code, 0, args.join(' '));
  }
  await askMonitors();
  const { stdout } = await run(['tail', '--no-follow', '--since', '1h']);
  assert.match(stdout, / n1 +info +leads the group +event=elected /);
});

test('none of it is found in what went over the brokers, on disk or in what was printed, but for one that was planted', async (context) => {
  const scanner = new CardDataScanner(secrets);
  const planted = cards[0]?.pan.reveal() ?? '';
  const subject = `q.admin.n1.${operatorId}`;
  const operator = await connectToBroker(cluster, operatorId);
  operator.publish(subject, `{"pan":"${planted}"}`);
  await operator.flush();
  await until('the auditor hears the planted number', () => {
    return overheard.some((message) => message.subject === subject && message.payload.includes(planted)) || undefined;
  });
  await cluster.running.stop();

  const found = overheard.filter((message) => scanner.scan(message.payload).length > 0);
  assert.deepEqual(found, [{ subject, payload: Buffer.from(`{"pan":"${planted}"}`) }]);
  assert.deepEqual(scanner.scan(Buffer.from(overheard.map((message) => message.subject).join('\n'))), []);
  for (const channel of ['raft', 'forward', 'call', 'admin']) {
    assert.ok(
      overheard.some((message) => message.subject.startsWith(`q.${channel}.`)),
      channel,
    );
  }
  const files = filesBelow(cluster.dataFolder);
  for (const name of ['group-a.db', 'config.db', 'consensus.db', 'node.log', 'output.log', 'nats.log']) {
    assert.ok(
      files.some((file) => file.endsWith(`/${name}`)),
      name,
    );
  }
  let bytes = 0;
  for (const file of [...files, join(cluster.folder, 'load.journal.jsonl')]) {
    const content = readFileSync(file);
    bytes += content.length;
    assert.deepEqual(scanner.scan(content), [], file);
  }
  assert.deepEqual(scanner.scan(Buffer.from(printed.join('\n'))), []);
  context.diagnostic(
    `${secrets.length} secrets, ${overheard.length} messages, ${files.length} files of ${bytes} bytes`,
  );

  for (const name of ['n3/node.log', 'n2/group-b.db', 'w1/output.log']) {
    const file = join(cluster.dataFolder, name);
    appendFileSync(file, planted);
    assert.notDeepEqual(scanner.scan(readFileSync(file)), [], name);
  }
});

/** What every process tells monitoring, which is looked through with everything that was printed. */
async function askMonitors(): Promise<void> {
  const { nodes, witness } = cluster.topology;
  for (const { id, monitor } of [...nodes, ...(witness === undefined ? [] : [witness])]) {
    assert.ok(monitor !== undefined, id);
    const ask = async (path: string): Promise<string> => {
      const response = await fetch(`http://${monitor.host}:${monitor.port}${path}`);
      const text = await response.text();
      printed.push(text);
      assert.equal(response.status, 200, `${id} ${path}: ${text}`);
      return text;
    };
    assert.equal(await ask('/livez'), 'alive\n');
    // On a busy machine a group may be without its owner for a moment.
    await until(`${id} is ready`, async () => {
      const response = await fetch(`http://${monitor.host}:${monitor.port}/readyz`);
      printed.push(await response.text());
      return response.status === 200 ? true : undefined;
    });
    const metrics = await ask('/metrics');
    const counted = (pattern: RegExp): number => Number(pattern.exec(metrics)?.[1] ?? Number.NaN);
    assert.ok(counted(/^quadrant_loop_delay_seconds_count\{thread="consensus"\} (\d+)$/m) > 0, metrics);
    assert.ok(counted(/^quadrant_group_commit_seconds_count (\d+)$/m) > 0, metrics);
    if (id === witness?.id) continue;
    assert.ok(counted(/^quadrant_requests_total\{mti="0100"\} (\d+)$/m) > 0, metrics);
    assert.ok(counted(/^quadrant_durable_seconds_count (\d+)$/m) > 0, metrics);
  }
}

// ---- what is done to the cluster -------------------------------------------------------------------------------------

async function importCards(): Promise<void> {
  const fresh = Array.from({ length: 40 }, (_, index) =>
    secretCard('imported card', withCheckDigit(`99000${1 + (index % 8)}${randomDigits(9)}`)),
  );
  const wrongCheckDigit = secretCard(
    'card with a wrong check digit',
    `${fresh[0]?.slice(0, -1) ?? ''}${(Number(fresh[0]?.at(-1)) + 1) % 10}`,
  );
  const outside = secretCard('card of no range', withCheckDigit(`4761${randomDigits(11)}`));
  const file = join(cluster.folder, 'issuer.csv');
  const lines = [
    'pan,expiry,status,currency,limit',
    ...fresh.map((pan) => `${pan},3512,active,840,500000`),
    `${wrongCheckDigit},3512,active,840,500000`,
    `${outside},3512,active,840,500000`,
    `3512,${fresh[1] ?? ''},active,840,500000`,
    `"${fresh[2] ?? ''},3512,active,840,500000`,
    `${fresh[3] ?? ''}${fresh[4] ?? ''},3512,active,840,500000`,
  ];
  writeFileSync(file, lines.join('\n'));
  const { code, stdout } = await run(['cards', 'import', file, '--node', 'n2']);
  assert.equal(code, 1, stdout);
  assert.match(stdout, /45 lines: 40 cards added, .* 5 bad/);
}

async function askAndChange(): Promise<void> {
  const [first, second] = cards.map(({ pan }) => pan.reveal());
  assert.ok(first !== undefined && second !== undefined);
  const nowhere = secretCard('card that is not on file', withCheckDigit(`990001${randomDigits(9)}`));
  const track = secretTrack2(first, '3508');
  for (const [args, input, code] of [
    [['config', 'explain', first, '--node', 'n3'], '', 0],
    [['config', 'explain', '-', '--json'], `${second}\n`, 0],
    [['config', 'explain', `${first}${second}`], '', 2],
    [['cards', 'set', '-', '--limit', '17000000', '--node', 'n4'], first, 0],
    [['cards', 'get', first, '--node', 'n3'], '', 0],
    [['cards', 'history', '-', '--json'], first, 0],
    [['cards', 'restrict', '-', '--status', 'stolen', '--node', 'n3'], second, 0],
    [['cards', 'set', '-', '--status', 'active', '--node', 'n4'], second, 0],
    [['cards', 'add', first, '--expiry', '3512', '--currency', '840', '--limit', '1'], '', 1],
    [['cards', 'set', first, '--limit', '1', '--replaces', '1'], '', 1],
    [['cards', 'lift', first, '--restriction', second], '', 1],
    [['cards', 'replace', first, second, '--expiry', '3512'], '', 1],
    [['cards', 'set', second, '--status', first], '', 2],
    [['cards', 'set', nowhere, '--status', 'lost'], '', 1],
    [['send', '--to', 'n4', '--pan', first, '--amount', '100', '--currency', '840', '--show-request'], '', 0],
    [['send', '--to', 'n3', '--track2', track, '--amount', '100', '--currency', '840', '--json'], '', 0],
    [['send', '--to', first, '--pan', second, '--amount', '100'], '', 2],
  ] as const) {
    const result = await run(args, input);
    assert.equal(result.code, code, `${args.slice(0, 2).join(' ')}: ${result.stdout}${result.stderr}`);
  }
}

/** At every node for a card of every range: card from DE 35, PIN block, chip data, private data. */
async function sendSensitiveFields(): Promise<void> {
  await Promise.all(
    cluster.topology.nodes.map(async ({ id }) => {
      const connection = await connectTo(cluster, id);
      for (const card of cards) {
        const digits = card.pan.reveal();
        const track = secretTrack2(digits, card.expiry);
        const additional = `CVV2 OF TEST ${secretDigits('DE 48', 20)}`;
        const chip = [
          { tag: '57', value: Buffer.from(`${track.replace('=', 'D')}0000`.slice(0, 36), 'hex') },
          { tag: '5A', value: Buffer.from(digits.padEnd(20, 'F'), 'hex') },
          { tag: '9F26', value: secretBytes('cryptogram', 8) },
        ];
        const sensitive = { 35: track, 48: additional, 52: secretBytes('PIN block', 8), 55: chip };
        for (const [mti, fields] of [
          ['0100', { 2: undefined, 14: undefined, ...sensitive }],
          ['0200', sensitive],
          ['0220', { 38: 'ABC123', ...sensitive }],
          ['0400', { ...sensitive }],
        ] as const) {
          const answer = await ask(connection, purchase(card, fields, mti));
          assert.equal(textOf(answer, 39), mti === '0400' ? '25' : '00', mti);
        }
      }
      await connection.close();
    }),
  );
}

function secretDigits(label: string, count: number): string {
  const text = randomDigits(count);
  secrets.push({ label, text });
  return text;
}

/** Numbers where they do not belong, and frames that are no message. Answered or not, nothing may be kept. */
async function sendFaultyMessages(): Promise<void> {
  const [card] = cards;
  const short = cards.find(({ pan }) => pan.reveal().length === 15);
  assert.ok(card !== undefined && short !== undefined);
  const digits = card.pan.reveal();
  const unknown = Pan.parse(secretCard('unknown card', withCheckDigit(`990001${randomDigits(9)}`)));
  const elsewhere = Pan.parse(secretCard('card of an unknown range', withCheckDigit(`4761${randomDigits(11)}`)));
  assert.ok(unknown !== undefined && elsewhere !== undefined);
  const of = (pan: Pan): SampleCard => ({ ...card, pan });
  const misplaced: readonly (readonly [SampleCard, Record<number, FieldValue | undefined>, string])[] = [
    [of(unknown), {}, '14'],
    [of(elsewhere), {}, '92'],
    [card, { 14: '1901' }, '54'],
    [card, { 43: digits.padEnd(40) }, '00'],
    [card, { 48: digits, 60: digits, 61: digits, 62: digits, 63: digits }, '00'],
    [card, { 102: digits, 103: digits }, '00'],
    [card, { 54: digits }, '00'],
    [card, { 35: secretTrack2(withCheckDigit(`990002${randomDigits(9)}`), '3508') }, '30'],
    [card, { 2: undefined, 48: digits }, '30'],
    [card, { 3: undefined, 60: digits }, '30'],
    [card, { 90: `${digits}${digits}`.padEnd(42, '0') }, '30'],
    [short, { 42: short.pan.reveal() }, '30'],
  ];
  for (const { id } of cluster.topology.nodes) {
    const connection = await connectTo(cluster, id);
    for (const [whose, fields, expected] of misplaced) {
      const answer = await ask(connection, purchase(whose, fields));
      assert.equal(textOf(answer, 39), expected, `fields ${Object.keys(fields).join()}`);
    }
    await connection.close();
  }
  const head = (mti: string, bits: readonly number[]): Buffer => {
    const bitmap = Buffer.alloc(8);
    for (const bit of bits)
      bitmap.writeUInt8(bitmap.readUInt8((bit - 1) >> 3) | (0x80 >> ((bit - 1) & 7)), (bit - 1) >> 3);
    return Buffer.concat([Buffer.from(mti), bitmap]);
  };
  const seven = transmissionDateAndTime(0);
  const text = (value: string): Buffer => Buffer.from(value);
  const frames = [
    text(digits),
    text(`0100${digits}`),
    text(`POST / HTTP/1.1\r\n\r\n{"pan":"${digits}"}`),
    Buffer.concat([head('0110', [2, 3, 7, 11]), text(`16${digits}000000${seven}${nextStan()}`)]),
    Buffer.concat([head('0500', [2, 3, 7, 11]), text(`16${digits}000000${seven}${nextStan()}`)]),
    Buffer.concat([head('0100', [2, 3, 7, 11]), text(`20${digits}0000000000${seven}${nextStan()}`)]),
    Buffer.concat([
      head('0100', [2, 3, 4, 7, 11]),
      text(`16${digits}000000${digits.slice(0, 11)}x${seven}${nextStan()}`),
    ]),
    Buffer.concat([head('0100', [2, 7, 11]), text(`16${digits}${seven}${nextStan()}${digits}`)]),
    Buffer.concat([head('0100', [3, 7, 11]), text(`${digits}${digits}`)]),
    Buffer.concat([head('0100', [2, 7, 11, 64]), text(`16${digits}${seven}`)]),
    Buffer.concat([head('0800', [2, 7, 11]), text(`16${digits}${seven}${nextStan()}`)]),
  ];
  for (const { acquirer } of cluster.topology.nodes) {
    const socket = connectSocket(acquirer);
    const closed = once(socket, 'close');
    socket.on('error', () => undefined).resume();
    // The last one announces more than a frame may have: the node ends the connection, and has seen all before.
    socket.write(
      Buffer.concat([...frames.map((bytes) => frame(bytes, length2)), Buffer.from([0xff, 0xff]), text(digits)]),
    );
    await closed;
  }
}

function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
