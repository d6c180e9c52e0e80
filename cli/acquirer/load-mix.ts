import { nearest } from '../../base/nearest.ts';
import { UsageError } from './usage.ts';

/**
 * What a load does. `needs` is what must have been answered before, or undefined for what stands alone:
 * `money` is an approved request that holds or has moved money, `completion` an approved 0220 that completed a hold,
 * `answer` any request with a decided answer.
 */
export interface OperationSpec {
  readonly mti: string;
  /** DE 3; undefined: that of the request it refers to, or none. */
  readonly processingCode: string | undefined;
  readonly needs: 'hold' | 'money' | 'completion' | 'answer' | undefined;
  readonly defaultWeight: number;
  readonly meaning: string;
}

const table = {
  purchase: op('0100', '000000', undefined, 50, 'authorization of a purchase: places a hold'),
  cash: op('0100', '010000', undefined, 4, 'authorization of cash: places a hold'),
  cashback: op('0100', '090000', undefined, 2, 'authorization of a purchase with cash back, its cash in DE 54'),
  financial: op('0200', '000000', undefined, 10, 'purchase that posts at once'),
  refund: op('0200', '200000', undefined, 3, 'refund that credits at once'),
  'refund-authorization': op('0100', '200000', undefined, 1, 'authorization of a refund: moves no money'),
  inquiry: op('0100', '310000', undefined, 3, 'balance inquiry'),
  verification: op('0100', '380000', undefined, 2, 'card verification'),
  advice: op('0220', '000000', undefined, 1, 'posting with no hold before it'),
  'unknown-card': op('0100', '000000', undefined, 1, 'purchase with a card that is in no file'),
  echo: op('0800', undefined, undefined, 1, 'network echo, DE 70 = 301'),
  completion: op('0220', undefined, 'hold', 8, 'posts an approved hold: by DE 37 and 41, or by DE 38 and 42'),
  'completion-reversal': op('0420', undefined, 'completion', 1, 'reverses a completion: its hold stands again'),
  reversal: op('0400', undefined, 'money', 4, 'full reversal: by DE 90, DE 37 and 41, or DE 4, 11 and 41'),
  'reversal-advice': op('0420', undefined, 'money', 3, 'full reversal that has already happened'),
  'partial-reversal': op('0420', undefined, 'money', 2, 'reversal down to the amount in DE 95'),
  repeat: op('xxx1', undefined, 'answer', 4, 'an answered request once more: must get the same answer'),
} as const satisfies Readonly<Record<string, OperationSpec>>;

function op(
  mti: string,
  processingCode: string | undefined,
  needs: OperationSpec['needs'],
  defaultWeight: number,
  meaning: string,
): OperationSpec {
  return { mti, processingCode, needs, defaultWeight, meaning };
}

export type Operation = keyof typeof table;

export const operations: Readonly<Record<Operation, OperationSpec>> = table;
export const operationNames = Object.keys(table) as readonly Operation[];

/** Relative weights; what is not in it is not done. */
export type Mix = ReadonlyMap<Operation, number>;

export const defaultMix: Mix = new Map(operationNames.map((name) => [name, operations[name].defaultWeight]));

/** `purchase=60,reversal=6`: weights of any sum. Replaces the default mix as a whole. */
export function parseMix(text: string): Mix {
  const mix = new Map<Operation, number>();
  for (const part of text.split(',')) {
    const [name = '', weightText = ''] = part.split('=', 2).map((piece) => piece.trim());
    const operation = operationNames.find((known) => known === name);
    if (operation === undefined) {
      const meant = nearest(name, operationNames);
      const advice = meant === undefined ? `known: ${operationNames.join(', ')}` : `did you mean "${meant}"?`;
      throw new UsageError(`--mix: no operation "${name}"; ${advice}`);
    }
    if (mix.has(operation)) throw new UsageError(`--mix: "${name}" stands there twice`);
    if (!/^[0-9]{1,6}(?:\.[0-9]{1,6})?$/.test(weightText)) {
      throw new UsageError(`--mix: "${part.trim()}" is not of the form ${name}=WEIGHT, a number such as 10 or 0.5`);
    }
    mix.set(operation, Number(weightText));
  }
  if (![...mix.values()].some((weight) => weight > 0)) throw new UsageError('--mix: every weight is 0');
  return mix;
}
