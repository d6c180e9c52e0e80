import assert from 'node:assert/strict';
import { createReadStream, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Pan } from '../base/pan.ts';
import { realClock, realRandom } from '../base/real.ts';
import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import { textOf, transmissionDateAndTime } from '../cli/acquirer/message-parts.ts';
import type { ImportSummary } from '../cli/commands/cards-import.ts';
import type { LedgerCard } from '../cli/node/operations.ts';
import { readCardFile } from '../config-db/card-file.ts';
import type { CardFileCard } from '../config-db/card-file.ts';
import { unpack } from '../switch/iso8583/codec.ts';
import type { FieldValue, IsoMessage } from '../switch/iso8583/codec.ts';
import { Deframer, frame, length2 } from '../switch/iso8583/framing.ts';
import { iso87Ascii } from '../switch/iso8583/spec.ts';
import {
  ask,
  askAt,
  Cleanups,
  connectTo,
  firstCards,
  nextStan,
  processesNaming,
  purchase,
  quadrant,
  residentMegabytes,
  startTestCluster,
  until,
  withCheckDigit,
} from './harness.ts';
import type { CommandResult, SampleCard, TestCluster } from './harness.ts';

// What nobody should send to a port, put into a file or say on a command line; and everyone else is served meanwhile.

const cleanups = new Cleanups();
let cluster: TestCluster;
let card: SampleCard;

const partialFrameMs = 1_000;
const frameBytes = 8_192;

before(async () => {
  const settings = `timings: { partialFrameMs: ${partialFrameMs} }\nlimits: { frameBytes: ${frameBytes} }\n`;
  cluster = await startTestCluster(cleanups, { settings });
  const [first] = await firstCards();
  assert.ok(first !== undefined);
  card = first;
});

after(() => cleanups.run());

/** A connection that can send anything. */
class RawConnection {
  readonly socket: Socket;
  readonly answers: IsoMessage[] = [];
  isClosed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    const deframer = new Deframer(length2, 0xffff);
    socket.on('error', () => undefined);
    socket.on('close', () => (this.isClosed = true));
    socket.on('data', (chunk) => {
      for (const event of deframer.push(chunk)) {
        if (event.kind !== 'frame') continue;
        const unpacked = unpack(event.bytes, iso87Ascii);
        assert.ok(unpacked.kind === 'message');
        this.answers.push(unpacked.message);
      }
    });
  }

  static open(node = 'n1'): Promise<RawConnection> {
    const endpoint = cluster.topology.nodes.find(({ id }) => id === node)?.acquirer;
    assert.ok(endpoint !== undefined);
    return new Promise((resolve, reject) => {
      const socket = connect({ ...endpoint, noDelay: true });
      socket.once('error', reject).once('connect', () => {
        resolve(new RawConnection(socket));
      });
    });
  }

  /** DE 39 of the answer to the STAN. */
  async responseTo(stan: string): Promise<string> {
    const answer = await until(`STAN ${stan} is answered`, () =>
      this.answers.find((each) => textOf(each, 11) === stan),
    );
    return textOf(answer, 39);
  }

  async closed(): Promise<void> {
    await until('the node ends the connection', () => this.isClosed || undefined);
  }
}

/** A frame whose fields stand as they are given, lengths before them included: nothing is checked. */
function rawFrame(mti: string, fields: Readonly<Record<number, string>>): Buffer {
  const numbers = Object.keys(fields).map(Number);
  const bitmap = Buffer.alloc(numbers.some((number) => number > 64) ? 16 : 8);
  for (const bit of bitmap.length === 16 ? [1, ...numbers] : numbers) {
    const byte = (bit - 1) >> 3;
    bitmap.writeUInt8(bitmap.readUInt8(byte) | (0x80 >> ((bit - 1) & 7)), byte);
  }
  const contents = Object.values(fields).map((text) => Buffer.from(text, 'latin1'));
  return frame(Buffer.concat([Buffer.from(mti), bitmap, ...contents]), length2);
}

