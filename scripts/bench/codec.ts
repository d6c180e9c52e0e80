import { createRequire } from 'node:module';

import { assert } from '../../base/errors.ts';
import { realClock } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { pack, unpack } from '../../switch/iso8583/codec.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';

/**
 * Our codec against npm `iso_8583`, the most used one that reads and writes what it should, on the same message:
 * a purchase with track 2, about 220 bytes. Each figure is the median of five runs, the two taking turns; a ratio is
 * the median of the runs' ratios, so that a machine that is busy for a while does not bend it.
 */
export interface CodecFigures {
  readonly unpackPerSecond: number;
  readonly packPerSecond: number;
}

export interface CodecBench {
  readonly messageBytes: number;
  readonly ours: CodecFigures;
  readonly baseline: CodecFigures;
  readonly unpackRatio: number;
  readonly packRatio: number;
}

/** What is used of `iso_8583`, which has no types of its own. */
interface Iso8583 {
  getIsoJSON(bytes: Buffer, options: { readonly lenHeader: boolean }): Readonly<Record<string, unknown>>;
  getRawMessage(): Buffer | { readonly error: string };
}
type Iso8583Class = new (message?: Readonly<Record<number, string>>) => Iso8583;
const Baseline = createRequire(import.meta.url)('iso_8583') as Iso8583Class;

const fields: readonly (readonly [number, string])[] = [
  [2, '4761739001010119'],
  [3, '000000'],
  [4, '000000005000'],
  [7, '1122132843'],
  [11, '123456'],
  [12, '082843'],
  [13, '1122'],
  [14, '2812'],
  [18, '5411'],
  [22, '051'],
  [23, '001'],
  [25, '00'],
  [32, '40000000001'],
  [35, '4761739001010119D28122011758928889'],
  [37, '632613123456'],
  [41, 'TERM0001'],
  [42, 'MERCHANT0000001'],
  [43, 'CORNER SHOP BOSTON          BOSTON    US'],
  [49, '840'],
];

const runs = 5;
const runMs = 300;
const batch = 500;

/** Calls per second of `call`, over about `runMs`. */
function perSecond(call: () => unknown): number {
  const start = realClock.monotonicMs();
  let calls = 0;
  let elapsedMs = 0;
  let last: unknown;
  while (elapsedMs < runMs) {
    for (let index = 0; index < batch; index++) last = call();
    calls += batch;
    elapsedMs = realClock.monotonicMs() - start;
  }
  // Looked at, so that no call can be optimized away.
  assert(typeof last === 'object', 'the bench measures calls that give something');
  return Math.round((calls / elapsedMs) * 1000);
}

export function benchCodec(): CodecBench {
  const message = { mti: '0100', fields: new Map(fields) };
  const packed = pack(message, iso87Ascii);
  assert(packed.kind === 'packed', 'our codec packs the message of the bench');
  const { bytes } = packed;
  const baselineMessage = { 0: message.mti, ...Object.fromEntries(fields) };
  const baselinePacked = new Baseline(baselineMessage).getRawMessage();
  assert(Buffer.isBuffer(baselinePacked), 'the baseline packs the message of the bench');
  assert(new Baseline().getIsoJSON(bytes, { lenHeader: false })[42] === message.fields.get(42), 'and unpacks it');
  assert(unpack(baselinePacked, iso87Ascii).kind === 'message', 'each reads what the other writes');

  const calls = {
    ourUnpack: () => unpack(bytes, iso87Ascii),
    baselineUnpack: () => new Baseline().getIsoJSON(bytes, { lenHeader: false }),
    ourPack: () => pack(message, iso87Ascii),
    baselinePack: () => new Baseline(baselineMessage).getRawMessage(),
  };
  const figures = Array.from({ length: runs }, () => ({
    ourUnpack: perSecond(calls.ourUnpack),
    baselineUnpack: perSecond(calls.baselineUnpack),
    ourPack: perSecond(calls.ourPack),
    baselinePack: perSecond(calls.baselinePack),
  }));
  const of = (name: keyof typeof calls): number => medianOf(figures.map((run) => run[name]));
  return {
    messageBytes: bytes.length,
    ours: { unpackPerSecond: of('ourUnpack'), packPerSecond: of('ourPack') },
    baseline: { unpackPerSecond: of('baselineUnpack'), packPerSecond: of('baselinePack') },
    unpackRatio: medianOf(figures.map((run) => run.ourUnpack / run.baselineUnpack)),
    packRatio: medianOf(figures.map((run) => run.ourPack / run.baselinePack)),
  };
}

if (import.meta.main) {
  const { messageBytes, ours, baseline, unpackRatio, packRatio } = benchCodec();
  console.log(`ISO 8583, one core, a 0100 of ${messageBytes} bytes, calls per second (median of ${runs}):`);
  console.log(
    `  unpack  ours ${ours.unpackPerSecond}  iso_8583 ${baseline.unpackPerSecond}  ratio ${unpackRatio.toFixed(1)}`,
  );
  console.log(
    `  pack    ours ${ours.packPerSecond}  iso_8583 ${baseline.packPerSecond}  ratio ${packRatio.toFixed(1)}`,
  );
}
