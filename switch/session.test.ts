import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { answerMti, buildAnswer, buildRefusal, expectsAnswer } from './answer.ts';
import { pack, unpack, type FieldValue, type IsoMessage } from './iso8583/codec.ts';
import { goldenBytes, goldenMessages } from './iso8583/golden-messages.ts';
import { iso87Ascii } from './iso8583/spec.ts';
import { Session } from './session.ts';
import { pan } from './testing.ts';

type Fields = Readonly<Record<number, FieldValue | undefined>>;

function messageOf(mti: string, fields: Fields): IsoMessage {
  const present = new Map<number, FieldValue>();
  for (const [number, value] of Object.entries(fields)) if (value !== undefined) present.set(Number(number), value);
  return { mti, fields: present };
}

function bytesOf(message: IsoMessage): Buffer {
  const packed = pack(message, iso87Ascii);
  assert.equal(packed.kind, 'packed');
  return packed.bytes;
}

function purchase(mti = '0100', changes: Fields = {}): Buffer {
  const fields = { 2: pan.reveal(), 3: '000000', 4: '000000005000', 7: '0301120000', 11: '000001', 49: '840' };
  return bytesOf(messageOf(mti, { ...fields, ...changes }));
}

function network(code: string | undefined, mti = '0800'): Buffer {
  return bytesOf(messageOf(mti, { 7: '0301120000', 11: '000009', 70: code }));
}

/** A session whose owner approves everything, or what `respond` says. */
class Bench {
  readonly handled: IsoMessage[] = [];
  readonly oddities: string[] = [];
  readonly closed: string[] = [];
  readonly counted: string[] = [];
  readonly signs: boolean[] = [];
  readonly respond: ((answer: IsoMessage) => void)[] = [];
  answering: 'at once' | 'later' = 'at once';
  readonly session = new Session({
    link: 'link-1',
    spec: iso87Ascii,
    handle: (message, link, respond) => {
      assert.equal(link, 'link-1');
      this.handled.push(message);
      if (this.answering === 'later') this.respond.push(respond);
      else respond(buildRefusal(message, '00'));
    },
    close: (reason) => this.closed.push(reason),
    onOddity: (kind, detail) => this.oddities.push(`${kind}: ${detail}`),
    meter: {
      request: (mti) => this.counted.push(mti),
      answer: (mti, responseCode) => this.counted.push(`${mti} ${responseCode}`),
    },
    onSign: (on) => this.signs.push(on),
  });

  /** MTI and DE 39 of the answer; `nothing` when there is none; each frame calls back exactly once. */
  receive(frame: Buffer): string {
    const answers: (Buffer | undefined)[] = [];
    this.session.receive(frame, (answer) => answers.push(answer));
    assert.equal(answers.length, 1);
    const [answer] = answers;
    if (answer === undefined) return 'nothing';
    const unpacked = unpack(answer, iso87Ascii);
    assert.equal(unpacked.kind, 'message');
    const responseCode = unpacked.message.fields.get(39);
    assert.ok(typeof responseCode === 'string');
    return `${unpacked.message.mti} ${responseCode}`;
  }
}

describe('network messages', () => {
  for (const [name, code, answer] of [
    ['sign-on', '001', '00'],
    ['sign-off', '002', '00'],
    ['echo', '301', '00'],
    ['key exchange', '161', '12'],
    ['cutover', '201', '12'],
    ['no DE 70', undefined, '30'],
  ] as const) {
    test(`${name} gets ${answer}`, () => {
      assert.equal(new Bench().receive(network(code)), `0810 ${answer}`);
      assert.equal(new Bench().receive(network(code, '0801')), `0810 ${answer}`);
      assert.equal(new Bench().receive(network(code, '0820')), `0830 ${answer}`);
    });
  }
  test('echo DE 7, 11 and 70 and nothing else', () => {
    const message = messageOf('0800', { 7: '0301120000', 11: '000009', 48: 'x', 70: '301', 100: '1' });
    assert.deepEqual(
      [...buildRefusal(message, '00').fields],
      [
        [7, '0301120000'],
        [11, '000009'],
        [70, '301'],
        [39, '00'],
      ],
    );
  });
});

