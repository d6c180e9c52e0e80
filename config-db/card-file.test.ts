import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { SwitchError } from '../base/errors.ts';
import { readCardChanges, readCardFile, type CardFileLine } from './card-file.ts';
import { maximumLineBytes } from './csv-lines.ts';
import { cardStatuses } from '../store/card-status.ts';

const pan = '9900010000000019';
const header = 'pan,expiry,status,currency,limit';
const good = `${pan},3508,active,840,1000`;

async function* streamed(chunks: Iterable<Buffer>): AsyncGenerator<Buffer> {
  for (const chunk of chunks) {
    await Promise.resolve();
    yield chunk;
  }
}

function* chunksOf(content: Buffer, size: number): Generator<Buffer> {
  for (let start = 0; start < content.length; start += size) yield content.subarray(start, start + size);
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<CardFileLine[]> {
  const lines: CardFileLine[] = [];
  for await (const line of readCardFile(chunks)) lines.push(line);
  return lines;
}

function readAll(content: string | Buffer, size = 65_536): Promise<CardFileLine[]> {
  return collect(streamed(chunksOf(Buffer.from(content), size)));
}

/** `3 card`, `4 bad: reason`: what a reader of the report sees. */
function summary(lines: readonly CardFileLine[]): string[] {
  return lines.map((each) => (each.kind === 'card' ? `${each.line} card` : `${each.line} bad: ${each.reason}`));
}

async function summaryOf(content: string | Buffer): Promise<string[]> {
  return summary(await readAll(content));
}

describe('a good line', () => {
  test('gives the card', async () => {
    const [line] = await readAll(`${header}\n${good}\n`);
    assert.ok(line?.kind === 'card');
    assert.equal(line.line, 2);
    const { pan: read, ...rest } = line.card;
    assert.equal(read.reveal(), pan);
    assert.deepEqual(rest, { expiry: '3508', status: 'active', currency: '840', limitMinor: 1000n });
  });

  const same: [name: string, content: string][] = [
    ['columns in another order', `limit,currency,status,expiry,pan\n1000,840,active,3508,${pan}\n`],
    ['a byte order mark', `\ufeff${header}\n${good}\n`],
    ['CRLF', `${header}\r\n${good}\r\n`],
    ['CR alone', `${header}\r${good}\r`],
    ['no line end after the last line', `${header}\n${good}`],
    ['quotes', `"pan","expiry","status","currency","limit"\n"${pan}","3508","active","840","1000"\n`],
    ['some quotes', `${header}\n${pan},"3508",active,"840",1000\n`],
    ['an alphabetic currency', `${header}\n${pan},3508,active,USD,1000\n`],
    ['capitals', `PAN,Expiry,STATUS,currency,limit\n${pan},3508,Active,usd,1000\n`],
    ['leading zeros in the limit', `${header}\n${pan},3508,active,840,000000001000\n`],
  ];
  for (const [name, content] of same) {
    test(`gives the same card with ${name}`, async () => {
      assert.deepEqual(strip(await readAll(content)), strip(await readAll(`${header}\n${good}\n`)));
    });
  }

  function strip(lines: readonly CardFileLine[]): unknown[] {
    return lines.map((each) =>
      each.kind === 'card' ? { ...each, card: { ...each.card, pan: each.card.pan.reveal() } } : each,
    );
  }

  test('may have every status, and any limit that DE 4 can carry', async () => {
    const lines = cardStatuses.map((status) => `${pan},0012,${status},JPY,999999999999`);
    assert.deepEqual(
      (await readAll([header, ...lines].join('\n'))).map((each) => each.kind === 'card' && each.card.status),
      [...cardStatuses],
    );
  });
});

describe('a bad line is reported with its number and reason, without its content, and the rest is loaded:', () => {
  const bad: [name: string, line: string, reason: RegExp][] = [
    ['12 digits', '990001000018,3508,active,840,1', /^pan: 12 digits, expected 13 to 19$/],
    ['20 digits', '99000100000000000012,3508,active,840,1', /^pan: 20 digits/],
    ['no card number', ',3508,active,840,1', /^pan: 0 digits/],
    ['a masked card number', '990001******0019,3508,active,840,1', /^pan: not digits only$/],
    ['spaces in the card number', '9900 0100 0000 0019,3508,active,840,1', /^pan: not digits only$/],
    ['a wrong check digit', '9900010000000018,3508,active,840,1', /^pan: wrong check digit$/],
    ['month 13', `${pan},3513,active,840,1`, /^expiry: /],
    ['month 00', `${pan},3500,active,840,1`, /^expiry: /],
    ['an expiry of MM/YY', `${pan},08/35,active,840,1`, /^expiry: /],
    ['an unknown status', `${pan},3508,frozen,840,1`, /^status: expected active, blocked, closed, lost, stolen$/],
    ['no status', `${pan},3508,,840,1`, /^status: /],
    ['an unknown currency', `${pan},3508,active,XXX,1`, /^currency: /],
    ['a currency without its zero', `${pan},3508,active,36,1`, /^currency: /],
    ['a limit with decimals', `${pan},3508,active,840,10.00`, /^limit: expected whole minor units, 0 to 999999999999$/],
    ['a limit with a sign', `${pan},3508,active,840,-1`, /^limit: /],
    ['a limit of 2^53', `${pan},3508,active,840,9007199254740992`, /^limit: /],
    ['a limit with an exponent', `${pan},3508,active,840,1e3`, /^limit: /],
    ['no limit', `${pan},3508,active,840,`, /^limit: /],
    ['a space after a comma', `${pan}, 3508,active,840,1`, /^expiry: /],
    ['several faults', `x,y,active,840,z`, /^pan: .*; expiry: .*; limit: /],
    ['a field too few', `${pan},3508,active,840`, /^4 fields, expected 5$/],
    ['a field too many', `${pan},3508,active,840,1,`, /^6 fields, expected 5$/],
    ['another separator', `${pan};3508;active;840;1`, /^1 fields, expected 5$/],
    ['a quote that is not closed', `"${pan},3508,active,840,1`, /^a quote is not closed on its line$/],
    ['text after a closing quote', `"${pan}"x,3508,active,840,1`, /^text follows a closing quote$/],
    ['a quote inside a field', `9900"0100,3508,active,840,1`, /^a quote stands inside a field/],
    ['a doubled quote in a field', `"9900""01",3508,active,840,1`, /^pan: not digits only$/],
    ['binary', '\u0000\u0001\ufffd\u001b', /^1 fields/],
    ['a byte order mark in the middle', `\ufeff${good}`, /^pan: not digits only$/],
    ['full-width digits', `９９０００１００００００００１９,3508,active,840,1`, /^pan: not digits only$/],
    ['too long', `${good}${' '.repeat(maximumLineBytes)}`, /^longer than 512 bytes$/],
  ];
  for (const [name, line, reason] of bad) {
    test(name, async () => {
      const lines = await readAll(`${header}\n${good}\n${line}\n${good}\n`);
      assert.deepEqual(
        lines.map((each) => `${each.line} ${each.kind}`),
        ['2 card', '3 bad', '4 card'],
      );
      const reported = lines[1];
      assert.ok(reported?.kind === 'bad');
      assert.match(reported.reason, reason);
      assert.doesNotMatch(reported.reason.replace('999999999999', ''), /9900|3508/);
    });
  }

  test('empty and blank lines are skipped, and counted', async () => {
    assert.deepEqual(await summaryOf(`\n${header}\n\n  \t\n${good}\n\r\n\r${good}\n\n`), ['5 card', '8 card']);
  });
});

describe('a file without a usable header is refused with the line, without its content:', () => {
  const refused: [name: string, content: string | Buffer, message: RegExp][] = [
    ['empty', '', /^card file, line 1: the file is empty; expected a header of pan,expiry,status,currency,limit$/],
    ['a byte order mark alone', '\ufeff', /line 1: the file is empty/],
    ['blank lines alone', '\n\r\n', /the file is empty/],
    ['a card in the first line', `${good}\n`, /line 1: column 1 is not a column of card files/],
    ['an unknown column', `\n${header},name\n`, /line 2: column 6 is not a column/],
    ['a column twice', 'pan,expiry,status,currency,limit,pan', /two columns are named pan/],
    ['columns missing', 'pan,status,limit\n', /no column expiry, currency/],
    ['a broken quote', '"pan,expiry', /a quote is not closed/],
    ['UTF-16', Buffer.from(`\ufeff${header}\n`, 'utf16le'), /UTF-16 text, not UTF-8/],
    ['binary', Buffer.from(Array.from({ length: 300 }, (_, index) => (index * 89) & 0xff)), /line 1: /],
    ['one endless line', Buffer.alloc(1_000_000, 'x'), /line 1: longer than 512 bytes/],
  ];
  for (const [name, content, message] of refused) {
    test(name, async () => {
      await assert.rejects(readAll(content), (error) => {
        assert.ok(error instanceof SwitchError);
        assert.equal(error.code, 'CARD_FILE_HEADER_INVALID');
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /9900/);
        return true;
      });
    });
  }

  test('a header alone is a file of no cards', async () => {
    assert.deepEqual(await readAll(header), []);
  });
});

