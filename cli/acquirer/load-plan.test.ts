import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { ManualClock } from '../../base/manual-clock.ts';
import { Pan } from '../../base/pan.ts';
import { seededRandom } from '../../base/random.ts';
import { pack } from '../../switch/iso8583/codec.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';
import type { AcquirerCard } from './cards.ts';
import { defaultMix, operations, parseMix } from './load-mix.ts';
import type { Mix } from './load-mix.ts';
import { LoadPlan } from './load-plan.ts';
import type { PlannedRequest } from './load-plan.ts';
import * as parts from './message-parts.ts';
import { UsageError } from './usage.ts';

function card(line: number, digits: string): AcquirerCard {
  const pan = Pan.parse(digits);
  assert.ok(pan);
  return { line, pan, expiry: '3508', currency: '840' };
}

const cards = [card(2, '9900010000000019'), card(3, '9900010782328216'), card(4, '9900012114051037')];

function textOf({ message }: PlannedRequest, field: number): string {
  return parts.textOf(message, field);
}

/**
 * Plays a plan with up to `window` requests in flight, answered in random order, a share of them declined or never.
 * `check` sees each request as it is planned, with what is in flight and what has been answered by then.
 */
function play(options: {
  readonly mix: Mix;
  readonly seed: number;
  readonly requests: number;
  readonly window: number;
  readonly declines: number;
  readonly losses: number;
  readonly check?: (
    request: PlannedRequest,
    inFlight: readonly PlannedRequest[],
    approved: ReadonlySet<PlannedRequest>,
  ) => void;
}): PlannedRequest[] {
  const clock = new ManualClock({ soon: 'event-loop' });
  const plan = new LoadPlan({
    cards,
    mix: options.mix,
    terminals: 3,
    seed: options.seed,
    random: seededRandom(options.seed),
    clock,
  });
  const chance = seededRandom(options.seed + 1);
  const all: PlannedRequest[] = [];
  const inFlight: PlannedRequest[] = [];
  const approved = new Set<PlannedRequest>();
  for (let count = 0; count < options.requests; count++) {
    const request = plan.next(chance.below(3));
    options.check?.(request, inFlight, approved);
    all.push(request);
    inFlight.push(request);
    clock.advance(chance.below(20));
    while (inFlight.length > chance.below(options.window + 1)) {
      const [settled] = inFlight.splice(chance.below(inFlight.length), 1);
      if (settled === undefined) break;
      const fate = chance.below(1_000);
      if (fate < options.losses) {
        plan.learned(settled, { kind: 'undecided' });
      } else {
        const declined = fate < options.losses + options.declines;
        if (!declined) approved.add(settled);
        const responseCode = declined ? '51' : '00';
        plan.learned(settled, {
          kind: 'answered',
          responseCode,
          authorizationCode: declined ? '' : String(100_000 + count),
        });
      }
    }
  }
  return all;
}

const seeds = fc.integer({ min: 0, max: 36 ** 4 - 1 });

test('every key is unique, except that a repeat has the key, card and amount of its original', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const keys = new Map<string, PlannedRequest>();
      const all = play({ mix: defaultMix, seed, requests: 800, window: 30, declines: 100, losses: 20 });
      for (const request of all) {
        const { mti } = request.message;
        const key = [mti.slice(0, 3), ...[11, 7, 32, 41].map((field) => textOf(request, field))].join('|');
        if (request.operation === 'repeat') {
          assert.equal(mti, `${request.original?.message.mti.slice(0, 3)}1`);
          assert.equal(keys.get(key), request.original);
          assert.equal(request.message.fields, request.original?.message.fields);
        } else {
          assert.ok(!keys.has(key), `key ${key} is used twice`);
          keys.set(key, request);
        }
      }
    }),
    { numRuns: 30 },
  );
});

test('a dependent request refers to an approved, answered original, and no two requests for one original race', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      let dependents = 0;
      play({
        mix: parseMix(
          'purchase=40,financial=15,refund=5,completion=15,completion-reversal=5,reversal=5,reversal-advice=5,partial-reversal=5,repeat=5',
        ),
        seed,
        requests: 800,
        window: 40,
        declines: 100,
        losses: 30,
        check: (request, inFlight, approved) => {
          const { original, operation } = request;
          assert.equal(original !== undefined, operations[operation].needs !== undefined);
          if (original === undefined) return;
          dependents += 1;
          assert.ok(!inFlight.includes(original), 'the original has been answered');
          if (operation !== 'repeat') assert.ok(approved.has(original), 'the original was approved');
          assert.equal(textOf(request, 2), textOf(original, 2));
          assert.equal(textOf(request, 41), textOf(original, 41));
          for (const other of inFlight) {
            assert.ok(other.original !== original, `${operation} and ${other.operation} of one original are in flight`);
            // Nor does one touch what a request in flight will change one step further: a completion's hold.
            assert.ok(
              other.original?.original !== original || other.operation === 'repeat',
              'the hold of a completion that is being reversed',
            );
          }
        },
      });
      assert.ok(dependents > 100);
    }),
    { numRuns: 30 },
  );
});