describe('a link', () => {
  test('need not sign on first', () => {
    assert.equal(new Bench().receive(purchase()), '0110 00');
  });
  test('that has signed off gets 91 until it signs on again, and may still test the line', () => {
    const bench = new Bench();
    bench.receive(network('002'));
    assert.equal(bench.receive(purchase()), '0110 91');
    assert.equal(bench.receive(purchase('0420')), '0430 91');
    assert.equal(bench.receive(network('301')), '0810 00');
    assert.equal(bench.receive(purchase()), '0110 91');
    bench.receive(network('001'));
    assert.equal(bench.receive(purchase()), '0110 00');
    assert.equal(bench.handled.length, 1);
  });
  test('gets the answers to what it asked before it signed off', () => {
    const bench = new Bench();
    bench.answering = 'later';
    const sent: unknown[] = [];
    bench.session.receive(purchase(), (answer) => sent.push(answer));
    bench.receive(network('002'));
    const [message] = bench.handled;
    assert.ok(message !== undefined);
    bench.respond[0]?.(buildRefusal(message, '00'));
    assert.equal(sent.length, 1);
  });
});

describe('a message', () => {
  for (const mti of ['0100', '0101', '0120', '0121', '0200', '0201', '0220', '0221', '0400', '0401', '0420', '0421']) {
    test(`${mti} goes to the owner as it came`, () => {
      const bench = new Bench();
      assert.equal(bench.receive(purchase(mti)), `${answerMti(mti)} 00`);
      assert.equal(bench.handled[0]?.mti, mti);
    });
  }
  for (const mti of ['0300', '0500', '0520', '0600', '0140', '0180']) {
    test(`${mti}, which nobody decides here, gets 12`, () => {
      const bench = new Bench();
      assert.equal(bench.receive(purchase(mti)), `${answerMti(mti)} 12`);
      assert.deepEqual(bench.handled, []);
    });
  }
  for (const mti of ['0110', '0130', '0210', '0430', '0810', '1100', '0000', '0900', '0102', '0109']) {
    test(`${mti} is no request: it gets no answer and is counted`, () => {
      const bench = new Bench();
      const bytes = purchase();
      bytes.write(mti, 'latin1');
      assert.equal(bench.receive(bytes), 'nothing');
      assert.equal(bench.oddities.length, 1);
      assert.match(bench.oddities[0] ?? '', /^(unmatched|unreadable): /);
      assert.deepEqual(bench.handled, []);
    });
  }
});

describe('a faulty message', () => {
  test('with readable MTI and STAN gets 30 and the echo of what could be read', () => {
    const bench = new Bench();
    const bytes = purchase();
    const at = bytes.indexOf('000000005000');
    bytes.write('0000000A5000', at, 'latin1');
    const sent: (Buffer | undefined)[] = [];
    bench.session.receive(bytes, (answer) => sent.push(answer));
    const unpacked = unpack(sent[0] ?? Buffer.alloc(0), iso87Ascii);
    assert.equal(unpacked.kind, 'message');
    assert.deepEqual(
      [...unpacked.message.fields],
      [
        [2, pan.reveal()],
        [3, '000000'],
        [7, '0301120000'],
        [11, '000001'],
        [39, '30'],
        [49, '840'],
      ],
    );
    assert.match(bench.oddities[0] ?? '', /^format-error: .*offset \d+.*DE 4/);
  });
  test('of the network gets 30 too', () => {
    const bytes = Buffer.concat([network('301'), Buffer.from('x')]);
    assert.equal(new Bench().receive(bytes), '0810 30');
  });
  test('without a STAN, or without an MTI, gets no answer', () => {
    for (const bytes of [purchase().subarray(0, 3), purchase().subarray(0, 12), Buffer.from('x'), Buffer.alloc(300)]) {
      const bench = new Bench();
      assert.equal(bench.receive(bytes), 'nothing');
      assert.match(bench.oddities[0] ?? '', /^unreadable: /);
    }
  });
  test('that is a response gets no answer: two switches would never stop', () => {
    const bytes = Buffer.concat([purchase('0110'), Buffer.from('x')]);
    assert.equal(new Bench().receive(bytes), 'nothing');
  });
  test('cut off anywhere gets 30 or nothing, never a decision, and no log line has the card', () => {
    const bench = new Bench();
    const bytes = purchase('0100', { 35: `${pan.reveal()}=2812` });
    for (let length = 0; length < bytes.length; length++) {
      assert.match(bench.receive(bytes.subarray(0, length)), /^(0110 30|nothing)$/);
    }
    assert.deepEqual(bench.handled, []);
    for (const line of bench.oddities) assert.ok(!line.includes(pan.reveal().slice(0, 12)), line);
  });
});

