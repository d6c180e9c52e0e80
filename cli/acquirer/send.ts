import { readFileSync } from 'node:fs';

import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import { currencyCode, maximumAmount } from '../../base/money.ts';
import { Pan } from '../../base/pan.ts';
import { pack } from '../../switch/iso8583/codec.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import { describe, type DescribedField } from '../../switch/iso8583/describe.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';
import { parseTlv } from '../../switch/iso8583/tlv.ts';
import { openConnection } from './connection.ts';
import { reportFailure } from './load-command.ts';
import { isApproval } from './load-summary.ts';
import { acquiringInstitution, nameAndLocation, RrnCounter, textOf, transmissionDateAndTime } from './message-parts.ts';
import { CommandFailure, parseDurationMs, systemErrorCode, targetOf, targetsOf, UsageError } from './usage.ts';
import type { CommandContext, Target } from './usage.ts';

/** `quadrant send`, as commander gives its flags. */
export interface SendFlags {
  readonly to?: string;
  readonly mti?: string;
  readonly pan?: string;
  readonly amount?: string;
  readonly currency?: string;
  readonly processingCode?: string;
  readonly expiry?: string;
  readonly track2?: string;
  readonly terminal?: string;
  readonly merchant?: string;
  readonly stan?: string;
  readonly rrn?: string;
  readonly authorizationCode?: string;
  /** `37=...`; `37=` leaves the field out. */
  readonly field?: readonly string[];
  readonly message?: string;
  readonly timeout?: string;
  readonly showRequest?: boolean;
  readonly json?: boolean;
}

const spec = iso87Ascii;

/**
 * Sends one message and prints the answer. 0: an answer came, approved or not; 1: none came; 2: the flags make no
 * message; 4: there was no connection. Card data is printed masked only, and is in no error message.
 */
export async function sendCommand(flags: SendFlags, context: CommandContext): Promise<number> {
  try {
    const message = await buildMessage(flags, context);
    const requestTimeoutMs = parseDurationMs('--timeout', flags.timeout ?? '5s');
    const target = flags.to === undefined ? firstTarget(context) : targetOf(flags.to, context.topology);
    return await exchange(target, message, requestTimeoutMs, flags, context);
  } catch (error) {
    return reportFailure('send', error, context);
  }
}

function firstTarget(context: CommandContext): Target {
  const [target] = targetsOf(context.topology(), undefined);
  if (target === undefined) throw new UsageError('--to: which node? nodes.yaml has none');
  return target;
}

async function exchange(
  target: Target,
  message: IsoMessage,
  requestTimeoutMs: number,
  flags: SendFlags,
  context: CommandContext,
): Promise<number> {
  const { host, port } = target.endpoint;
  const address = `${host}:${port}`;
  const where = target.name === address ? address : `${target.name} (${address})`;
  const opened = await openConnection({ endpoint: target.endpoint, clock: context.clock, requestTimeoutMs });
  if (opened.kind === 'refused') {
    throw new SwitchError('NODE_UNREACHABLE', `no connection to ${where}: ${opened.reason}`);
  }
  const outcome = await opened.connection.request(message);
  const strays = opened.connection.strays.map((stray) =>
    stray.kind === 'undecodable' ? stray.error.message : `mti ${stray.message.mti} that belongs to no request of ours`,
  );
  opened.connection.destroy();
  if (outcome.kind === 'unpackable') throw new UsageError(`the message cannot be sent: ${outcome.error.message}`);
  if (outcome.kind !== 'answered') {
    const why = outcome.kind === 'timeout' ? `within ${requestTimeoutMs} ms` : 'before the connection was closed';
    const instead = strays.length === 0 ? '' : `; what came instead: ${strays.join(', ')}`;
    throw new CommandFailure(`no answer from ${where} ${why}${instead}`);
  }

  const answer = outcome.message;
  const responseCode = textOf(answer, 39);
  if (flags.json === true) {
    const result = {
      to: target.name,
      address,
      roundTripMs: Math.round(outcome.roundTripMs * 1_000) / 1_000,
      approved: isApproval(responseCode),
      responseCode,
      authorizationCode: textOf(answer, 38),
      rrn: textOf(answer, 37),
      stan: textOf(answer, 11),
      transmissionDateAndTime: textOf(answer, 7),
      request: { mti: message.mti, fields: describe(message, spec).slice(1) },
      answer: { mti: answer.mti, fields: describe(answer, spec).slice(1) },
    };
    context.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
    return 0;
  }
  if (flags.showRequest === true) context.stdout.write(`sent to ${where}\n${rowsText(describe(message, spec))}\n`);
  context.stdout.write(
    `answered by ${where} in ${outcome.roundTripMs.toFixed(1)} ms\n${rowsText(describe(answer, spec))}`,
  );
  return 0;
}