test('a hold is completed once at most, and what is used up is not used again', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const all = play({ mix: defaultMix, seed, requests: 2_000, window: 10, declines: 0, losses: 0 });
      const uses = new Map<PlannedRequest, string[]>();
      for (const { original, operation } of all) {
        if (original !== undefined) uses.set(original, [...(uses.get(original) ?? []), operation]);
      }
      for (const [original, list] of uses) {
        const finals = list.filter((operation) => operation === 'reversal' || operation === 'reversal-advice');
        assert.ok(finals.length <= 1, `${original.operation} is reversed ${finals.length} times`);
        assert.ok(list.filter((operation) => operation === 'completion').length <= 1);
        assert.ok(list.filter((operation) => operation === 'repeat').length <= 1);
        if (finals.length === 1) assert.ok(list.at(-1) === finals[0] || list.at(-1) === 'repeat');
      }
    }),
    { numRuns: 20 },
  );
});

test('the shares of the operations approach the mix, though some have to wait for an original', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const all = play({ mix: defaultMix, seed, requests: 20_000, window: 50, declines: 150, losses: 0 });
      const total = [...defaultMix.values()].reduce((sum, weight) => sum + weight, 0);
      for (const [operation, weight] of defaultMix) {
        const share = all.filter((request) => request.operation === operation).length / all.length;
        assert.ok(Math.abs(share - weight / total) < 0.015, `${operation}: ${share} instead of ${weight / total}`);
      }
    }),
    { numRuns: 5 },
  );
});

test('every planned message packs, and unknown cards are well-formed and in no file', () => {
  const known = new Set(cards.map(({ pan }) => pan.reveal()));
  for (const request of play({ mix: defaultMix, seed: 3, requests: 3_000, window: 20, declines: 100, losses: 10 })) {
    const packed = pack(request.message, iso87Ascii);
    assert.equal(
      packed.kind,
      'packed',
      `${request.operation}: ${packed.kind === 'invalid' ? packed.error.message : ''}`,
    );
    if (request.operation !== 'unknown-card') continue;
    assert.equal(Pan.parse(textOf(request, 2))?.hasValidCheckDigit(), true);
    assert.ok(!known.has(textOf(request, 2)));
    assert.equal(request.card?.line, 0);
  }
});

test('the same seed and answers plan the same requests', () => {
  const plan = (): unknown[] =>
    play({ mix: defaultMix, seed: 42, requests: 500, window: 10, declines: 100, losses: 10 }).map(
      ({ operation, message }) => [operation, message.mti, [...message.fields]],
    );
  assert.deepEqual(plan(), plan());
});

test('only money that may have moved is reversed when a request stays unanswered', () => {
  const clock = new ManualClock({ soon: 'event-loop' });
  for (const [operation, reversed] of Object.entries({
    purchase: true,
    cash: true,
    financial: true,
    refund: true,
    inquiry: false,
    verification: false,
    advice: false,
    echo: false,
  })) {
    const plan = new LoadPlan({
      cards,
      mix: parseMix(`${operation}=1`),
      terminals: 1,
      seed: 1,
      random: seededRandom(1),
      clock,
    });
    const request = plan.next(0);
    plan.learned(request, { kind: 'undecided' });
    const reversal = plan.reversalOfUnanswered(request);
    assert.equal(reversal !== undefined, reversed, operation);
    if (reversal === undefined) continue;
    assert.equal(reversal.message.mti, '0420');
    assert.equal(textOf(reversal, 90), parts.originalDataElements(request.message));
    assert.equal(textOf(reversal, 4), textOf(request, 4));
  }
});

test('DE 90 is MTI, STAN, DE 7, and institutions filled with zeros to eleven digits', () => {
  const message = {
    mti: '0101',
    fields: new Map([
      [7, '0301120000'],
      [11, '000042'],
      [32, '900001'],
    ]),
  };
  assert.equal(parts.originalDataElements(message), '0100' + '000042' + '0301120000' + '00000900001' + '00000000000');
});

test('RRNs have twelve characters and stay unique over the end of their counter', () => {
  const counter = new parts.RrnCounter(Date.UTC(2026, 2, 1));
  const seen = new Set<string>();
  const first = counter.take();
  for (let count = 1; count < 36 ** 4; count++) counter.take();
  for (let count = 0; count < 10; count++) seen.add(counter.take());
  assert.equal(seen.size, 10);
  assert.ok([first, ...seen].every((rrn) => /^[0-9A-Z]{12}$/.test(rrn)));
  assert.ok(!seen.has(first));
});

const badMixes: readonly (readonly [string, RegExp])[] = [
  ['purchse=10', /no operation "purchse"; did you mean "purchase"\?/],
  ['teleport=10', /no operation "teleport"; known: purchase, /],
  ['purchase', /"purchase" is not of the form purchase=WEIGHT/],
  ['purchase=-1', /"purchase=-1" is not of the form/],
  ['purchase=1e3', /not of the form/],
  ['purchase=1,purchase=2', /"purchase" stands there twice/],
  ['purchase=0', /every weight is 0/],
  ['', /no operation ""/],
];
for (const [text, message] of badMixes) {
  test(`the mix "${text}" is refused with a reason`, () => {
    assert.throws(
      () => parseMix(text),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  });
}