/** The fields of a 0100 that would be approved, in rawFrame's form. */
function goodFields(stan: string, changes: Readonly<Record<number, string>> = {}): Readonly<Record<number, string>> {
  const digits = card.pan.reveal();
  return {
    2: `${digits.length}${digits}`,
    3: '000000',
    4: '000000001234',
    7: transmissionDateAndTime(realClock.wallMs()),
    11: stan,
    14: card.expiry,
    32: '06900001',
    37: `BAD000${stan}`,
    41: 'E2ETERM9',
    42: 'E2EMERCHANT0009',
    49: card.currency,
    ...changes,
  };
}

async function serves(node = 'n1'): Promise<void> {
  assert.equal(textOf(await askAt(cluster, node, purchase(card)), 39), '00');
}

test('a frame of length 0 is a poll, and the connection goes on; one byte at a time is a message too', async () => {
  const connection = await RawConnection.open();
  const stan = nextStan();
  connection.socket.write(Buffer.alloc(6));
  for (const byte of rawFrame('0100', goodFields(stan))) connection.socket.write(Buffer.from([byte]));
  assert.equal(await connection.responseTo(stan), '00');
  connection.socket.destroy();
});

test('a frame that announces more than the limit ends its connection, and that one alone', async () => {
  const neighbour = await connectTo(cluster, 'n1');
  for (const length of [0xffff, frameBytes + 1]) {
    const connection = await RawConnection.open();
    const header = Buffer.alloc(2);
    header.writeUInt16BE(length);
    connection.socket.write(Buffer.concat([header, Buffer.from('0100')]));
    await connection.closed();
    assert.equal(textOf(await ask(neighbour, purchase(card)), 39), '00');
  }
  await neighbour.close();
});

test('a frame of the longest length that is no message gets no answer, and the next message does', async () => {
  const connection = await RawConnection.open();
  const stan = nextStan();
  connection.socket.write(frame(realRandom.bytes(frameBytes), length2));
  connection.socket.write(rawFrame('0100', goodFields(stan)));
  assert.equal(await connection.responseTo(stan), '00');
  assert.equal(connection.answers.length, 1);
  connection.socket.destroy();
});

test('who sends a byte now and then loses the connection after a while, and holds nobody up', async () => {
  const slow = await RawConnection.open();
  const neighbour = await connectTo(cluster, 'n1');
  const bytes = [...rawFrame('0100', goodFields(nextStan()))];
  // Each byte in time, the frame never.
  const trickle = (): void => {
    const byte = bytes.shift();
    if (byte === undefined || slow.isClosed) return;
    slow.socket.write(Buffer.from([byte]));
    realClock.after(partialFrameMs / 5, trickle);
  };
  trickle();
  let served = 0;
  await until('the slow connection is ended', async () => {
    assert.equal(textOf(await ask(neighbour, purchase(card)), 39), '00');
    served += 1;
    return slow.isClosed || undefined;
  });
  assert.ok(served > 5 && bytes.length > 0 && slow.answers.length === 0);
  await neighbour.close();
});

test('a thousand silent connections are kept while others are served', async () => {
  const silent = await Promise.all(Array.from({ length: 1_000 }, () => RawConnection.open('n2')));
  await until('n2 counts them', async () => ((await statusOf('n2'))?.connections ?? 0) >= 1_000 || undefined);
  const connection = await connectTo(cluster, 'n2');
  const answers = await Promise.all(Array.from({ length: 100 }, () => ask(connection, purchase(card))));
  assert.ok(answers.every((answer) => textOf(answer, 39) === '00'));
  await connection.close();
  assert.ok(silent.every(({ isClosed }) => !isClosed));
  for (const { socket } of silent) socket.destroy();
  await until('n2 has forgotten them', async () => (await statusOf('n2'))?.connections === 0 || undefined);
});

async function statusOf(node: string) {
  const id = cluster.topology.nodes.find((each) => each.id === node)?.id;
  assert.ok(id !== undefined);
  return cluster.bus.status(id);
}

const unknownField = Array.from({ length: 127 }, (_, index) => 128 - index).find((bit) => !iso87Ascii.fields.has(bit));

