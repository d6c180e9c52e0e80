import type { Clock } from '../../base/clock.ts';
import { describeError, isStoreError, SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import { planChanges, type VersionedChange } from '../../config-db/configuration-change.ts';
import { readVersions } from '../../config-db/configuration-fold.ts';
import { indexOfChange, lastChangeIndex } from '../../config-db/configuration-history.ts';
import type { RewriteTopology } from '../../config-db/rewrite.ts';
import { encodeConfigurationChange, type ConfigurationChange } from '../../config-db/rows.ts';
import { encodeBody, type ConfigurationRowChange } from '../../store/entry.ts';
import type { HostedGroup } from './groups.ts';

/** A change of the configuration as it was entered at some node. */
export interface ChangeRequest {
  /** Given where it was entered; whoever brings the same request again brings the same id. */
  readonly id: string;
  readonly by: string;
  readonly origin: NodeId;
  readonly changes: readonly VersionedChange[];
  /** The move of a range that the change ends (R12). */
  readonly ends?: string;
}

/** `index` is the log index of the change; 0: every row was as wanted already. */
export type ChangeReply =
  { readonly kind: 'entered'; readonly index: number } | { readonly kind: 'failed'; readonly error: SwitchError };

export interface EntryPosition {
  readonly index: number;
  readonly term: number;
}

/** The log of `config`, as its leader sees it. Each `done` is called once, later; undefined: this node does not lead. */
export interface ConfigurationLog {
  /** The end of the log, committed or not. */
  end(done: (end: EntryPosition | undefined) => void): void;
  enter(body: string, done: (entered: EntryPosition | undefined) => void): void;
}

export interface DeskOptions {
  /** The group `config` on this node. */
  readonly hosted: () => HostedGroup | undefined;
  readonly log: ConfigurationLog;
  readonly topology: RewriteTopology;
  readonly clock: Clock;
  readonly journal: Pick<Logger, 'info'>;
}

interface Waiting {
  readonly request: ChangeRequest;
  readonly done: (reply: ChangeReply) => void;
}

/** An entry has to fit one message of the bus, with room for everything else in it. */
export const maximumEntryBytes = 600_000;

const appliedWithinMs = 5000;
const lookEveryMs = 10;
/** Another leader's change may come in between, once or twice. */
const maximumTries = 5;

/**
 * Where changes of the configuration are entered: on the node that leads `config`. One change at a time is checked
 * against everything before it, appended, and awaited until it is committed and applied here.
 *
 * Guaranteed: a change has an effect once, however often it is brought; it takes effect on top of exactly the rows that
 * it was checked against, whoever leads meanwhile (`checkedAt` of its entry: the fold is the judge), and so never
 * replaces a version of a row that its author has not named.
 */
export class ConfigurationDesk {
  readonly #options: DeskOptions;
  readonly #waiting: Waiting[] = [];
  #busy = false;

  constructor(options: DeskOptions) {
    this.#options = options;
  }

  enter(request: ChangeRequest, done: (reply: ChangeReply) => void): void {
    this.#waiting.push({ request, done });
    this.#next();
  }

  #next(): void {
    const next = this.#busy ? undefined : this.#waiting.shift();
    if (next === undefined) return;
    this.#busy = true;
    this.#try(next.request, maximumTries, (reply) => {
      this.#busy = false;
      next.done(reply);
      this.#next();
    });
  }

  #try(request: ChangeRequest, tries: number, done: (reply: ChangeReply) => void): void {
    const { log } = this.#options;
    const failed = (error: SwitchError): void => {
      done({ kind: 'failed', error });
    };
    log.end((end) => {
      if (end === undefined) {
        failed(notTheLeader());
        return;
      }
      // A change of an earlier term may still be on its way into the fold: it counts too.
      this.#whenApplied(end, failed, () => {
        const prepared = this.#prepare(request);
        if (prepared.kind !== 'prepared') {
          done(prepared);
          return;
        }
        log.enter(prepared.body, (entered) => {
          if (entered === undefined) {
            failed(notTheLeader());
            return;
          }
          this.#whenApplied(entered, failed, () => {
            const index = this.#indexOf(request.id);
            if (index !== undefined) {
              this.#note(request, prepared.changes, index);
              done({ kind: 'entered', index });
            } else if (tries > 1) {
              this.#try(request, tries - 1, done);
            } else {
              failed(
                new SwitchError('OWNER_UNREACHABLE', 'other changes of the configuration came first, again and again'),
              );
            }
          });
        });
      });
    });
  }

  #indexOf(id: string): number | undefined {
    const hosted = this.#options.hosted();
    return hosted && indexOfChange(hosted.reader.database, id);
  }

  /** The entry to append; or that there is nothing to do, or that it must not be. */
  #prepare(
    request: ChangeRequest,
  ):
    | ChangeReply
    | { readonly kind: 'prepared'; readonly body: string; readonly changes: readonly ConfigurationChange[] } {
    const hosted = this.#options.hosted();
    if (hosted === undefined) return { kind: 'failed', error: notTheLeader() };
    const { database } = hosted.reader;
    try {
      return database.transaction(() => {
        const known = indexOfChange(database, request.id);
        if (known !== undefined) return { kind: 'entered', index: known } as const;
        const changes = planChanges(readVersions(database), request.changes, this.#options.topology, request.ends);
        if (changes.length === 0) return { kind: 'entered', index: 0 } as const;
        const body = encodeBody({
          kind: 'configuration',
          id: request.id,
          checkedAt: lastChangeIndex(database),
          at: this.#options.clock.wallMs(),
          by: request.by,
          origin: request.origin,
          changes: changes.map((change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationRowChange),
        });
        if (body.length > maximumEntryBytes) throw tooLarge(body.length);
        return { kind: 'prepared', body, changes } as const;
      })();
    } catch (error) {
      if (!isStoreError(error) && !(error instanceof SwitchError)) throw error;
      const failure = error instanceof SwitchError ? error : new SwitchError('STORE_UNREADABLE', describeError(error));
      return { kind: 'failed', error: failure };
    }
  }

  #note({ by, origin, id }: ChangeRequest, changes: readonly ConfigurationChange[], index: number): void {
    const tables = [...new Set(changes.map(({ table }) => table))];
    this.#options.journal.info(
      { event: 'configuration-entered', group: 'config', index, change: id, by, origin, rows: changes.length, tables },
      'a change of the configuration was entered',
    );
  }

  /** Calls `then` when this very entry has been applied here; fails when a later leader has put another in its place. */
  #whenApplied(position: EntryPosition, failed: (error: SwitchError) => void, then: () => void): void {
    const { clock, hosted: hostedNow } = this.#options;
    const deadline = clock.monotonicMs() + appliedWithinMs;
    const look = (): void => {
      const hosted = hostedNow();
      if (hosted !== undefined && hosted.applied >= position.index) {
        const applied = hosted.reader.position(position.index);
        if (applied === undefined || applied.term === position.term) then();
        else {
          failed(
            new SwitchError('OWNER_UNREACHABLE', 'the leader changed before the change was committed: enter it again'),
          );
        }
      } else if (clock.monotonicMs() > deadline) {
        failed(
          new SwitchError(
            'OWNER_UNREACHABLE',
            'the configuration has no majority: whether the change is in is open until it has one; enter it again then',
          ),
        );
      } else {
        clock.after(lookEveryMs, look);
      }
    };
    look();
  }
}

export function tooLarge(bytes: number): SwitchError {
  return new SwitchError(
    'CONFIGURATION_REFUSED',
    `the change has ${bytes} bytes; at most ${maximumEntryBytes} can be entered as one: enter it in parts`,
  );
}

function notTheLeader(): SwitchError {
  return new SwitchError('OWNER_UNREACHABLE', 'this node does not lead the configuration');
}