function rowsText(rows: readonly DescribedField[]): string {
  const width = Math.max(...rows.map(({ name }) => name.length));
  return rows
    .map(
      ({ field, name, value }) =>
        `${field === 0 ? 'MTI' : String(field).padStart(3)}  ${name.padEnd(width)}  ${value}\n`,
    )
    .join('');
}

// ---- the message -----------------------------------------------------------------------------------------------------

/**
 * The message that the flags describe: `--message`'s fields if given, over them the named flags, over them `--field`.
 * Without `--message`, what an acquirer always sends is filled in; with it, only the keys that an answer needs.
 */
export async function buildMessage(flags: SendFlags, context: CommandContext): Promise<IsoMessage> {
  if (flags.pan === '-' && flags.message === '-')
    throw new UsageError('only one of --pan and --message can be standard input');
  const base = flags.message === undefined ? undefined : await readMessage(flags.message, context);
  const mti = flags.mti ?? base?.mti ?? '0100';
  if (!/^0[0-9]{3}$/.test(mti))
    throw new UsageError(`--mti: "${mti}" is not an MTI of ISO 8583:1987, four digits with 0 first`);
  const fields = new Map<number, FieldValue>(base?.fields);
  for (const [number, value] of await namedFields(flags, context)) fields.set(number, value);
  const given = (flags.field ?? []).map(parseField);
  for (const { number, value } of given) if (value !== undefined) fields.set(number, value);

  for (const [number, value] of defaults(mti, fields, base === undefined, context)) {
    if (!fields.has(number)) fields.set(number, value);
  }
  for (const { number, value } of given) if (value === undefined) fields.delete(number);

  const network = mti.startsWith('08') || mti.startsWith('05');
  if (base === undefined && !network && !fields.has(2) && !fields.has(35)) {
    throw new UsageError('which card? --pan NUMBER, --pan - (from standard input), or --track2');
  }
  const message = { mti, fields };
  const packed = pack(message, spec);
  if (packed.kind === 'invalid') throw new UsageError(`the message cannot be sent: ${packed.error.message}`);
  return message;
}