describe('chunks', () => {
  const mixed = `\ufeff${header}\r\n${good}\r\r\n"${pan}",3508,"lost",978,1\n\nbad\r\n${'y'.repeat(maximumLineBytes + 1)}\r\n${good}`;

  test('may end at any byte: every cut in two gives the same lines, and so does byte by byte', async () => {
    const content = Buffer.from(mixed);
    const whole = summary(await readAll(content));
    assert.deepEqual(
      whole.map((line) => line.slice(0, 6)),
      ['2 card', '4 card', '6 bad:', '7 bad:', '8 card'],
    );
    for (let cut = 1; cut < content.length; cut++) {
      const parts = [content.subarray(0, cut), Buffer.alloc(0), content.subarray(cut)];
      assert.deepEqual(summary(await collect(streamed(parts))), whole, `cut at ${cut}`);
    }
    assert.deepEqual(summary(await readAll(content, 1)), whole);
  });

  test('may hold anything: no content and no cut throws past the header, and each line is told at most once', async () => {
    const piece = fc.oneof(
      fc.constantFrom(good, '\n', '\r', '\r\n', '"', ',', '\u0000', pan, ' '),
      fc.string({ unit: 'binary', maxLength: 20 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 30 }), fc.integer({ min: 1, max: 40 }), async (pieces, size) => {
        const content = Buffer.from(`${header}\n${pieces.join('')}`);
        const lines = await readAll(content, size);
        assert.deepEqual(summary(lines), await summaryOf(content));
        lines.forEach((each, index) => {
          assert.ok(each.line > (lines[index - 1]?.line ?? 1));
        });
      }),
    );
  });

  test('come only as fast as lines are taken, and a long file is read in constant memory', async () => {
    let given = 0;
    const block = Buffer.from(`${good}\n`.repeat(1_500));
    const endless = function* (): Generator<Buffer> {
      yield Buffer.from(`${header}\n`);
      for (;;) {
        given++;
        yield block;
      }
    };
    let taken = 0;
    for await (const line of readCardFile(streamed(endless()))) {
      assert.equal(line.kind, 'card');
      if (++taken === 30_000) break;
    }
    assert.equal(given, 20);
  });

  test('of a line without end are let go', async () => {
    const block = Buffer.alloc(1_000_000, '9');
    const chunks = function* (): Generator<Buffer> {
      yield Buffer.from(`${header}\n`);
      for (let index = 0; index < 200; index++) yield block;
      yield Buffer.from(`\n${good}\n`);
    };
    assert.deepEqual(summary(await collect(streamed(chunks()))), ['2 bad: longer than 512 bytes', '3 card']);
  });

  test('that fail pass their error on', async () => {
    const broken = function* (): Generator<Buffer> {
      yield Buffer.from(`${header}\n${good}\n`);
      throw new Error('disk');
    };
    await assert.rejects(collect(streamed(broken())), /disk/);
  });
});