for (const [what, changes] of [
  ['the bit of a field that the dialect does not have', { [unknownField ?? 0]: 'x' }],
  ['an LLVAR over its maximum', { 32: '12900001900001' }],
  ['an LLVAR whose length is no number', { 33: 'x1' }],
  ['letters in an amount', { 4: '0000000O1234' }],
  ['a minus in an amount', { 4: '-00000001234' }],
  ['a card number of 12 digits', { 2: '12990001000001' }],
  ['a card number of 20 digits', { 2: '2099000100000000000019' }],
  ['letters in the card number', { 2: '16990001000000001X' }],
  ['a field that is cut off', { 49: '84' }],
] as const) {
  test(`${what} is answered 30, and the connection goes on`, async () => {
    const connection = await RawConnection.open('n3');
    const [stan, next] = [nextStan(), nextStan()];
    connection.socket.write(rawFrame('0100', goodFields(stan, changes)));
    connection.socket.write(rawFrame('0100', goodFields(next)));
    assert.equal(await connection.responseTo(stan), '30');
    assert.equal(await connection.responseTo(next), '00');
    connection.socket.destroy();
  });
}

test('every decline has its response code, at whichever node', async () => {
  const byStatus = new Map<string, CardFileCard>();
  for await (const line of readCardFile(createReadStream(sampleCardFile) as AsyncIterable<Buffer>)) {
    if (line.kind !== 'card') continue;
    const { status, expiry, pan } = line.card;
    const name = status === 'active' && expiry < '2601' ? 'expired' : status;
    if (pan.reveal().startsWith('990002') && !byStatus.has(name)) byStatus.set(name, line.card);
  }
  const of = (name: string): CardFileCard => byStatus.get(name) ?? assert.fail(name);
  const numbered = (digits: string): CardFileCard => ({
    ...of('active'),
    pan: Pan.parse(digits) ?? assert.fail(digits),
  });
  const wrongDigit = card.pan.reveal().replace(/.$/, (last) => String((Number(last) + 1) % 10));
  const cases: readonly (readonly [string, CardFileCard, Record<number, FieldValue>, string])[] = [
    ['approved', of('active'), {}, '00'],
    ['a card of no range', numbered(withCheckDigit('476173900101011')), {}, '92'],
    ['a card that is not on file', numbered(withCheckDigit('990002123456789')), {}, '14'],
    ['a wrong check digit', numbered(wrongDigit), {}, '14'],
    ['another currency', of('active'), { 49: of('active').currency === '826' ? '756' : '826' }, '57'],
    ['no currency at all', of('active'), { 49: '000' }, '57'],
    ['an expired card', of('expired'), {}, '54'],
    ['an expiry that is not the card’s', of('active'), { 14: '2001' }, '54'],
    ['a month 13', of('active'), { 14: '3513' }, '54'],
    ['a lost card', of('lost'), {}, '41'],
    ['a stolen card', of('stolen'), {}, '43'],
    ['a blocked card', of('blocked'), {}, '62'],
    ['an amount of nothing', of('active'), { 4: '000000000000' }, '13'],
    ['a processing code of no profile', of('active'), { 3: '990000' }, '57'],
    ['more than the limit', of('active'), { 4: '999999999999' }, '61'],
  ];
  for (const { id } of cluster.topology.nodes) {
    const connection = await connectTo(cluster, id);
    for (const [name, whose, fields, expected] of cases) {
      assert.equal(textOf(await ask(connection, purchase(whose, fields)), 39), expected, `${name} at ${id}`);
    }
    await connection.close();
  }
});

// ---- card files ------------------------------------------------------------------------------------------------------

const header = 'pan,expiry,status,currency,limit';

function freshCard(): string {
  const digits = Array.from({ length: 9 }, () => realRandom.below(10)).join('');
  return withCheckDigit(`99000${1 + realRandom.below(8)}${digits}`);
}

async function importFile(
  content: string | Buffer,
): Promise<{ code: number | null; summary: ImportSummary | undefined; stderr: string; all: string }> {
  const file = join(cluster.folder, 'issuer.csv');
  writeFileSync(file, content);
  const { code, stdout, stderr } = await quadrant(cluster, ['cards', 'import', file, '--node', 'n3', '--json']);
  const summary = stdout === '' ? undefined : (JSON.parse(stdout) as ImportSummary);
  return { code, summary, stderr, all: stdout + stderr };
}