async function namedFields(flags: SendFlags, context: CommandContext): Promise<Map<number, string>> {
  const fields = new Map<number, string>();
  const set = (number: number, flag: string, value: string | undefined, pattern: RegExp, expected: string): void => {
    if (value === undefined) return;
    if (!pattern.test(value)) throw new UsageError(`${flag}: expected ${expected}`);
    fields.set(number, value);
  };
  if (flags.pan !== undefined) {
    const digits = (flags.pan === '-' ? await readAll(context.stdin) : flags.pan).trim();
    const pan = Pan.parse(digits);
    if (pan === undefined) throw new UsageError('--pan: expected 13 to 19 digits');
    fields.set(2, pan.reveal());
  }
  set(
    3,
    '--processing-code',
    flags.processingCode,
    /^[0-9]{6}$/,
    'six digits, for example 000000 purchase, 010000 cash, 200000 refund',
  );
  if (flags.amount !== undefined) {
    if (!/^[0-9]{1,12}$/.test(flags.amount)) {
      throw new UsageError(`--amount: expected whole minor units (1250 is 12.50 USD), 0 to ${maximumAmount}`);
    }
    fields.set(4, flags.amount.padStart(12, '0'));
  }
  set(11, '--stan', flags.stan, /^[0-9]{6}$/, 'six digits');
  set(14, '--expiry', flags.expiry, /^[0-9]{2}(?:0[1-9]|1[0-2])$/, 'YYMM');
  set(35, '--track2', flags.track2, /^(?=.{1,37}$)[0-9]{13,19}[=D][0-9]{4,}$/, 'NUMBER=YYMM and what follows');
  set(37, '--rrn', flags.rrn, /^[A-Za-z0-9 ]{12}$/, 'twelve letters or digits');
  set(38, '--authorization-code', flags.authorizationCode, /^[A-Za-z0-9 ]{6}$/, 'six letters or digits');
  set(41, '--terminal', flags.terminal?.padEnd(8), /^[\x20-\x7e]{8}$/, 'up to eight printable characters');
  set(42, '--merchant', flags.merchant?.padEnd(15), /^[\x20-\x7e]{15}$/, 'up to fifteen printable characters');
  if (flags.currency !== undefined) {
    const code = /^[0-9]{3}$/.test(flags.currency) ? flags.currency : currencyCode(flags.currency.toUpperCase());
    if (code === undefined)
      throw new UsageError(`--currency: "${flags.currency}" is not a currency; examples: 840, EUR`);
    fields.set(49, code);
  }
  return fields;
}

/** What is filled in where nothing was given. */
function defaults(
  mti: string,
  fields: ReadonlyMap<number, FieldValue>,
  whole: boolean,
  context: CommandContext,
): ReadonlyMap<number, string> {
  const { clock, random } = context;
  const transmission = transmissionDateAndTime(clock.wallMs());
  const keys = new Map([
    [7, transmission],
    [11, String(random.below(1_000_000)).padStart(6, '0')],
  ]);
  if (!whole) return keys;
  if (mti.startsWith('08')) return keys.set(70, '301');
  const purpose = fields.get(3);
  const free = typeof purpose === 'string' && (purpose.startsWith('31') || purpose.startsWith('38'));
  return new Map([
    ...keys,
    [3, '000000'],
    [4, (free ? '0' : '1000').padStart(12, '0')],
    [12, transmission.slice(4)],
    [13, transmission.slice(0, 4)],
    [18, '5999'],
    [22, fields.has(35) ? '051' : '012'],
    [25, '00'],
    [32, acquiringInstitution],
    [37, new RrnCounter(clock.wallMs()).take()],
    [41, 'SEND0001'],
    [42, 'SENDMERCHANT001'],
    [43, nameAndLocation('QUADRANT SEND')],
    [49, '840'],
  ]);
}

/** `37=ABC`; binary fields and DE 55 in hexadecimal; nothing after the sign leaves the field out. */
function parseField(text: string): { readonly number: number; readonly value: FieldValue | undefined } {
  const parts = /^([0-9]{1,3})=(.*)$/s.exec(text);
  // The text itself may hold card data, so it is not repeated.
  if (parts === null) throw new UsageError('--field: expected NUMBER=VALUE, for example --field 37=123456789012');
  const number = Number(parts[1]);
  const value = parts[2] ?? '';
  return { number, value: value === '' ? undefined : fieldValue('--field', number, value) };
}

function fieldValue(flag: string, number: number, text: string): FieldValue {
  const field = spec.fields.get(number);
  if (field === undefined) throw new UsageError(`${flag}: ${spec.name} has no DE ${number}`);
  if (field.format.kind === 'text') return text;
  if (!/^(?:[0-9A-Fa-f]{2})+$/.test(text))
    throw new UsageError(`${flag}: DE ${number} (${field.name}) is given in hexadecimal`);
  const bytes = Buffer.from(text, 'hex');
  if (field.format.kind === 'bytes') return bytes;
  const parsed = parseTlv(bytes);
  if (parsed.kind === 'invalid') throw new UsageError(`${flag}: DE ${number} (${field.name}): ${parsed.reason}`);
  return parsed.elements;
}