test('an answer that cannot be packed is reported and not sent, and the request counts as answered', () => {
  const bench = new Bench();
  bench.answering = 'later';
  const sent: unknown[] = [];
  bench.session.receive(purchase(), (answer) => sent.push(answer));
  bench.respond[0]?.(messageOf('0110', { 38: 'more than six' }));
  assert.deepEqual(sent, [undefined]);
  assert.match(bench.oddities[0] ?? '', /^unpackable-answer: /);
});

describe('an answer', () => {
  const full: Record<number, FieldValue> = Object.fromEntries(
    Array.from({ length: 127 }, (_, at) => [at + 2, `value of ${at + 2}`]),
  );
  const decided = { responseCode: '00', authorizationCode: '123456', additionalAmounts: 'amounts' };
  const echoed = [2, 3, 4, 7, 11, 12, 13, 15, 18, 32, 33, 37, 41, 42, 49, 63];

  test('echoes what it may and adds what was decided', () => {
    const { mti, fields } = buildAnswer(messageOf('0101', full), decided);
    assert.equal(mti, '0110');
    assert.deepEqual(
      [...fields.keys()].sort((a, b) => a - b),
      [...echoed, 38, 39, 54].sort((a, b) => a - b),
    );
    for (const number of echoed) assert.equal(fields.get(number), full[number]);
    assert.deepEqual([fields.get(38), fields.get(39), fields.get(54)], ['123456', '00', 'amounts']);
  });
  test('has no DE 38 and 54 when they are empty', () => {
    const { fields } = buildAnswer(messageOf('0100', full), {
      ...decided,
      authorizationCode: '',
      additionalAmounts: '',
    });
    assert.deepEqual([fields.has(38), fields.has(54)], [false, false]);
  });
  test("never echoes track, PIN, private data or the request's own DE 38, 39, 54", () => {
    for (const answer of [buildAnswer(messageOf('0100', full), decided), buildRefusal(messageOf('0100', full), '05')]) {
      for (const field of [14, 34, 35, 36, 45, 48, 52, 53, 55, 102])
        assert.ok(!answer.fields.has(field), String(field));
      assert.notEqual(answer.fields.get(39), full[39]);
      assert.notEqual(answer.fields.get(38), full[38]);
    }
  });
  test('echoes only what the request had', () => {
    const { fields } = buildRefusal(messageOf('0100', { 11: '000001' }), '30');
    assert.deepEqual([...fields.keys()], [11, 39]);
  });
  for (const [request, response] of [
    ['0100', '0110'],
    ['0101', '0110'],
    ['0120', '0130'],
    ['0121', '0130'],
    ['0200', '0210'],
    ['0221', '0230'],
    ['0400', '0410'],
    ['0401', '0410'],
    ['0421', '0430'],
    ['0800', '0810'],
    ['0820', '0830'],
  ] as const) {
    test(`to ${request} is ${response}, which expects none itself`, () => {
      assert.equal(answerMti(request), response);
      assert.ok(expectsAnswer(request));
      assert.ok(!expectsAnswer(response));
    });
  }
});

test('every golden message gets an answer or is a response', () => {
  for (const golden of goldenMessages) {
    const bench = new Bench();
    const answer = bench.receive(goldenBytes(golden));
    if (expectsAnswer(golden.mti)) assert.match(answer, new RegExp(`^${answerMti(golden.mti)} (00|12)$`), golden.name);
    else assert.equal(answer, 'nothing', golden.name);
  }
});

test('a connection that sends a hundred messages which cannot even be answered is closed', () => {
  const bench = new Bench();
  for (let count = 1; count <= 100; count++) {
    assert.deepEqual(bench.closed, [], `after ${count - 1}`);
    assert.equal(bench.receive(Buffer.from('0100')), 'nothing');
  }
  assert.deepEqual(bench.closed, ['100 unreadable messages']);
});

test('every message whose type could be read is counted, and every answer with its response code', () => {
  const bench = new Bench();
  for (const frame of [
    purchase(),
    network('001'),
    network('002'),
    purchase('0200'),
    Buffer.from('0100'),
    purchase('0110'),
  ]) {
    bench.receive(frame);
  }
  bench.receive(Buffer.concat([purchase(), Buffer.from('trailing')]));
  assert.deepEqual(bench.counted, [
    ...['0100', '0110 00', '0800', '0810 00', '0800', '0810 00', '0200', '0210 91'],
    ...['0110', '0100', '0110 30'],
  ]);
  assert.deepEqual(bench.signs, [true, false], 'and that the link signed on and off is told');
});
