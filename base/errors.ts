import { maskCardData } from './pan.ts';

interface CatalogueEntry {
  /** Whether the same call can succeed later with nothing changed by a person. */
  readonly retryable: boolean;
  /** What to do about it, for an operator. */
  readonly hint: string;
}

/**
 * Every operating failure the project reports. `docs/ERRORS.md` documents each code, and a test holds the two
 * against each other both ways. A decline is not an error: it is a value with a response code (DE 39).
 */
export const errorCatalogue = {
  CONFIG_INVALID: { retryable: false, hint: 'Correct the named key of nodes.yaml; docs/OPERATIONS.md lists the keys.' },
  DATA_FOLDER_IN_USE: { retryable: false, hint: 'Stop the process that uses the folder, or give another with --data.' },
  DATA_FOLDER_FOREIGN: { retryable: false, hint: 'Give the data folder that belongs to this cluster with --data.' },
  NODE_UNREACHABLE: {
    retryable: true,
    hint: 'Look at `quadrant status`; start the node or its broker, then try again.',
  },
  OWNER_UNREACHABLE: {
    retryable: true,
    hint: 'Look at `quadrant status` for the group: its owner, or the majority of its voters, is away.',
  },
  CONFIGURATION_REFUSED: {
    retryable: false,
    hint: 'Nothing was changed. Correct the named rows and enter them again.',
  },
  VERSION_CONFLICT: {
    retryable: false,
    hint: 'Nothing was changed. Look at what is there now (`quadrant config history`, `quadrant cards history`), and enter the change again if it is still wanted.',
  },
  CARD_CHANGE_REFUSED: { retryable: false, hint: 'Nothing was changed. Correct the named change and enter it again.' },
  CARD_UNKNOWN: { retryable: false, hint: 'Import the card first: quadrant cards import FILE.csv' },
  QUEUE_REFUSED: { retryable: false, hint: '`quadrant config queue` lists what waits at each node.' },
  CALL_INVALID: { retryable: false, hint: 'CLI and nodes are of different versions, or a flag has a wrong value.' },
  BROKER_UNREACHABLE: {
    retryable: true,
    hint: 'Start the brokers of nodes.yaml, and check that this process has the nkey that they know.',
  },
  STORE_UNREADABLE: {
    retryable: false,
    hint: 'Look at the disk and the file; `quadrant compare` on the other nodes tells whether their copies are good.',
  },
  SECRETS_INVALID: { retryable: false, hint: 'Restore DATA/secrets from a backup, or begin with empty data: --fresh.' },
  EVIDENCE_BROKEN: {
    retryable: false,
    hint: '`quadrant audit verify` names the record. Keep the folder for a look, and begin a new one.',
  },
  REPORT_NOT_KEPT: {
    retryable: true,
    hint: 'Make room on the disk, then do it again. Earlier reports are as they were.',
  },
  LOG_MISSING: {
    retryable: true,
    hint: 'Give the data folder of the cluster with --data; logs are on the machine whose processes write them.',
  },
  NATS_SERVER_MISSING: { retryable: false, hint: 'Install nats-server 2.9 or newer so that it is on PATH.' },
  START_FAILED: { retryable: true, hint: 'Read the named log; start again when its cause is gone.' },
  PORT_TAKEN: { retryable: true, hint: 'Stop the program that listens there, or change the port in nodes.yaml.' },
  CONFIGURATION_FILE_INVALID: {
    retryable: false,
    hint: 'Correct the named lines of the configuration file; config-db/samples/configuration.yaml is an example.',
  },
  CONFIGURATION_ROW_INVALID: {
    retryable: false,
    hint: 'Correct the named columns of the configuration row and enter it again.',
  },
  REBUILD_REFUSED: {
    retryable: true,
    hint: 'A copy is made anew only while another process leads its group: drain the node, and look at `quadrant status`.',
  },
  REPAIR_NOT_APPROVED: {
    retryable: false,
    hint: 'Nothing was changed. `quadrant repair plans` has what waits; a second operator approves with `quadrant repair approve ID`.',
  },
  REPAIR_REFUSED: {
    retryable: false,
    hint: 'Nothing was changed. Compare anew with `quadrant compare`, then repair by that report.',
  },
  REPAIR_RUNNING: {
    retryable: true,
    hint: 'Wait for the other repair. One that was killed is forgotten after half a minute; the same one may go on at once.',
  },
  REWRITE_RULES_INVALID: {
    retryable: false,
    hint: 'Correct the rewrite rules at the named path; the head of config-db/rewrite-rules.yaml explains the language.',
  },
  DRILL_RUNNING: { retryable: true, hint: 'Wait for the other drill, or end it with Ctrl-C: it undoes what it did.' },
  DRILL_REFUSED: {
    retryable: false,
    hint: 'What was begun has been undone. `quadrant drill --help` says what each drill needs.',
  },
  CARD_FILE_HEADER_INVALID: {
    retryable: false,
    hint: 'Begin the card file with the line pan,expiry,status,currency,limit (any order), as UTF-8 text.',
  },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof errorCatalogue;

/**
 * An operating failure: something outside the program's control that an operator can act on. A broken invariant is
 * no SwitchError; it is an ordinary Error that ends the process, and the other nodes take over.
 * The message is masked when it is made, so that no card number can travel in it.
 */
export class SwitchError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: { readonly cause?: unknown; readonly hint?: string } = {}) {
    super(maskCardData(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SwitchError';
    this.code = code;
    this.retryable = errorCatalogue[code].retryable;
    this.hint = options.hint ?? errorCatalogue[code].hint;
  }
}

/** Whether a store's file could not be read or written: full, read-only, damaged, away. */
export function isStoreError(error: unknown): boolean {
  return error instanceof SwitchError ? error.code === 'STORE_UNREADABLE' : hasCode(error, 'SQLITE_');
}

/** Whether somebody else has a store's file locked, a shell or a backup: worth another try. */
export function isStoreBusy(error: unknown): boolean {
  return hasCode(error, 'SQLITE_BUSY');
}

/**
 * What is wrong with a store's file. `disk`: it cannot be read or written now, and may be later. `damage`: what is in it
 * makes no sense, and trying again helps nobody.
 */
export type StoreFailure = 'disk' | 'damage';

/** Of an error that came out of a store's file, or of carrying out what it says. */
export function storeFailureOf(error: unknown): StoreFailure {
  if (error instanceof SwitchError && error.cause !== undefined) return storeFailureOf(error.cause);
  const isDisk = isStoreError(error) && !hasCode(error, 'SQLITE_CORRUPT') && !hasCode(error, 'SQLITE_NOTADB');
  return isDisk && !hasCode(error, 'SQLITE_CONSTRAINT') ? 'disk' : 'damage';
}

/** What `read` gives; undefined when a store's file could not be read, which `onFailure` hears of. */
export function whenReadable<Result>(
  read: () => Result,
  onFailure: (error: unknown) => void = () => undefined,
): Result | undefined {
  try {
    return read();
  } catch (error) {
    if (!isStoreError(error)) throw error;
    onFailure(error);
    return undefined;
  }
}

function hasCode(error: unknown, beginning: string): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith(beginning);
}

/** Text of any thrown value, masked: what a log or a person may see. */
export function describeError(error: unknown): string {
  return maskCardData(error instanceof Error ? error.message : String(error));
}

/** For invariants: a false condition is a defect of ours and ends the process. */
export function assert(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${maskCardData(claim)}`);
}