test('a card file with a byte order mark, CRLF and quotes loads, every bad line is reported, and again it changes nothing', async () => {
  const good = Array.from({ length: 6 }, freshCard);
  const [a = '', b = '', c = '', d = '', e = '', f = ''] = good;
  const bad = freshCard();
  const lines: readonly (readonly [string, RegExp | undefined])[] = [
    [`${a},3512,active,840,500000`, undefined],
    [`"${b}","3512","active","USD","500000"`, undefined],
    [`${bad.slice(0, 12)},3512,active,840,1`, /^pan: 12 digits, expected 13 to 19$/],
    [`${bad}0000,3512,active,840,1`, /^pan: 20 digits, expected 13 to 19$/],
    [`${bad.slice(0, -1)}${(Number(bad.at(-1)) + 1) % 10},3512,active,840,1`, /^pan: wrong check digit$/],
    [`${c},3512,LOST,978,500000`, undefined],
    [`${bad},3513,active,840,1`, /^expiry: expected YYMM with a month of 01 to 12$/],
    [`${bad},3512,happy,840,1`, /^status: expected active, /],
    [`${bad},3512,active,999999,1`, /^currency: not a known ISO 4217 code$/],
    [`${bad},3512,active,840,1.5`, /^limit: expected whole minor units, /],
    [`${bad},3512,active,840`, /^4 fields, expected 5$/],
    ['', undefined],
    [`${bad},"3512,active,840,1`, /^a quote is not closed on its line$/],
    [`${bad},3512,active,840,1${'0'.repeat(600)}`, /^longer than 512 bytes$/],
    ['\u0000\u0001\u0002\u00ff,\u0003', /^2 fields, expected 5$/],
    [withCheckDigit('476173900101011') + ',3512,active,840,1', /^no range has a prefix of this card number$/],
    [`${d},3512,active,392,500000`, undefined],
    [`${e},3512,active,840,0`, undefined],
    [`${f},3512,active,840,999999999999`, undefined],
  ];
  const expected = lines.flatMap(([, reason], index) => (reason === undefined ? [] : [{ line: index + 2, reason }]));
  const text = `\ufeff${[header.toUpperCase(), ...lines.map(([line]) => line)].join('\r\n')}\r\n`;
  const { code, summary, all } = await importFile(text);
  assert.equal(code, 1);
  const counts = ({ added, changed, unchanged, keptRestriction }: ImportSummary) => [
    added,
    changed,
    unchanged,
    keptRestriction,
  ];
  assert.ok(summary !== undefined);
  assert.deepEqual(counts(summary), [6, 0, 0, 0]);
  const reported = [...summary.bad].sort((left, right) => left.line - right.line);
  assert.deepEqual(
    reported.map(({ line }) => line),
    expected.map(({ line }) => line),
  );
  reported.forEach(({ line, reason }, index) => {
    assert.match(reason, expected[index]?.reason ?? /^never$/, `line ${line}`);
  });
  for (const pan of [...good, bad]) assert.ok(!all.includes(pan));

  for (const { id } of cluster.topology.nodes) {
    await until(`${id} has the cards`, async () => {
      const rows = (await cluster.bus.call(id, 'ledger.cards', { pans: good })) as LedgerCard[];
      return rows.every(({ found }) => found) || undefined;
    });
  }
  assert.equal(
    textOf(
      await askAt(cluster, 'n1', purchase({ pan: Pan.parse(a) ?? card.pan, expiry: '3512', currency: '840' })),
      39,
    ),
    '00',
  );

  const before = await logEnds();
  const again = await importFile(text);
  assert.ok(again.summary !== undefined);
  assert.deepEqual([again.code, ...counts(again.summary), again.summary.enteredBefore], [1, 0, 0, 0, 0, 7]);
  assert.deepEqual(again.summary.bad.length, summary.bad.length - 1);
  const results = readFileSync(summary.results, 'utf8');
  assert.equal(results.trimEnd().split('\n').length - 2, summary.lines);
  for (const pan of [...good, bad]) assert.ok(!results.includes(pan));
  assert.deepEqual(await logEnds(), before);
});

/** Last index of every group's log, at its leader. */
async function logEnds(): Promise<Readonly<Record<string, number>>> {
  const statuses = await Promise.all(cluster.topology.nodes.map(({ id }) => cluster.bus.status(id)));
  const led = statuses.flatMap((status) => (status?.groups ?? []).filter(({ role }) => role === 'leader'));
  return Object.fromEntries(led.map(({ name, last }) => [name, last]));
}