describe('the sample cards', () => {
  test('are all good, and cover the statuses and three currencies', async () => {
    const lines = await collect(
      createReadStream(new URL('samples/cards.csv', import.meta.url)) as AsyncIterable<Buffer>,
    );
    const cards = lines.flatMap((each) => (each.kind === 'card' ? [each.card] : []));
    assert.equal(cards.length, lines.length);
    assert.ok(cards.length >= 480);
    assert.deepEqual([...new Set(cards.map(({ status }) => status))].sort(), [...cardStatuses].sort());
    assert.deepEqual([...new Set(cards.map(({ currency }) => currency))].sort(), ['392', '840', '978']);
    assert.equal(new Set(cards.map((card) => card.pan.reveal())).size, cards.length);
  });
});

describe('a file of changes', () => {
  const all = 'change,pan,replaces,expiry,status,currency,limit,new_pan,restrictions';
  async function changesOf(content: string): Promise<string[]> {
    const lines: string[] = [];
    for await (const line of readCardChanges(streamed([Buffer.from(content)]))) {
      if (line.kind === 'bad') lines.push(`${line.line} bad: ${line.reason}`);
      else {
        const { kind, pan: _pan, ...rest } = line.change;
        const text = JSON.stringify(rest, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value));
        lines.push(`${line.line} ${kind} ${text}`);
      }
    }
    return lines;
  }

  test('gives each change what it needs, and leaves out what is empty', async () => {
    const other = '9900010000000027';
    const content = [
      all,
      `add,${pan},,3508,,840,1000,,`,
      `set,${pan},3,,blocked,,,,`,
      `replace,${pan},3,3112,,,,${other},`,
      `delete,${pan},4,,,,,,`,
      `lift,${pan},,,,,,,n1.2 n3.4.r1`,
    ].join('\n');
    assert.deepEqual(await changesOf(content), [
      '2 add {"expiry":"3508","status":"active","currency":"840","limitMinor":"1000"}',
      '3 set {"replaces":3,"status":"blocked"}',
      '4 replace {"replaces":3,"newPan":"990001******0027","expiry":"3112","status":"closed"}',
      '5 delete {"replaces":4}',
      '6 lift {"restrictions":["n1.2","n3.4.r1"]}',
    ]);
    assert.deepEqual(await changesOf(`pan,change,replaces\n${pan},delete,7\n`), ['2 delete {"replaces":7}']);
  });
  test('has no change without what it replaces, and none that would change nothing', async () => {
    const content = ['set', 'delete', 'replace', 'lift', 'drop', 'set'].map((name) => `${name},${pan},,,,,,,`);
    const lines = await changesOf([all, ...content, `set,${pan},1,,,,,,`, 'set,1234,1,,,,1,,'].join('\n'));
    assert.match(lines[0] ?? '', /^2 bad: replaces: expected the version/);
    assert.match(lines[1] ?? '', /^3 bad: replaces: /);
    assert.match(lines[2] ?? '', /replaces: .*; new_pan: 0 digits, .*; expiry: /);
    assert.match(lines[3] ?? '', /restrictions: name those/);
    assert.match(lines[4] ?? '', /change: expected add, set, replace, delete or lift$/);
    assert.match(lines[6] ?? '', /expiry, status or limit: nothing to set$/);
    assert.match(lines[7] ?? '', /^9 bad: pan: 4 digits/);
  });
  test('whose header names another column is refused with the line', async () => {
    await assert.rejects(changesOf('\nchange,pan,version\n'), {
      code: 'CARD_FILE_HEADER_INVALID',
      message: /line 2: column 3 is not a column/,
    });
  });
});