/** `{"mti": "0100", "fields": {"2": "...", "55": "9F02..."}}` from a file, or `-` for standard input. */
async function readMessage(file: string, context: CommandContext): Promise<IsoMessage> {
  const where = file === '-' ? 'standard input' : file;
  let text: string;
  try {
    text = file === '-' ? await readAll(context.stdin) : readFileSync(file, 'utf8');
  } catch (error) {
    throw new CommandFailure(`the message cannot be read from ${where} (${systemErrorCode(error)})`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UsageError(`--message: ${where} is not JSON`);
  }
  const shape = 'expected {"mti": "0100", "fields": {"3": "000000", ...}}, every value a string';
  if (!isRecord(value) || typeof value['mti'] !== 'string' || !isRecord(value['fields'])) {
    throw new UsageError(`--message: ${where}: ${shape}`);
  }
  const fields = new Map<number, FieldValue>();
  for (const [name, content] of Object.entries(value['fields'])) {
    if (!/^[0-9]{1,3}$/.test(name) || typeof content !== 'string')
      throw new UsageError(`--message: ${where}: ${shape}`);
    fields.set(Number(name), fieldValue('--message', Number(name), content));
  }
  return { mti: value['mti'], fields };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const inputMost = 1024 * 1024;

async function readAll(input: AsyncIterable<Buffer | string>): Promise<string> {
  let text = '';
  for await (const chunk of input) {
    text += chunk.toString();
    if (text.length > inputMost) throw new UsageError('standard input is longer than any message');
  }
  return text;
}

const helpText = `
Filled in where not given: DE 3 000000, 4 1000, 7, 12 and 13 from the clock (UTC), 11 by chance, 18 5999, 22 012 or 051,
25 00, 32 ${acquiringInstitution}, 37, 41 SEND0001, 42, 43, 49 840; for an 08xx 7, 11 and 70 = 301. With --message only 7 and 11.

Exit code: 0 an answer came (approved or declined), 1 none came, 2 the flags make no message, 4 no connection.

Examples, with sample cards:
  quadrant send --to n2 --pan 9900010000000019 --amount 1250
  quadrant send --pan - --processing-code 310000 < card.txt       the number stays out of the shell's history
  quadrant send --mti 0220 --pan 9900010000000019 --amount 1250 --rrn <DE 37 of the approval>
  quadrant send --mti 0400 --pan 9900010000000019 --amount 1250 --rrn <DE 37 of the approval>
  quadrant send --to 127.0.0.1:8581 --mti 0800 --field 70=001
  quadrant send --message request.json --json
`;

/** Adds `send` to the program. */
export function registerSend(program: Command, context: CommandContext): void {
  program
    .command('send')
    .description('sends one ISO 8583 message and prints the answer field by field, masked')
    .option('--to <node>', 'a node id, or host:port (default: the first node)')
    .option('--mti <mti>', 'message type (default: 0100)')
    .option('--pan <number>', 'DE 2; - reads it from standard input')
    .option('--amount <minor>', 'DE 4 in minor units: 1250 is 12.50 USD')
    .option('--currency <code>', 'DE 49: 840 or USD')
    .option('--processing-code <code>', 'DE 3')
    .option('--expiry <yymm>', 'DE 14')
    .option('--track2 <data>', 'DE 35')
    .option('--terminal <id>', 'DE 41')
    .option('--merchant <id>', 'DE 42')
    .option('--stan <stan>', 'DE 11')
    .option('--rrn <rrn>', 'DE 37')
    .option('--authorization-code <code>', 'DE 38')
    .option('--field <number=value>', 'any field, repeatable; "43=" leaves DE 43 out', collect)
    .option('--message <file>', 'a JSON message, - from standard input; other flags override it')
    .option('--timeout <time>', 'how long to wait for the answer (default: 5s)')
    .option('--show-request', 'print what was sent, too')
    .option('--json', 'print request and answer as JSON, masked')
    .addHelpText('after', helpText)
    .action(async (flags: SendFlags) => {
      process.exitCode = await sendCommand(flags, context);
    });
}

function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