test('a file with nothing usable at its head is refused as a whole, in a sentence', async () => {
  for (const [content, reason] of [
    ['', /the file is empty/],
    ['\r\n\r\n', /the file is empty/],
    [`${freshCard()},3512,active,840,1\n`, /line 1: column 1 is not a column of card files/],
    [Buffer.concat([Buffer.from([0x7f, 0x45, 0x4c, 0x46]), realRandom.bytes(2_000)]), /card file, line 1: /],
    [Buffer.from(`\ufeff${header}\n`, 'utf16le'), /line 1: UTF-16 text, not UTF-8/],
  ] as const) {
    const { code, summary, stderr } = await importFile(content);
    assert.deepEqual([code, summary], [1, undefined]);
    assert.match(stderr, reason);
  }
  const { code, summary } = await importFile(`${header}\n`);
  assert.deepEqual([code, summary?.lines], [0, 0]);
});

test('a line without end is passed over in constant memory, and the cards before it are loaded', async () => {
  const file = join(cluster.folder, 'endless.csv');
  writeFileSync(file, `${header}\n${freshCard()},3512,active,840,1\n`);
  // The rest is a hole: nothing but zeros, and no disk.
  truncateSync(file, process.env['QUADRANT_FULL'] === '1' ? 2 ** 31 : 2 ** 29);
  let most = 0;
  let result: CommandResult | undefined;
  void quadrant(cluster, ['cards', 'import', file]).then((ended) => (result = ended));
  const { code, stdout } = await until(
    'the import ends',
    () => {
      for (const pid of processesNaming(file)) most = Math.max(most, residentMegabytes(pid) ?? 0);
      return result;
    },
    150_000,
  );
  assert.equal(code, 1);
  assert.match(stdout, /^line 3: longer than 512 bytes\n2 lines: 1 cards added, .* 1 bad\n$/);
  assert.ok(most > 0 && most < 350, `${most} MB`);
});

// ---- command lines ---------------------------------------------------------------------------------------------------

test('a command line that cannot be meant is answered in a sentence and exit code 2', async () => {
  const pan = card.pan.reveal();
  const lines: readonly (readonly string[])[] = [
    ['nonsense'],
    ['status', '--bogus'],
    ['send', '--to', 'n9', '--pan', pan, '--amount', '1'],
    ['send', '--pan', pan.slice(0, 12), '--amount', '1'],
    ['load', '--rate', 'fast'],
    ['load', '--mix', 'purchases=1'],
    ['cards', 'set', pan],
    ['cards', 'import', 'there-is-no-such-file.csv'],
    ['config', 'explain', '12'],
    ['compare', '--groups', 'zz'],
    ['node', 'start', 'n9'],
  ];
  for (const line of lines) {
    const { code, stdout, stderr } = await quadrant(cluster, line);
    assert.equal(code, 2, `${line.join(' ')}: ${stdout}${stderr}`);
    assert.match(stderr, /^(?:quadrant|error)[ :]/, line.join(' '));
    assert.doesNotMatch(stderr, /\n {4}at /, line.join(' '));
    assert.ok(!stderr.includes(pan), line.join(' '));
  }
});

test('after all this every node serves', async () => {
  for (const { id } of cluster.topology.nodes) await serves(id);
  assert.equal((await quadrant(cluster, ['compare'])).code, 0);
});

test('a cluster, or one node of it, that cannot be reached gives exit code 4', async () => {
  await cluster.running.kill('n4', 'SIGKILL');
  const { code, stdout } = await quadrant(cluster, ['status']);
  assert.equal(code, 4);
  assert.match(stdout, /^n4 +west +unreachable/m);
  await cluster.running.stop();
  for (const line of [
    ['status'],
    ['compare'],
    ['config', 'list'],
    ['cards', 'set', card.pan.reveal(), '--limit', '1'],
  ]) {
    const result = await quadrant(cluster, line);
    assert.equal(result.code, 4, `${line[0] ?? ''}: ${result.stdout}${result.stderr}`);
  }
});
